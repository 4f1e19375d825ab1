"""A program that opens vLLM engines: one that cannot start, then one that generates. Then it waits to be killed.

It prints a line of JSON for each. Its arguments are the parents, and vLLM's engine arguments as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from vllm_engines import open_vllm

from autolambda.errors import EngineError
from autolambda.merging.method import Method
from tests.engines.test_contract import GREEDY, MIXED, prompts


def tell(said: object) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main(instruct: str, thinking: str, arguments: str) -> None:
    parents = Path(instruct), Path(thinking)
    try:
        open_vllm(*parents, arguments={"kv_cache_memory_bytes": 1})
    except EngineError as error:
        tell(str(error))
    engine = open_vllm(*parents, arguments=json.loads(arguments))
    engine.set_merge(Method.linear(MIXED))
    tell([response.text for response in engine.generate(prompts(20), GREEDY)])
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
