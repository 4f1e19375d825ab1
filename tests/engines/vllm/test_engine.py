"""What only the vLLM engine promises; what every engine does is in ../test_contract.py. All on real vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkpoints import edit_json, tiny_checkpoint
from packaging.version import Version
from paths import HELPERS, ROOT
from vllm_engines import fresh_vllm, live_weights, needs_vllm, open_vllm, opened, opened_pair

from autolambda.engines.vllm import expected, requests
from autolambda.engines.vllm.arguments import installed_version
from autolambda.engines.vllm.layout import LiveParameter
from autolambda.engines.vllm.parents import LiveParents
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.merge import Merge, open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import open_pair
from autolambda.schedule import Schedule
from tests.engines.test_contract import GREEDY, MIXED, WARM, bits, merged_folder, open_transformers, prompts

pytestmark = [needs_vllm, pytest.mark.usefixtures("one_thread")]


def vllm_version() -> tuple[int, ...]:
    return Version(installed_version()).release[:2] if find_spec("vllm") else ()


def pair_of(
    folder: Path, *, family: str = "qwen3", ties: tuple[bool, bool] = (False, False), **config: int
) -> tuple[Path, Path]:
    names = ("instruct", "thinking")
    instruct, thinking = (
        tiny_checkpoint(folder / name, family=family, tie=tie, seed=seed, **config)
        for seed, (name, tie) in enumerate(zip(names, ties, strict=True), start=1)
    )
    return instruct, thinking


@pytest.mark.parametrize("path", ["direct", "stream"])
@pytest.mark.parametrize(
    ("family", "ties"),
    [
        ("qwen3", (True, True)),
        ("qwen3", (True, False)),
        ("qwen3", (False, True)),
        ("llama", (False, False)),
        ("llama", (True, True)),
        ("qwen3_moe", (False, False)),
        ("qwen3_moe", (True, True)),
    ],
)
def test_every_family_merges_in_place_as_on_disk(tmp_path, family, ties, path):
    """The weights are compared with the files, and the tokens with the other engine's.

    Where both parents are tied, vLLM also loads the merge from the disk.
    """
    parents = pair_of(tmp_path, family=family, ties=ties)
    expected = dict(open_merge(open_pair(*map(str, parents)), MIXED).tensors())
    with opened(*parents, path=path) as engine:
        for schedule in (Schedule.uniform(0.0), Schedule.uniform(0.6), MIXED):
            engine.set_merge(Method.linear(schedule))
        assert bits(live_weights(engine), signed=path == "direct") == bits(expected, signed=path == "direct")
        fingerprint, responses = engine.fingerprint(), engine.generate(prompts(20), GREEDY)
    reference = open_transformers(*parents)
    reference.set_merge(Method.linear(MIXED))
    others = reference.generate(prompts(20), GREEDY)
    assert sum(a == b for a, b in zip(responses, others, strict=True)) >= 17  # a tie in float32 may fall either way
    if family != "llama" and ties == (True, True):
        merged = merged_folder(tmp_path / "merged", parents, MIXED)
        fresh = fresh_vllm(
            merged, merged, path=path, schedule=Schedule.uniform(1.0), prompts=prompts(20), sampling=GREEDY
        )
        assert (fresh.fingerprint, fresh.responses) == (fingerprint, responses)


def test_both_paths_and_parents_in_files_give_the_same(parents):
    """Direct is plain PyTorch here and stream oneDNN's packed weights, so the sums differ, but by less than a token."""
    responses, fingerprints = [], []
    for path, home in (("stream", "auto"), ("direct", "host"), ("direct", "files")):
        with opened(*parents, path=path, parents=home) as engine:
            engine.set_merge(Method.linear(MIXED))
            assert home == "auto" or ("memory-mapped files" if home == "files" else "host memory") in engine.in_words
            responses.append(engine.generate(prompts(20), GREEDY))
            fingerprints.append(engine.fingerprint())
    assert responses[1] == responses[2] and fingerprints[1] == fingerprints[2]
    assert sum(a == b for a, b in zip(*responses[:2], strict=True)) >= 18


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_one_tensor_left_stale_stops_the_run(tmp_path, monkeypatch, family):
    merge = LiveParents.merge
    with opened(*pair_of(tmp_path, family=family, ties=(True, True)), path="direct") as engine:
        [names] = engine._llm.collective_rpc(lambda worker: list(worker._autolambda._parameters))
        assert len(names) > 12
        for stale in names:

            def skip(self: LiveParents, to: Merge, stale: str = stale) -> None:
                before = self._parameters[stale].live.clone()
                merge(self, to)
                self._parameters[stale].live.data.copy_(before)

            engine.set_merge(Method.linear(Schedule.uniform(0.2)))
            monkeypatch.setattr(LiveParents, "merge", skip)
            with pytest.raises(EngineError, match=r"rank 0 holds other weights than the files give: .* the first is '"):
                engine.set_merge(Method.linear(Schedule.uniform(0.8)))
            monkeypatch.setattr(LiveParents, "merge", merge)


