"""Every family that opens as a pair: at lambda 0 and 1 the engine computes what transformers computes of the parents.

Each checkpoint is a miniature with a random value in every tensor. A family runs in about a second.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import write_merge
from families import FAMILIES, save_family
from torch import Tensor

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.errors import EngineError
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.fingerprint import digest_of_hashes
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.model_tree import auto_class
from autolambda.merging.pair import open_pair
from autolambda.schedule import Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=6)
IDS = torch.tensor([[5, 6, 7, 8, 9, 20, 30, 31, 32, 33]])
REFUSED = {  # they generate with a cache or with masks of their own
    "minimax": "MiniMax uses cache of its own",
    "llama4": "chunked_attention",
}


def logits_of(folder: Path) -> Tensor:
    """What transformers computes of a checkpoint by itself, in float32."""
    auto = auto_class(open_checkpoint(str(folder)))
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: Tensor = model(IDS).logits
    return logits


SLOW = {"zamba2"}  # it cannot be made with few layers


@pytest.mark.filterwarnings("ignore:Casting complex values to real")  # Llama 4's rotary embedding
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FAMILIES]
)
def test_the_ends_are_the_parents_and_a_fingerprint_is_the_files(tmp_path, name):
    folders = [save_family(tmp_path / f"{seed}", FAMILIES[name], seed=seed) for seed in range(2)]
    pair = open_pair(*map(str, folders))
    options = {"tokenizer": load_tokenizer(folders[1]), "device": "cpu"}
    if name in REFUSED:
        with pytest.raises(EngineError, match=REFUSED[name]):
            TransformersEngine(pair, **options)
        return
    engine = TransformersEngine(pair, **options)
    assert engine.in_words == "transformers on cpu, float32"  # every tensor has a place
    alone = [logits_of(folder) for folder in folders]
    assert not torch.equal(*alone)
    for lam, expected in ((0.0, alone[0]), (1.0, alone[1])):
        engine.set_merge(Method.linear(Schedule.uniform(lam)))
        with torch.inference_mode():
            assert torch.equal(engine._model(IDS).logits, expected)
    engine.set_merge(Method.linear(Schedule.uniform(0.5)))
    (tmp_path / "out").mkdir()
    written = digest_of_hashes(write_merge(tmp_path / "out", open_merge(pair, Schedule.uniform(0.5))))
    fingerprint = engine.fingerprint()
    assert fingerprint.whole and fingerprint.digest == written
    prompts = [Prompt("abc def"[:length], length) for length in (1, 4, 7)]
    together = engine.generate(prompts, GREEDY)
    assert [engine.generate([prompt], GREEDY)[0] for prompt in prompts] == together
