"""The tokens that a study may generate, and how search and confirmation share them.

The default is the cost of both parents at full size: every prompt of the search slice with its repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_FULL = 2048  # responses: a smaller slice gets the tokens of a slice of this size
CONFIRM_SHARE = 0.5
PARENT_SHARE = 0.06  # of all tokens, to confirm both parents under their own templates
LEAST_CONFIRM = 64  # responses of each confirmed schedule, even if the tokens are spent


@dataclass(frozen=True)
class TokenAllowance:
    """The ``total`` tokens of a study. One response of each end, lambda 0 and 1, costs ``ends`` tokens together.

    The whole confirm slice has ``num_confirm`` responses to ``num_confirm_prompts`` prompts. With guards
    (``with_guards``) the parents are confirmed on as many responses as the finalists, for the comparison.
    """

    total: float
    ends: float
    num_confirm: int
    num_confirm_prompts: int
    with_guards: bool = False

    @classmethod
    def of(
        cls,
        ends: float,
        *,
        num_search: int,
        num_confirm: int,
        num_confirm_prompts: int,
        cap: int | None,
        with_guards: bool = False,
    ) -> TokenAllowance:
        """Returns the allowance of a study with ``num_search`` responses in its search slice.

        ``cap`` is ``search.max_tokens_generated``.
        """
        total = ends * max(num_search, LEAST_FULL) if cap is None else float(cap)
        return cls(total, ends, num_confirm, num_confirm_prompts, with_guards)

    @property
    def search(self) -> float:
        """The tokens of the search."""
        return (1 - CONFIRM_SHARE) * self.total

    @property
    def num_parent(self) -> int:
        """The number of responses that confirm each parent, without guards."""
        return self._within(PARENT_SHARE * self.total / self.ends)

    def num_final(self, predicted: Sequence[float]) -> int:
        """Returns the number of responses per finalist. ``predicted`` holds the tokens per response of each.

        It depends only on the search, not on the results of the confirmation.
        """
        if self.with_guards:
            return self._within(CONFIRM_SHARE * self.total / (self.ends + sum(predicted)))
        return self._within((CONFIRM_SHARE * self.total - self.num_parent * self.ends) / sum(predicted))

    def _within(self, wanted: float) -> int:
        return min(self.num_confirm, max(LEAST_CONFIRM, int(wanted)))
