"""The short list of the contract on other kinds of architectures, by every engine that runs them on a CPU.

test_contract.py runs the long list on a dense model, and transformers/test_families.py runs every family. vLLM's
streamed merges of these kinds are marked as slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from checkpoints import write_merge
from families import FAMILIES, Family, save_family
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from vllm_engines import live_weights, needs_vllm, open_vllm

from autolambda.engines.base import Engine, Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.merging.fingerprint import digest_of_hashes
from autolambda.merging.merge import Merge, open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import open_pair
from autolambda.schedule import Profile, Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=12)
MIXED = Schedule.by_depth_and_module(Profile((0.2, 0.9)), Profile((0.7, 0.4)))
END = 258
PROMPTS = [Prompt("abc def ghi"[:length], length) for length in (1, 3, 5, 11)]
KINDS = {
    "fused": FAMILIES["phi3"],
    "experts-and-buffers": FAMILIES["glm4_moe"],
    "hybrid": FAMILIES["falcon_h1"],
    # Qwen3-VL and Mistral 3 in vLLM import torchvision, which has no build for a CPU beside the others of these tests
    "nested": Family("idefics3", "fine-tunes of Idefics 3", {"scale_factor": 2}, text="llama"),
}
ENGINES = ("transformers", "vllm-direct", "vllm-stream")
CASES = [
    pytest.param(
        (kind, engine),
        id=f"{kind}-{engine}",
        marks=[
            *([needs_vllm] if "vllm" in engine else []),
            *([pytest.mark.slow] if engine == "vllm-stream" and kind != "hybrid" else []),
        ],
    )
    for kind in KINDS
    for engine in ENGINES
]


@dataclass(frozen=True)
class Opened:
    """An open engine with its parents; ``signed`` is false if reading its weights back loses the sign of 0."""

    engine: Engine
    folders: tuple[Path, Path]
    nested: bool
    signed: bool

    def merge(self, schedule: Schedule) -> Merge:
        self.engine.set_merge(Method.linear(schedule))
        return open_merge(open_pair(*map(str, self.folders)), schedule)

    def weights(self) -> dict[str, Tensor]:
        if isinstance(self.engine, TransformersEngine):
            infos = self.engine._pair.tensors
            live = self.engine._live.items()
            return {name: view.reshape(infos[name].shape).to(infos[name].dtype) for name, view in live}
        return live_weights(self.engine)  # type: ignore[arg-type]  # the only other engine here

    def responses_of_transformers(self, folder: Path) -> list[str]:
        """What transformers itself generates from a checkpoint, one prompt at a time."""
        auto = AutoModelForImageTextToText if self.nested else AutoModelForCausalLM
        model = auto.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer, texts = load_tokenizer(self.folders[1]), []
        for prompt in PROMPTS:
            ids = tokenizer(prompt.text, add_special_tokens=False, return_tensors="pt").input_ids
            mask = torch.ones_like(ids)
            out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=12, eos_token_id=END)
            texts.append(tokenizer.decode([token for token in out[0, ids.shape[1] :].tolist() if token != END]))
        return texts


@pytest.fixture(scope="module", params=CASES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    kind, name = request.param
    root = tmp_path_factory.mktemp(kind)
    instruct, thinking = (save_family(root / f"{seed}", KINDS[kind], seed=seed) for seed in range(2))
    engine: Engine
    if name == "transformers":
        pair = open_pair(str(instruct), str(thinking))
        engine = TransformersEngine(pair, tokenizer=load_tokenizer(thinking), device="cpu")
    else:
        path = "direct" if name == "vllm-direct" else "stream"
        engine = open_vllm(instruct, thinking, path=path)
    yield Opened(engine, (instruct, thinking), KINDS[kind].nested, signed=name != "vllm-stream")
    engine.close()


def differing(opened: Opened, stored: dict[str, Tensor], merge: Merge) -> list[str]:
    """The tensors that the engine holds otherwise, bit for bit; of a vision part, vLLM holds none."""
    held = opened.weights()
    assert held.keys() <= stored.keys() and stored.keys() - held.keys() in (set(), set(merge.pair.outside))
    return [
        name
        for name, tensor in held.items()
        if not torch.equal(tensor, stored[name])
        or (opened.signed and not torch.equal(*(each.reshape(-1).view(torch.int16) for each in (tensor, stored[name]))))
    ]


@pytest.mark.parametrize(("lam", "parent"), [(0.0, 0), (1.0, 1)])
def test_the_endpoints_are_the_parents_bit_for_bit(opened, lam, parent):
    opened.merge(MIXED)
    merge = opened.merge(Schedule.uniform(lam))
    stored = load_file(opened.folders[parent] / "model.safetensors")
    stored |= {name: load_file(opened.folders[1] / "model.safetensors")[name] for name in merge.pair.outside}
    assert differing(opened, stored, merge) == []


def test_a_merge_in_place_is_the_merge_on_disk(opened, tmp_path):
    """The weights, the fingerprint, and what transformers generates from the files."""
    merge = opened.merge(MIXED)
    written = digest_of_hashes(write_merge(tmp_path, merge))
    assert differing(opened, load_file(tmp_path / "model.safetensors"), merge) == []
    fingerprint = opened.engine.fingerprint()
    assert fingerprint.whole is opened.signed and (fingerprint.digest == written) is fingerprint.whole
    responses = [response.text for response in opened.engine.generate(PROMPTS, GREEDY)]
    assert responses == opened.responses_of_transformers(tmp_path)
    assert len(set(responses)) > 1


def test_switching_there_and_back_restores_weights_and_responses(opened):
    opened.merge(MIXED)
    before = opened.engine.fingerprint(), opened.engine.generate(PROMPTS, GREEDY)
    opened.merge(Schedule.uniform(0.3))
    assert opened.engine.fingerprint() != before[0]
    opened.merge(MIXED)
    assert (opened.engine.fingerprint(), opened.engine.generate(PROMPTS, GREEDY)) == before


def test_greedy_responses_do_not_depend_on_the_batch(opened):
    opened.merge(MIXED)
    together = opened.engine.generate(PROMPTS, GREEDY)
    assert [opened.engine.generate([prompt], GREEDY)[0] for prompt in PROMPTS] == together
