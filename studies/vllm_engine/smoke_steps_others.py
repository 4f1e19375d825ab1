"""Steps of the smoke test with engines of other settings, and on the death of an engine and of a driver."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from smoke_bench import SMALL, set_lambda
from smoke_steps_engine import LAM, equal, greedy_calls, switch_times

from autolambda.engines.base import Prompt
from autolambda.errors import AutolambdaError, EngineError
from autolambda.merging.merge import open_merge
from autolambda.merging.pair import Pair, open_pair
from autolambda.merging.writing.write import write_weights
from autolambda.schedule import Schedule

EAGER = {"enforce_eager": True}
SECONDS_TO_DIE = 5
BUDGET = 16  # tokens of thinking


def core_killed(bench: Any) -> dict[str, Any]:
    """The engine's own processes are killed while it generates."""
    engine, killed = bench.engine(), []

    def kill() -> None:
        for process in _engine_processes(psutil.Process()):
            process.kill()
        killed.append(time.monotonic())

    timer = threading.Timer(2.0, kill)
    timer.start()
    try:
        while time.monotonic() - (killed[0] if killed else time.monotonic()) < 10:
            engine.generate(bench.prompts(64), bench.sampling(max_tokens=1024))
    except EngineError as error:
        return {"error": str(error), "after_s": time.monotonic() - killed[0] if killed else float("inf")}
    finally:
        timer.cancel()
        bench.close()
    return {"error": "none", "after_s": float("inf")}


