"""The merge of live parameters from the files, without vLLM."""

from types import SimpleNamespace
from typing import cast

import torch

from autolambda.bundled import FOLDER
from autolambda.engines.vllm import expected as pieces
from autolambda.engines.vllm.engine import VllmEngine
from autolambda.engines.vllm.layout import LiveParameter, Part
from autolambda.engines.vllm.parents import LiveParents
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import open_pair
from autolambda.schedule import Schedule


def test_a_parameter_is_written_from_the_files_in_pieces_and_padding_is_left(monkeypatch):
    """A whole embedding of several models would fill a small GPU."""
    pair = open_pair(str(FOLDER / "instruct"), str(FOLDER / "thinking"), base=str(FOLDER / "base"))
    merge = open_merge(pair, Schedule.uniform(0.5).beyond(scale=1.2))
    name, info = next((name, info) for name, info in pair.tensors.items() if len(info.shape) == 2)
    num_rows, num_columns = info.shape
    monkeypatch.setattr(pieces, "PIECE", 3 * num_columns)
    sizes = []
    combine = merge.arithmetic

    def watched(*args):
        inner = combine(*args)
        return lambda *rows, draws: sizes.append(len(rows[0])) or inner(*rows, draws=draws)

    monkeypatch.setattr(type(merge), "arithmetic", lambda self, *args: watched(*args))
    whole = slice(0, num_columns)
    parts = (
        Part(name, (slice(0, num_rows), whole), (slice(0, num_rows), whole)),
        Part(name, (slice(num_rows, num_rows), whole), (slice(0, 0), whole)),
    )
    layer = SimpleNamespace(weight=torch.zeros(num_rows + 1, num_columns))
    LiveParents._write(cast("LiveParents", None), LiveParameter(layer, "weight", parts), merge)
    assert max(sizes) == 3 and sum(sizes) == num_rows
    assert torch.equal(layer.weight[:-1].to(info.dtype), merge.tensor(name)) and not layer.weight[-1].any()


def test_the_first_merge_that_reads_a_further_model_is_compared_whole(monkeypatch):
    engine = VllmEngine.__new__(VllmEngine)
    engine._pair = open_pair(str(FOLDER / "instruct"), str(FOLDER / "thinking"), base=str(FOLDER / "base"))
    engine._whole_ends, engine._whole_further = set(), set()
    asked = []
    monkeypatch.setattr(engine, "_ask", lambda name, plain, base, whole: asked.append(whole) or [], raising=False)
    monkeypatch.setattr(engine, "_reset_prefix_cache", lambda: None, raising=False)
    for scale in (1.0, 1.2, 1.3):
        engine.set_merge(Method.linear(Schedule.uniform(0.5).beyond(scale=scale)))
    assert asked == [False, True, False]
