"""What is said of caps on thinking: Thinking with one beside the pick, and a merge whose tail one cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator

from autolambda.errors import printable
from autolambda.report.answer.phrases import Sentence, answers, titled
from autolambda.report.cap.results import CapResult
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.statistics.estimates import number
from autolambda.statistics.words import lead, percent, tokens

FAR = 1.2  # times the tokens of the merge: from there on, accuracies are not compared


def cap_sentences(report: Report) -> Iterator[Sentence]:
    """Yields how the pick compares with Thinking under a cap, and how a cap on a merge's tail does."""
    reference = report.best or report.nearest
    if reference is None:
        return
    if report.cap:
        cap = report.cap
        right = f"{percent(cap.result.score.accuracy)} right at {tokens(cap.result.score.mean_tokens)}"
        compared = _compared(cap, reference, is_pick=report.best is not None)
        length = "1 token" if cap.capped.tokens == 1 else f"{cap.capped.tokens:,} tokens"
        yield Sentence((f"Thinking with its reasoning cut at {length}: {right}; {compared}.",))
        yield Sentence((f"{how_cut(cap)}.",))
    if report.capped_merge:
        merge = report.capped_merge
        yield Sentence((f"{titled(merge.result)}, cut at {merge.capped.tokens:,} tokens, {_told(merge, report)}.",))


def how_cut(cap: CapResult) -> str:
    """Returns how many responses a cap cut, by which closing, and the tokens that were forced."""
    closing = printable(json.dumps(cap.capped.closing, ensure_ascii=False))
    forced = f"{cap.forced_tokens:.1f} forced tokens a response, which count"
    return f"The cap cut {percent(cap.cut_ratio)} of the responses, each closed by {closing}: {forced}"


def _told(merge: CapResult, report: Report) -> str:
    """Returns the numbers of a merge with a cap on its tail, and whether to use it."""
    use = "use this cap" if merge.is_better else "not shown to be better than the pick"
    if report.best is None:
        use = "it is shown within the budget: use this cap" if merge.is_better else "not shown within the budget either"
    share = f"with {percent(merge.cut_ratio)} of its responses cut"
    return f"{answers(merge.result)} {share}, {lead(merge.difference.value, merge.difference)}; {use}"


def _compared(cap: CapResult, reference: ScheduleResult, *, is_pick: bool) -> str:
    """Returns how much more accurate the pick is than Thinking under a cap, or that no cap makes it as short."""
    what = reference.parent.capitalize() if reference.parent else "the merge" if is_pick else "the nearest merge"
    own = reference.score.mean_tokens
    if cap.result.score.mean_tokens > FAR * own:
        return f"no cap brings it to the {number(own)} tokens of {what}"
    return f"{what} is {lead(-cap.difference.value, cap.difference.turned)}"