def fresh(bench: Any) -> dict[str, Any]:
    """A new engine on the exported merge gives the tokens and the fingerprint of the merge in place."""
    pair = bench.pair(bench.size)
    folder = bench.folder / "merged"
    shutil.copytree(pair.thinking.folder, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    write_weights(folder, open_merge(pair, Schedule.uniform(LAM)), max_shard_size=5 << 30, identify=False)
    engine = bench.open(open_pair(str(folder), str(folder)))
    asked, sampling = greedy_calls(bench)
    said = [engine.generate([prompt], sampling)[0] for prompt in asked]
    return {
        "equal": equal(said, bench.notes["merge"]),
        "fingerprints_equal": engine.fingerprint() == bench.notes["fingerprint"],
        "whole": bench.notes["fingerprint"].whole,
    }


def parents_on_host(bench: Any) -> dict[str, Any]:
    """The switch with both parents in pinned host memory, and the memory of the engine's processes."""
    pair = bench.pair(bench.size)
    engine = bench.open(pair, parents="host", arguments=EAGER)
    [is_pinned] = engine._llm.collective_rpc(_are_pinned)
    held = sum(process.memory_info().rss for process in _engine_processes(psutil.Process()))
    beyond = (held - 2 * pair.num_bytes) / 2**30
    found = {"engine": engine.in_words, **switch_times(engine), "pinned": is_pinned, "beyond_parents_gib": beyond}
    bench.close()
    return found


def failed_start(bench: Any) -> dict[str, Any]:
    """A start without room for the KV cache: one line with the reason and an advice, and no traceback."""
    bench.close()
    with bench.driver(SMALL, kv_cache_memory_bytes=1) as driver:
        said, errors = driver.communicate()
    return {"said": said.strip(), "lines": len(said.splitlines()), "tracebacks": (said + errors).count("Traceback")}


def experts(bench: Any) -> dict[str, Any]:
    """A small mixture of experts; on a GPU also with kernels that permute the experts, which must be noticed."""
    pair = _pair_of_experts(bench)
    engine = bench.open(pair, context=512, arguments=EAGER)
    set_lambda(engine, LAM)  # compares with the files
    responses = engine.generate([Prompt("1 + 1 =", 1)], bench.sampling(max_tokens=16))
    found = {"engine": engine.in_words, "responses": len(responses)}
    if bench.is_gpu:
        try:
            bench.open(pair, context=512, arguments=EAGER | {"moe_backend": "flashinfer_cutlass"})
            found["permuted"] = "not noticed"
        except AutolambdaError as error:
            found["permuted"] = str(error)
    bench.close()
    return found


def thinking_budget(bench: Any) -> dict[str, Any]:
    """vLLM's own thinking budget on the bundled Thinking model: the tokens before the closing tag."""
    bench.close()
    try:
        return _budget(bench)
    except ValueError as error:  # vLLM 0.26 and 0.27 refuse it for dense models on a GPU
        return {"refused": str(error)}


def _budget(bench: Any) -> dict[str, Any]:
    import vllm

    models = bench.models
    config = {"reasoning_parser": "qwen3", "reasoning_end_str": f"\n{models.chat.think_end}\n\n"}
    settings: dict[str, Any] = {"reasoning_config": config, "max_model_len": 512, "disable_log_stats": True} | EAGER
    if not bench.is_gpu:
        settings |= {"kv_cache_memory_bytes": 1 << 28, "dtype": "float32"}
    llm = vllm.LLM(str(models.pair.thinking.folder), **settings)
    texts, tokenizer = [prompt.text for prompt in bench.prompts(64)], models.chat.tokenizer
    longest = {}
    for name, budget in (("free", None), ("capped", BUDGET)):
        params = vllm.SamplingParams(
            temperature=0.0, max_tokens=192, thinking_token_budget=budget, skip_special_tokens=False
        )
        outputs = llm.generate(texts, params, use_tqdm=False)
        thoughts = [output.outputs[0].text.partition(models.chat.think_end)[0] for output in outputs]
        longest[name] = max(len(ids) for ids in tokenizer(thoughts, add_special_tokens=False).input_ids)
    llm.llm_engine.engine_core.shutdown()
    return {"longest_free": longest["free"], "longest_capped": longest["capped"], "budget": BUDGET}


def driver_killed(bench: Any) -> dict[str, Any]:
    """A driver is killed while it generates: its engine's processes must end, and the GPU's memory be free."""
    bench.close()
    free = _free_gib(bench)
    with bench.driver(SMALL) as driver:
        assert driver.stdout and driver.stdout.readline().strip() == "READY", driver.communicate()
        time.sleep(1)
        family = _engine_processes(psutil.Process(driver.pid))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        _, alive = psutil.wait_procs(family, timeout=SECONDS_TO_DIE)
        held = free - _free_gib(bench)
    for process in alive:
        process.kill()
    return {"processes": len(family), "alive": len(alive), "held_gib": held}


def _engine_processes(driver: psutil.Process) -> list[psutil.Process]:
    """The processes below a driver, but for Python's own resource tracker."""
    return [process for process in driver.children(recursive=True) if "resource_tracker" not in _command(process)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _free_gib(bench: Any) -> float:
    """The GPU's free memory; 0 on a CPU."""
    return torch.cuda.mem_get_info()[0] / 2**30 if bench.is_gpu else 0.0


def _are_pinned(worker: Any) -> bool:
    parents = worker._autolambda._snapshots
    return all(tensor.is_pinned() for parent in parents for tensor in parent.values())


def _pair_of_experts(bench: Any) -> Pair:
    """Two random Qwen3 mixtures of experts of two layers, on a GPU with the widths of Qwen3-30B-A3B."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    source, folder = Path(bench.models.pair.thinking.folder), bench.folder / "experts"
    widths = {"hidden_size": 256, "moe_intermediate_size": 64, "num_experts": 8, "num_experts_per_tok": 2}
    if bench.is_gpu:
        widths = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
    config = Qwen3MoeConfig(
        **widths, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        intermediate_size=256, vocab_size=4096, max_position_embeddings=4096, tie_word_embeddings=False,
    )  # fmt: skip
    for seed, name in enumerate(("instruct", "thinking")):
        torch.manual_seed(seed)
        with torch.device(bench.device):
            Qwen3MoeForCausalLM(config).bfloat16().save_pretrained(folder / name)
        for file in (*source.glob("tokenizer*"), *source.glob("chat_template*")):
            shutil.copy(file, folder / name)
    return open_pair(str(folder / "instruct"), str(folder / "thinking"))