def test_a_comparison_in_pieces_sees_every_value(parents, monkeypatch):
    """Also the last value of the last piece."""
    with opened(*parents, path="direct") as engine:
        live = engine._llm.llm_engine.model_executor.driver_worker.worker._autolambda
        engine.set_merge(Method.linear(MIXED))
        monkeypatch.setattr(expected, "PIECE", 1000)
        assert live.compare(live._merge, whole=True) == []
        for name, parameter in live._parameters.items():
            last = parameter.live.data[parameter.parts[-1].index].view(-1)[-1:]
            kept = last.clone()
            last += 1
            assert live.compare(live._merge, whole=True) == [parameter.parts[-1].tensor], name
            last.copy_(kept)


def test_a_backbone_with_another_rope_is_merged(tmp_path):
    """An ablation opens such a pair with a warning; the workers open the same pair."""
    parents = pair_of(tmp_path)
    edit_json(parents[0] / "config.json", rope_parameters={"rope_theta": 5e6, "rope_type": "default"})
    pair = open_pair(*map(str, parents), across_configs=True)
    assert any("rope" in warning for warning in pair.warnings)
    with opened_pair(pair) as engine:
        engine.set_merge(Method.linear(MIXED))
        assert bits(live_weights(engine), signed=False) == bits(dict(open_merge(pair, MIXED).tensors()), signed=False)


@pytest.mark.skipif(vllm_version() < (0, 32), reason="vLLM 0.26 packs them itself; not tried between")
@pytest.mark.parametrize(
    ("family", "tied", "what"), [("qwen3", True, "embed_tokens"), ("qwen3_moe", False, "mlp.experts")]
)
def test_what_vllm_forgets_to_pack_is_seen(tmp_path, monkeypatch, family, tied, what):
    with opened(*pair_of(tmp_path, family=family, ties=(tied, tied))) as engine:
        monkeypatch.setattr(LiveParameter, "repack", lambda place: None)
        with pytest.raises(EngineError, match=what):
            engine.set_merge(Method.linear(Schedule.uniform(0.3)))


@pytest.fixture(scope="class")
def engine(parents):
    with opened(*parents) as engine:
        yield engine


class TestOneEngine:
    """What one engine shows that stays open."""

    def test_a_stop_string_and_an_end_token_end_alike_in_both_engines(self, engine, parents):
        """Length, text and reason, with special tokens kept in the text."""
        reference = open_transformers(*parents)
        for each in (reference, engine):
            each.set_merge(Method.linear(MIXED))
        full = engine.generate(prompts(40), GREEDY)
        stop = next(r.text[3:5] for r in full if r.text[:8].isascii() and len(r.text) > 8)
        stopping = replace(GREEDY, stop=(stop,))
        pairs = list(
            zip(engine.generate(prompts(40), stopping), reference.generate(prompts(40), stopping), strict=True)
        )
        assert sum(one == other for one, other in pairs) >= 36  # a tie in float32 may fall either way
        assert any(stop in response.text for response in full)

    def test_seeds_of_all_prompts_make_the_seed_of_the_call(self, engine):
        first = engine.generate(prompts(8), WARM)
        assert engine.generate(prompts(8), WARM) == first
        last = [*prompts(8)[:-1], replace(prompts(8)[-1], seed=1)]
        assert engine.generate(last, WARM) != first

    def test_each_text_is_tokenized_once(self, engine, monkeypatch):
        encoded = []
        encode = requests.encode
        monkeypatch.setattr(requests, "encode", lambda tokenizer, new: encoded.extend(new) or encode(tokenizer, new))
        for _ in range(3):
            engine.generate(prompts(8, seed=1), GREEDY)
        assert len(encoded) == 8

    def test_a_merge_also_empties_what_a_connector_keeps(self, engine, monkeypatch):
        """``engine.kv_offloading_size`` keeps the keys and values of prompts outside the prefix cache."""
        core = engine._llm.llm_engine.engine_core.engine_core
        reset = []
        monkeypatch.setattr(core.scheduler, "reset_connector_cache", lambda: reset.append(1) or True)
        engine.set_merge(Method.linear(Schedule.uniform(0.4)))
        assert reset

    def test_a_second_engine_in_one_process_is_refused(self, engine, parents):
        with pytest.raises(EngineError, match="open in this process already"):
            open_vllm(*parents)
        assert engine.generate(prompts(2), GREEDY)


