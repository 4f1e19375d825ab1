"""Estimates the cost of a search, the precision of its slices and what it can prove, before a GPU is touched.

Half-widths are of Wilson's 95 % interval. The unit is the prompt: repeats of a prompt count as one response if they
always agree, and as separate responses if they are independent. The truth lies between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autolambda.config import Config
from autolambda.driver.job import Job
from autolambda.driver.models import Models
from autolambda.engines.device import vllm_device
from autolambda.engines.transformers.loading import resolve_device
from autolambda.engines.transformers.packed import packed_bytes
from autolambda.merging.pair import Pair
from autolambda.optimizer.aims import TYPICAL_FINALISTS, reach_at
from autolambda.optimizer.token_allowance import CONFIRM_SHARE, LEAST_FULL, RESERVED, TokenAllowance
from autolambda.statistics.estimates import Z_95_ONE_SIDED, wilson
from autolambda.tasks.base import Slice

TOKENS_PER_SECOND = 5_000  # of one GPU, assumed
BYTES_PER_TOKEN = 2.0  # of a stored response: 4.3 characters a token, of which zlib keeps 32 % to 45 % in prose
FEW_PROMPTS = 30
FEW_ROWS = 30  # of search and confirmation together, with which hardly anything can be proven
VARIATION = 0.7  # of lengths: standard deviation over mean, usual between responses to all prompts
OWN_SHARE = 0.5  # of that variance is the prompts' own, so repeats do not lower it
DISAGREEMENT = 0.2  # share of prompts on which one of two schedules is right and the other wrong
_Z_80 = 0.841621  # one-sided


def slice_lines(phase: str, part: Slice) -> list[str]:
    """Returns lines about the size of a slice, and the precision of an accuracy measured on it."""
    prompts, repeats = len(part.samples), part.repeats
    drop = part.max_drop
    guard = "" if drop is None else f", guard: at most {100 * drop:g} points below the better parent"
    up_to = "up to " if phase == "confirm" and repeats > 1 else ""
    lines = [
        f"{phase}: {part.task}, {prompts} prompts x {up_to}{repeats}{guard}",
        f"  accuracy to {_width(0.5, part)} at 50 % and {_width(0.8, part)} at 80 % (95 % intervals)",
    ]
    if phase == "confirm" and part.max_drop is not None:
        lines.append(
            f"  a schedule as good as both parents is shown to lose no more than {100 * part.max_drop:g} points from "
            f"about {rounded(_enough(part.max_drop))} prompts on"
            if part.max_drop
            else "  no number of prompts can show that nothing at all is lost; give max_drop some room"
        )
    if prompts < FEW_PROMPTS:
        lines.append(
            f"  {prompts} prompts can hardly tell apart schedules that differ by less than {_width(0.5, part, sign='')}"
        )
    return lines


def proof_sentence(search: Sequence[Slice], confirm: Sequence[Slice]) -> str:
    """Returns what the confirmation can prove with its prompts, with the responses that the default tokens pay for."""
    counted = [part for part in confirm if part.max_drop is None]
    num_search = sum(part.num_responses for part in search)
    paid = round(2 * CONFIRM_SHARE * max(num_search, LEAST_FULL) / TYPICAL_FINALISTS)  # at half the parents' tokens
    responses = min(sum(part.num_responses for part in counted), paid)
    num_prompts = sum(len(part.samples) for part in counted)
    prompts = min(num_prompts, responses)
    effective = 1 / (OWN_SHARE / prompts + (1 - OWN_SHARE) / responses)
    bound = reach_at(prompts) * VARIATION / math.sqrt(effective)
    said = (
        f"what {num_prompts} prompts in the confirmation can prove: tokens are known to about {100 * bound:.0f} %, so "
        f"a merge is proven within a budget of B if its mean is below about {1 / (1 + bound):.2f} B; accuracies are "
        f"known to about ±{100 * wilson(0.7, effective)[1]:.0f} points"
    )
    num_rows = sum(len(part.samples) for part in (*search, *confirm) if part.max_drop is None)
    if num_rows < FEW_ROWS:
        return f"with {num_rows} rows hardly anything can be proven; give at least {FEW_ROWS}, better 200. {said}"
    return said


def cost_lines(config: Config, models: Models, search: Sequence[Slice], confirm: Sequence[Slice]) -> list[str]:
    """Returns lines about the most tokens that a search may generate, its time on a GPU, and its disk space."""
    cap, most = models.sampling.max_tokens, config.search.max_tokens_generated
    allowance = TokenAllowance.of(
        2.0 * cap,
        num_search=sum(part.num_responses for part in search),
        num_confirm=sum(part.num_responses for part in confirm),
        num_confirm_prompts=sum(len(part.samples) for part in confirm),
        cap=most,
    )
    rows: float = _by_rows(config, search, confirm) * cap
    if config.wants_cap and config.budget is not None:
        rows += RESERVED * allowance.total
    total, why = allowance.total, "search.max_tokens_generated"
    if most is None or rows < most:
        total, why = min(total, rows), f"if every response ran to the cap of {cap:,} tokens"
    hours = rounded(total / TOKENS_PER_SECOND / 3600)
    on_gpu = f"; at most {hours} GPU hours at {TOKENS_PER_SECOND:,} tokens/s, an assumption"
    return [
        f"tokens: at most {rounded(total)}, {why}{on_gpu if vllm_device().type == 'cuda' else ''}; "
        "the search says what to expect once both models are measured",
        f"disk: at most {in_bytes(BYTES_PER_TOKEN * total)} for the study, "
        f"{in_bytes(models.pair.num_bytes)} for an export",
    ]


@dataclass(frozen=True)
class WeightMemory:
    """The bytes of a search's weights: the live merge, each of the ``num_models`` it reads, and the packed copies.

    Packed copies are those of the transformers engine on a CPU.
    """

    merge: int
    model: int
    num_models: int
    packed: int = 0

    @property
    def total(self) -> int:
        return self.merge + self.num_models * self.model + self.packed


def weight_memory(pair: Pair, job: Job | None) -> WeightMemory:
    """Returns the memory of the weights of a pair. Without a job, the merge has the dtype of the files."""
    num_models = 2 + len(pair.further)
    if job is None:
        return WeightMemory(pair.num_bytes, pair.num_bytes, num_models)
    dtype: torch.dtype = getattr(torch, job.identity["engine.dtype"])
    is_packed = job.engine == "transformers" and resolve_device(job.config.engine.device).type == "cpu"
    packed = packed_bytes(pair, dtype=dtype) if is_packed else 0
    return WeightMemory(pair.num_parameters * dtype.itemsize, pair.num_bytes, num_models, packed)


def _by_rows(config: Config, search: Sequence[Slice], confirm: Sequence[Slice]) -> int:
    """Returns the most responses that a search and its confirmation take: each merge answers each prompt once."""
    searched, confirmed = (sum(part.num_responses for part in phase) for phase in (search, confirm))
    baselines = config.search.baselines
    merges, sweeps = sum(name != "cut" for name in baselines), 11 * ("sweep" in baselines)  # its lambdas
    return (config.search.trials + sweeps) * searched + (config.confirm.finalists + 2 + merges) * confirmed


def _enough(max_drop: float) -> float:
    """Returns how many prompts show a paired difference of 0 to be above ``-max_drop``, with a power of 80 %."""
    return DISAGREEMENT * ((Z_95_ONE_SIDED + _Z_80) / max_drop) ** 2


def _width(accuracy: float, part: Slice, *, sign: str = "±") -> str:
    """Returns ``±7.9 points``; with repeats a range, from independent repeats to repeats that always agree."""
    least, most = (100 * wilson(accuracy, num)[1] for num in (part.num_responses, len(part.samples)))
    return f"{sign}{most:.1f} points" if part.repeats == 1 else f"{sign}{least:.1f} to {sign}{most:.1f} points"


def rounded(value: float) -> str:
    """Returns the value with two significant figures."""
    two = float(f"{value:.2g}")
    return f"{two:,.0f}" if two >= 10 else f"{two:g}"


def in_bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
