"""Tries the vLLM engine on this machine in less than ten minutes: what it promises, step by step, in one table.

    python studies/vllm_engine/smoke.py --out smoke.md           # on a GPU, with vLLM 0.26 to 0.33
    python studies/vllm_engine/smoke.py --cpu --out smoke.json   # what has a meaning on a CPU

Steps that were left out for want of time can be run in a second call (``--only 10,12``). It ends with 0 if every step
found what was expected, with 1 if one did not, with 2 if the options are wrong or no GPU is present.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoke_table import Device, Expect, Outcome, Step, as_json, exit_code, run_all, table

GRACE = 5.0  # seconds after the last limit until this process is ended


def call(module: str, name: str, bench: Any) -> Mapping[str, Any]:
    """Calls a step's function, whose module is imported now: most need vLLM."""
    found: Mapping[str, Any] = getattr(importlib.import_module(f"smoke_steps_{module}"), name)(bench)
    return found


def step(number: str, title: str, run: str, seconds: tuple[float | None, float | None], *expects: Expect) -> Step:
    """A step with its function as MODULE.NAME; ``seconds`` are those on a GPU and on a CPU."""
    times: dict[Device, float] = {
        device: each for device, each in zip(("cuda", "cpu"), seconds, strict=True) if each is not None
    }
    return Step(number, title, functools.partial(call, *run.split(".")), times, expects)