def test_ends_and_sampling_are_the_thinking_parents(tmp_path):
    """Instruct's generation config is never read: here it would end a response at once."""
    instruct, thinking = pair_of(tmp_path)
    (instruct / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(264))}))
    (thinking / "generation_config.json").write_text(json.dumps({"eos_token_id": [258]}))
    with opened(instruct, thinking) as engine:
        engine.set_merge(Method.linear(Schedule.uniform(0.0)))
        assert max(response.num_tokens for response in engine.generate(prompts(8), GREEDY)) == GREEDY.max_tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensor_paralel_size": 2}, "no such engine argument; did you mean 'engine.tensor_parallel_size'"),
        ({"worker_extension_cls": "os.system"}, "engine.worker_extension_cls is set by autolambda; leave it out"),
        ({"tensor_parallel_size": "two"}, "engine: vLLM refuses tensor_parallel_size: Input should be"),
        ({"trust_remote_code": True}, "engine.trust_remote_code is set by autolambda; leave it out"),
        ({"model": "x"}, "engine.model is set by autolambda; set models.thinking instead"),
        ({"max_model_len": 64}, "engine.max_model_len: 64 is less than the 512 tokens"),
    ],
)
def test_a_wrong_engine_argument_is_refused_by_name(parents, arguments, message):
    with pytest.raises(ConfigError, match=message):
        open_vllm(*parents, arguments=arguments)


def test_what_vllm_itself_refuses_is_one_line(parents):
    with pytest.raises(ConfigError, match="engine: vLLM refuses cache_dtype: Input should be 'auto', ") as caught:
        open_vllm(*parents, arguments={"kv_cache_dtype": "no such"})
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match=r"vLLM failed while starting: .*; lower sampling\.max_tokens, or") as caught:
        open_vllm(*parents, arguments={"kv_cache_memory_bytes": 1})
    assert "\n" not in str(caught.value)
    with opened(*parents) as engine:  # and the process is as before
        assert engine.generate(prompts(2), GREEDY)


def test_an_architecture_that_vllm_has_no_code_for(tmp_path):
    parents = pair_of(tmp_path)
    for folder in parents:
        edit_json(folder / "config.json", architectures=["NoSuchForCausalLM"])
    with pytest.raises(ConfigError, match=r"no code for this architecture \(NoSuchForCausalLM\); set engine.name"):
        open_vllm(*parents)


def test_a_closed_engine_says_so(parents):
    with opened(*parents) as engine:
        pass
    for use in (
        lambda: engine.generate(prompts(2), GREEDY),
        lambda: engine.set_merge(Method.linear(MIXED)),
        engine.fingerprint,
    ):
        with pytest.raises(EngineError, match="closed"):
            use()


RANKS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from vllm_engines import open_vllm
from autolambda.merging.method import Method
from tests.engines.test_contract import GREEDY, MIXED, prompts

if __name__ == "__main__":
    arguments = {{"tensor_parallel_size": 2}}
    engine = open_vllm(Path({instruct!r}), Path({thinking!r}), path={path!r}, arguments=arguments)
    engine.set_merge(Method.linear(MIXED))
    print("GIVES", [response.text for response in engine.generate(prompts(20), GREEDY)])
    engine.close()
"""


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two ranks take two cores")
@pytest.mark.parametrize(("family", "path"), [("qwen3", "stream"), ("qwen3_moe", "direct")])
def test_two_tensor_parallel_ranks_hold_the_same_merge(tmp_path, family, path):
    """Each rank compares its shards with the files; together they give the tokens of one."""
    sizes = {"moe_intermediate_size": 64} if family == "qwen3_moe" else {}  # the CPU kernel takes 32 a rank
    parents = pair_of(tmp_path, family=family, **sizes)
    with opened(*parents, path=path) as engine:
        engine.set_merge(Method.linear(MIXED))
        expected = [response.text for response in engine.generate(prompts(20), GREEDY)]
    folders = dict(zip(("instruct", "thinking"), map(str, parents), strict=True))
    (tmp_path / "ranks.py").write_text(RANKS.format(tests=str(HELPERS), path=path, **folders))
    environment = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    command = [sys.executable, "-W", "ignore", str(tmp_path / "ranks.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=ROOT)
    assert f"GIVES {expected}" in done.stdout.splitlines(), done.stdout[-2000:] + done.stderr[-2000:]
