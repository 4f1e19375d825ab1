"""The baselines beside the parents: what a user would try without a search, on the same prompts.

Three are merges (task arithmetic and TIES around a base model, SLERP), written to a folder that an engine opens as both
of its parents. The fourth is the Thinking model with a hard cap on its thinking: ``choose_cut`` finds the cap for a
budget, ``engines.cut`` generates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from autolambda.chat import ChatFormat
from autolambda.checkpoint import Checkpoint, open_checkpoint
from autolambda.config import BaselineName
from autolambda.engines.base import Engine
from autolambda.errors import ConfigError, PairError
from autolambda.estimates import Weights, task_weights
from autolambda.export import write_model
from autolambda.job import Job, open_engine
from autolambda.merge import slerp, task_arithmetic, ties
from autolambda.mismatch import compare_tensors, compare_tokenizers
from autolambda.models import Models, base_folder
from autolambda.pair import Pair, open_pair, read_tensor, untied_tensors
from autolambda.responses import Graded
from autolambda.shards import TensorStream, atomic_folder


def write_baseline(
    models: Models, folder: Path, *, method: BaselineName, base: Checkpoint | None = None, lam: float = 0.5
) -> None:
    """Writes the merge of the pair by ``method`` into the new ``folder``, as a model that is loaded like any other.

    ``base`` is for task arithmetic and TIES, ``lam`` for SLERP. The base's tensors and vocabulary must be the pair's;
    its config may be another, for the merge has the Thinking parent's. The merge ties lm_head where all its models do.
    Raises ``ConfigError`` where a base is missing, ``PairError`` for one that does not fit, ``CheckpointError`` for a
    broken one, ``OutputError`` as ``atomic_folder`` does, ``ValueError`` for ``cut``, which is no merge.
    """
    pair = models.pair
    if method == "cut":
        raise ValueError("the baseline 'cut' has no weights of its own; put a CutEngine around an engine")
    if method == "slerp":
        tied, weights = pair.tied, _slerp_tensors(pair, lam)
    elif base is None:
        raise ConfigError(f"models.base: {method} needs the base model of both parents; set it, or leave {method} out")
    else:
        _check_base(base, pair)
        tied, weights = pair.tied and base.tied, _around_base(base, pair, method)
    with atomic_folder(folder) as unfinished:
        write_model(unfinished, models, weights, config=pair.config | {"tie_word_embeddings": tied})


def baseline_job(job: Job, folder: Path) -> Job:
    """The job with the model of ``folder`` as both parents, for ``open_engine``: every schedule is that model.

    Prompts, chat formats, sampling and identity stay the job's. It runs in this process: the folder is on this machine
    alone. Raises as ``open_pair`` does.
    """
    engine = job.config.engine.model_copy(update={"workers": 1})
    config = job.config.model_copy(update={"engine": engine})
    return replace(job, config=config, models=replace(job.models, pair=open_pair(str(folder), str(folder))))


def check_baselines(job: Job) -> None:
    """Checks before anything is generated that the baselines asked for can be made. Raises as ``write_baseline``."""
    wanted = [name for name in job.config.search.baselines if name in ("task_arithmetic", "ties")]
    source = base_folder(job.config.models)
    if wanted and source is None:
        raise ConfigError(f"models.base: {wanted[0]} needs the base model of both parents; set it, or leave it out")
    if wanted and source is not None:
        _check_base(open_checkpoint(source), job.models.pair)


@contextmanager
def merged_engine(
    job: Job, method: BaselineName, *, lam: float, before: Callable[[], None]
) -> Iterator[Callable[[], Engine]]:
    """Opens an engine that holds the baseline, by its first use; ``before`` makes room. It is closed at the end.

    Raises as ``write_baseline`` and ``open_engine`` do.
    """
    opened: list[Engine] = []
    with TemporaryDirectory() as folder:

        def engine() -> Engine:
            if not opened:
                before()
                source = base_folder(job.config.models)
                base = open_checkpoint(source) if source else None
                write_baseline(job.models, Path(folder) / "merge", method=method, base=base, lam=lam)
                opened.append(open_engine(baseline_job(job, Path(folder) / "merge")))
            return opened[0]

        try:
            yield engine
        finally:
            for each in opened:
                each.close()


def _slerp_tensors(pair: Pair, lam: float) -> TensorStream:
    for name in pair.names:
        parents = pair.read(name)
        yield name, slerp(parents.instruct, parents.thinking, lam)


def _around_base(base: Checkpoint, pair: Pair, method: BaselineName) -> TensorStream:
    merge = {"task_arithmetic": task_arithmetic, "ties": ties}[method]
    tied = pair.tied and base.tied
    for name in pair.names if tied else sorted(untied_tensors(pair.thinking)):
        yield name, merge(*(read_tensor(model, name) for model in (base, pair.instruct, pair.thinking)))


def _check_base(base: Checkpoint, pair: Pair) -> None:
    """Raises ``PairError`` with every mismatch, ``CheckpointError`` for NaN or infinite values."""
    tied = pair.tied and base.tied
    tensors = (base.tensors, pair.tensors) if tied else (untied_tensors(base), untied_tensors(pair.thinking))
    findings = [
        *compare_tensors(tensors[0], thinking=tensors[1], num_layers=pair.num_layers, first_name="base"),
        *compare_tokenizers(base, thinking=pair.thinking, first_name="base"),
    ]
    if errors := [finding.text for finding in findings if finding.fatal]:
        lines = "\n".join(f"  - {text}" for text in errors)
        raise PairError(f"models.base: '{base.source}' is not the parents' base; choose one that agrees in:\n{lines}")
    base.digest()  # reads every value


def choose_cut(
    graded: Sequence[Graded], chat: ChatFormat, *, budget: float, weights: Weights | None = None
) -> int | None:
    """The largest cap for ``CutEngine`` with which these responses of the Thinking model would keep the budget.

    A response of ``t`` thinking tokens (its closing tag with them) and ``a`` answer tokens takes ``min(cap, t) + a``:
    cut or not, the answer is taken to be as long. One without the tag is all thinking, its answer as long as the mean
    of the others', and it never takes more than it did. The budget is for the mean over responses, over tasks by
    ``weights`` as in ``metrics``. Where the budget does not bind it is the longest response, which cuts nothing;
    ``None`` where a cap of 1 is too much already, or where no response closes its thinking. Raises ``InputError`` for
    weights that are not the tasks'.
    """
    totals = np.array([each.response.num_tokens for each in graded])
    closed = np.array([each.thought for each in graded], dtype=bool)
    if not closed.any():
        return None
    thoughts = [_thought_of(each.response.text, chat.think_end) for each in graded]
    encoded: list[list[int]] = chat.tokenizer(thoughts, add_special_tokens=False).input_ids
    answers = np.maximum(totals - [len(ids) for ids in encoded], 0).astype(float)
    answers[~closed] = answers[closed].mean()
    shares = task_weights({each.task for each in graded}, weights=weights)
    tasks = np.array([each.task for each in graded])

    def mean_tokens(cap: int) -> float:
        lengths = np.minimum(cap + answers, totals)
        return float(sum(share * lengths[tasks == task].mean() for task, share in shares.items() if share))

    return bisect_right(range(1, int(totals.max()) + 1), budget, key=mean_tokens) or None


def _thought_of(text: str, think_end: str) -> str:
    """The text up to the first closing tag, with it."""
    thought, tag, _ = text.partition(think_end)
    return thought + tag
