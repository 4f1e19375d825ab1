"""How many tokens a study may generate, and how they are shared between the search and the confirmation.

Unless the user says otherwise: what both parents cost at full size, every prompt of the search slice with its repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_FULL = 2048  # responses: a smaller slice is taken for one of so many
CONFIRM_SHARE = 0.5
PARENT_SHARE = 0.06  # of all tokens, to measure both parents as they are beside the finalists
LEAST_CONFIRM = 64  # responses of each schedule, whatever is left


@dataclass(frozen=True)
class TokenAllowance:
    """``total`` tokens of a study, of which the search may take ``search``; ``ends`` is what a response of both costs.

    The whole confirmation slice is ``num_confirm`` responses to ``num_confirm_prompts`` prompts. ``with_guards``: the
    parents are confirmed on as many responses as the finalists, which must not fall behind them.
    """

    total: float
    ends: float
    num_confirm: int
    num_confirm_prompts: int
    with_guards: bool = False

    @property
    def search(self) -> float:
        """The search's part, in tokens."""
        return (1 - CONFIRM_SHARE) * self.total

    @property
    def num_parent(self) -> int:
        """The responses with which each parent is confirmed, where no guard asks for as many as the finalists'."""
        return self._within(PARENT_SHARE * self.total / self.ends)

    def num_final(self, predicted: Sequence[float]) -> int:
        """The responses with which each of the finalists is confirmed, given the tokens predicted for one of each.

        It follows from the search alone: the confirmation is neither lengthened nor cut short by what it shows.
        """
        if self.with_guards:
            return self._within(CONFIRM_SHARE * self.total / (self.ends + sum(predicted)))
        return self._within((CONFIRM_SHARE * self.total - self.num_parent * self.ends) / sum(predicted))

    def _within(self, wanted: float) -> int:
        return min(self.num_confirm, max(LEAST_CONFIRM, int(wanted)))


def allowance(
    ends: float,
    *,
    num_search: int,
    num_confirm: int,
    num_confirm_prompts: int,
    cap: int | None,
    with_guards: bool = False,
) -> TokenAllowance:
    """The allowance of a study whose slices hold so many responses; ``cap`` is ``search.max_tokens_generated``."""
    total = ends * max(num_search, LEAST_FULL) if cap is None else float(cap)
    return TokenAllowance(total, ends, num_confirm, num_confirm_prompts, with_guards)
