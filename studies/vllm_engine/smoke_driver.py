"""A driver of its own for the smoke test: opens an engine on a pair, says so, and generates until it is killed.

python smoke_driver.py FOLDER ENGINE-ARGUMENTS-AS-JSON
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.vllm.engine import VllmEngine
from autolambda.errors import AutolambdaError
from autolambda.merging.pair import open_pair


def main(folder: Path, arguments: dict[str, object]) -> None:
    """Prints READY, or one line with the error."""
    pair = open_pair(str(folder / "instruct"), str(folder / "thinking"))
    tokenizer = load_tokenizer(pair.thinking.folder)
    try:
        engine = VllmEngine(pair, tokenizer=tokenizer, context=512, arguments={"enforce_eager": True, **arguments})
    except AutolambdaError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return
    print("READY", flush=True)
    sampling = Sampling(1.0, 1.0, 0, 0.0, 1.0, (), max_tokens=256)
    for number in itertools.count():
        engine.generate([Prompt(f"{number} + {i} =", i) for i in range(64)], sampling)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
