"""Makes tests/assets/mergekit: three tiny models, our recipes for them, and what mergekit makes of each.

python studies/merge_export/golden.py --mergekit VENV/bin/mergekit-yaml
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "tests" / "assets" / "mergekit"
sys.path.insert(0, str(ROOT / "tests"))

from checkpoints import tiny_checkpoint  # noqa: E402  # beside the tests
from safetensors.torch import load_file, save_file  # noqa: E402

from autolambda.export.mergekit import mergekit_recipe  # noqa: E402
from autolambda.merging.merge import open_merge  # noqa: E402
from autolambda.merging.method import Method  # noqa: E402
from autolambda.merging.pair import open_pair  # noqa: E402
from tests.export.test_mergekit import LINEAR, SCHEDULES  # noqa: E402

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "head_dim": 8, "vocab_size": 264}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mergekit", required=True, help="mergekit-yaml of an environment of its own")
    mergekit = parser.parse_args().mergekit
    shutil.rmtree(ASSETS, ignore_errors=True)
    for seed, name in enumerate(("base", "instruct", "thinking")):
        tiny_checkpoint(ASSETS / name, tie=False, seed=seed, **SIZES)
    around = {name: Method(name, base=str(ASSETS / "base")) for name in ("task_arithmetic", "ties")}
    methods = {f"linear {name}": method for name, method in LINEAR.items()} | around
    pair = open_pair(str(ASSETS / "instruct"), str(ASSETS / "thinking"))
    for name, method in (methods | {"slerp": Method("slerp", SCHEDULES["module"])}).items():
        recipe = ASSETS / f"{name.replace(' ', '_')}.yml"
        recipe.write_text(yaml.safe_dump(mergekit_recipe(open_merge(pair, method)), sort_keys=False))
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([mergekit, recipe, out], check=True, cwd=ASSETS, env={**os.environ, "PYTHONPATH": ""})
            [made] = Path(out).glob("*.safetensors")
            tensors = load_file(made)
        save_file(tensors, recipe.with_suffix(".safetensors"))


if __name__ == "__main__":
    main()