CPU, GPU = Device.__args__
STEPS = (
    step("0", "the machine and vLLM", "torch.machine", (20, 20),
         Expect("vllm_device", "==", "cuda", GPU), Expect("totals_differ", "<=", 0.01, GPU),
         Expect("vllm_device", "==", "cpu", CPU), Expect("core_in_driver", "==", False)),
    step("1", "bits of merges to nearest", "torch.lerp", (10, 10),
         Expect("cuda_differs", "==", 0, GPU), Expect("rows_differ", "==", 0), Expect("fma_differs", "==", 0)),
    step("1b", "bits and bandwidth of dithered merges", "torch.dither", (15, 15),
         Expect("cuda_differs", "==", 0, GPU), Expect("rows_differ", "==", 0), Expect("formula_differs", "==", 0),
         Expect("of_a_copy", ">=", 0.85, GPU)),
    step("2", "768 MiB of pinned memory: torch's own, and the parents'", "torch.pinned", (5, None),
         Expect("torch_mib", "==", 1024), Expect("parents_mib", "==", 768), Expect("parents_pinned", "==", True)),
    step("3", "a synthetic pair", "engine.make_pair", (40, 10)),
    step("4", "start, both ends compared", "engine.start", (150, 40),
         Expect("engine", "has", "merged by direct, parents on the GPU", GPU), Expect("runner", "==", "V2", GPU),
         Expect("attention", "has", "FLASH_ATTN", GPU), Expect("flashinfer_sampler", "==", True, GPU),
         Expect("free_gib", ">=", 5, GPU), Expect("engine", "has", "on cpu, float32, merged by stream", CPU),
         Expect("ends_compared", "==", 2)),
    step("5", "addresses of the parameters", "engine.addresses", (5, 5), Expect("moved", "==", 0)),
    step("6", "greedy, one at a time", "engine.greedy", (25, 20),
         Expect("ends_equal", "<=", 0.5), Expect("again_equal", "==", 1.0), Expect("texts", ">=", 2)),
    step("7", "no prefix of other weights", "engine.prefix_cache", (3, 5),
         Expect("repeated", ">=", 1), Expect("after_merge", "==", 0), Expect("repeated_again", ">=", 1)),
    step("8", "abort", "engine.abort", (10, 20),
         Expect("aborted", ">=", 1), Expect("return_s", "<=", 0.5), Expect("merge_and_reset_s", "<=", 1.0, GPU),
         Expect("merge_and_reset_s", "<=", 3.0, CPU), Expect("as_before", "==", 1.0)),
    step("9", "the same call twice, one seed per call", "engine.repeats", (5, 10),
         Expect("again_equal", "==", 1.0, CPU), Expect("other_seed_equal", "<=", 0.5)),
    step("9b", "one seed per request", "engine.seeds", (20, 60),
         Expect("speed_ratio", ">=", 0.9, GPU), Expect("speed_ratio", ">=", 0.6, CPU),
         Expect("alone_equal", "==", 1.0, CPU), Expect("reversed_equal", "==", 1.0, CPU),
         Expect("again_equal", "==", 1.0, CPU)),
    step("10", "speed beside raw LLM.generate", "engine.speed", (40, 60),
         Expect("ratio", ">=", 0.95, GPU), Expect("ratio", ">=", 0.6, CPU)),
    step("11", "switch", "engine.switch", (5, 10),
         Expect("merge_s", "<=", 0.03, GPU), Expect("compare_and_reset_s", "<=", 1.0)),
    step("14", "the engine's process is killed", "others.core_killed", (8, 10),
         Expect("after_s", "<=", 2.0), Expect("error", "has", "its process died or was killed")),
    step("6b", "a fresh engine on the export", "others.fresh", (80, 40),
         Expect("equal", "==", 1.0), Expect("fingerprints_equal", "==", True), Expect("whole", "==", True, GPU)),
    step("11b", "parents in host memory", "others.parents_on_host", (70, None),
         Expect("engine", "has", "merged by direct, parents in host memory"), Expect("merge_s", "<=", 1.0),
         Expect("pinned", "==", True), Expect("beyond_parents_gib", "<=", 8)),
    step("12", "a start that fails", "others.failed_start", (30, 60),
         Expect("said", "has", "EngineError: "), Expect("said", "has", "lower sampling.max_tokens"),
         Expect("lines", "==", 1), Expect("tracebacks", "==", 0)),
    step("13", "a mixture of experts", "others.experts", (60, 40),
         Expect("engine", "has", "merged by direct", GPU), Expect("permuted", "has", "moe_backend to triton", GPU),
         Expect("responses", "==", 1)),
    step("15", "the driver is killed", "others.driver_killed", (50, 60),
         Expect("processes", ">=", 1), Expect("alive", "==", 0), Expect("held_gib", "<=", 0.5)),
    step("16", "vLLM's own thinking budget, a probe", "others.thinking_budget", (40, 40),
         Expect("longest_capped", "<=", 24, CPU), Expect("longest_free", ">=", 32, CPU)),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the steps that have a meaning without a GPU")
    parser.add_argument("--only", type=lambda text: text.split(","), help="numbers of steps, such as 0,1,1b")
    parser.add_argument("--skip", type=lambda text: text.split(","), default=[], help="numbers of steps")
    parser.add_argument("--seconds", type=float, default=550.0, help="for all steps together")
    parser.add_argument("--out", type=Path, help="a file for the table: .md or .json")
    given = parser.parse_args()
    known = [each.number for each in STEPS]
    if unknown := [each for each in [*(given.only or []), *given.skip] if each not in known]:
        parser.error(f"no such step: {', '.join(unknown)}; known: {', '.join(known)}")
    if given.out and given.out.suffix not in (".md", ".json"):
        parser.error(f"--out {given.out}: a file that ends in .md or .json")
    device: Device = "cpu"
    if not given.cpu:
        import torch

        if not torch.cuda.is_available():
            parser.error("no GPU is present; --cpu runs the steps that have a meaning without one")
        device = "cuda"
    os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # steps send functions to the workers
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # the core is a process of its own, as on a GPU
    chosen = [each for each in STEPS if each.number in (given.only or known) and each.number not in given.skip]
    return run(chosen, device, seconds=given.seconds, out=given.out)


def run(steps: list[Step], device: Device, *, seconds: float, out: Path | None) -> int:
    """Runs the steps, prints the table and writes it; returns the exit code."""
    from smoke_bench import Bench

    outcomes: list[Outcome] = []
    folder = tempfile.TemporaryDirectory(prefix="smoke-")
    bench = Bench(device, Path(folder.name))

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(f"{outcome.step.number:>4} {outcome.step.title}: {outcome.status} ({outcome.seconds:.1f} s)", flush=True)

    def finish() -> int:
        print(f"\n{table(outcomes, device)}", flush=True)
        if out:
            write = as_json if out.suffix == ".json" else table
            out.write_text(write(outcomes, device) + "\n", encoding="utf-8")
        return exit_code(outcomes)

    def end() -> None:
        print(f"no end after {seconds + GRACE:.0f} s: a step cannot be stopped", file=sys.stderr)
        finish()
        bench.kill()
        os._exit(1)

    watchdog = threading.Timer(seconds + GRACE, end)
    watchdog.daemon = True
    watchdog.start()
    with folder:
        run_all(steps, bench, device=device, seconds=seconds, on_outcome=tell)
        bench.close()
    watchdog.cancel()
    return finish()


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s, exit code {code}")
    sys.exit(code)
