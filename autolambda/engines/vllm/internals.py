"""The names inside vLLM that autolambda uses although vLLM does not promise to keep them.

They are looked up in vLLM's files, without importing them: a version without one of them is refused at the start, and a
version can be checked that is not installed here (``python -m autolambda.engines.vllm.internals FOLDER``).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from autolambda.errors import ConfigError

INTERNALS: dict[str, tuple[str, ...]] = {
    "entrypoints/llm.py": ("LLM.llm_engine",),
    "v1/engine/llm_engine.py": (
        "LLMEngine.engine_core",
        "LLMEngine.add_request(request_id, prompt, params)",
        "LLMEngine.step",
        "LLMEngine.abort_request(request_ids)",
        "LLMEngine.has_unfinished_requests",
        "LLMEngine.reset_prefix_cache(reset_connector)",
    ),
    "v1/engine/core_client.py": (
        "MPClient.shutdown",
        "MPClient.resources",
        "MPClient.utility_results",
        "SyncMPClient.outputs_queue",
        "SyncMPClient.call_utility(method)",
        "BackgroundResources.engine_dead",
    ),
    "v1/engine/core.py": ("EngineCore.pause_scheduler(mode, clear_cache)", "EngineCore.resume_scheduler"),
    "v1/engine/exceptions.py": ("EngineDeadError",),
    "v1/worker/worker_base.py": ("WorkerBase.model_runner", "WorkerBase.vllm_config"),
    "v1/worker/gpu_model_runner.py": ("GPUModelRunner.get_model", "GPUModelRunner.reload_weights(weights_iterator)"),
    "v1/worker/gpu/model_runner.py": ("GPUModelRunner.get_model", "GPUModelRunner.reload_weights(weights_iterator)"),
    "config/vllm.py": ("set_current_vllm_config",),
    "distributed/parallel_state.py": (
        "get_tp_group",
        "GroupCoordinator.rank_in_group",
        "GroupCoordinator.world_size",
    ),
    "utils/torch_utils.py": ("set_random_seed(seed)",),
    "platforms/interface.py": ("Platform.is_cpu", "Platform.get_device_total_memory"),
    "envs.py": (
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_ENABLE_STARTUP_PLAN",
        "VLLM_LOGGING_LEVEL",
    ),
    "engine/arg_utils.py": (
        "EngineArgs.gpu_memory_utilization",
        "EngineArgs.worker_extension_cls",
        "EngineArgs.load_format",
        "EngineArgs.language_model_only",
        "EngineArgs.stream_interval",
        "EngineArgs.moe_backend",
        "EngineArgs.kv_cache_memory_bytes",
    ),
    "model_executor/models/registry.py": ("_ModelRegistry.get_supported_archs",),
    "model_executor/models/utils.py": ("WeightsMapper._map_name", "WeightsMapper.orig_to_new_stacked"),
    "model_executor/layers/linear.py": (
        "UnquantizedLinearMethod",
        "LinearBase.input_size",
        "ColumnParallelLinear.output_partition_sizes",
        "RowParallelLinear.input_size_per_partition",
        "MergedColumnParallelLinear.output_sizes",
        "QKVParallelLinear.total_num_heads",
        "QKVParallelLinear.total_num_kv_heads",
        "QKVParallelLinear.head_size",
    ),
    "model_executor/layers/fused_moe/routed_experts.py": (
        "RoutedExperts._map_global_expert_id_to_local_expert_id",
        "RoutedExperts.moe_config",
    ),
    "model_executor/layers/fused_moe/config.py": (
        "FusedMoEConfig.moe_parallel_config",
        "FusedMoEParallelConfig.tp_rank",
    ),
    "model_executor/layers/fused_moe/unquantized_fused_moe_method.py": ("UnquantizedFusedMoEMethod",),
}
"""Names by vLLM's file: functions, classes and ``Class.member``, with the parameters that are passed by name."""


def check_internals() -> None:
    """Raises ``ConfigError`` if the installed vLLM lacks one of the names."""
    spec = find_spec("vllm")
    assert spec and spec.origin
    if missing := list(missing_internals(Path(spec.origin).parent)):
        raise ConfigError(
            f"engine.name: this vLLM lacks {', '.join(missing[:3])}, which autolambda uses; install another of the "
            "versions that README.md names, or set engine.name to transformers"
        )


def missing_internals(package: Path) -> Iterator[str]:
    """Yields the names that vLLM's package folder lacks, each with its file."""
    for file, names in INTERNALS.items():
        try:
            known = _definitions(ast.parse((package / file).read_text("utf-8")))
        except (OSError, SyntaxError):
            yield f"the file {file}"
            continue
        for each in names:
            name, _, parameters = each.rstrip(")").partition("(")
            taken = known.get(name)
            if taken is None or not ({"**"} & taken or taken.issuperset(filter(None, parameters.split(", ")))):
                yield f"{each} in {file}"


def _definitions(module: ast.Module) -> dict[str, set[str]]:
    """Returns functions, classes and variables, and ``Class.member``, with the parameters of functions."""
    known: dict[str, set[str]] = {}
    for node in module.body:
        known |= _defined(node)
        if isinstance(node, ast.If):  # variables that are declared for type checkers
            for inner in node.body:
                known |= _defined(inner)
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                known |= {f"{node.name}.{name}": taken for name, taken in _defined(member).items()}
            for each in ast.walk(node):
                if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and _is_self(each.value):
                    known.setdefault(f"{node.name}.{each.attr}", set())
    return known


def _defined(node: ast.stmt) -> dict[str, set[str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        spec = node.args
        taken = {each.arg for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)}
        return {node.name: taken | ({"**"} if spec.kwarg else set())}
    if isinstance(node, ast.ClassDef):
        return {node.name: set()}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id: set() for target in targets if isinstance(target, ast.Name)}


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


if __name__ == "__main__":
    sys.exit("\n".join(missing_internals(Path(sys.argv[1]))) or 0)
