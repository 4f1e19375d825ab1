"""The tokens that a study may generate, and how search and confirmation share them.

The default is the cost of both parents at full size: every prompt of the search slice with its repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_FULL = 2048  # responses: a smaller slice gets the tokens of a slice of this size
RESERVED = 0.1  # of all tokens, for the cap on the run time
SEARCH_SHARE = 0.45  # of all tokens; what the search leaves goes to the confirmation
CONFIRM_SHARE = 1 - SEARCH_SHARE - RESERVED
LEAST_CONFIRM = 64  # responses of each confirmed schedule, even if the tokens are spent


@dataclass(frozen=True)
class TokenAllowance:
    """The ``total`` tokens of a study. One response of each end, lambda 0 and 1, costs ``ends`` tokens together.

    The whole confirm slice has ``num_confirm`` responses to ``num_confirm_prompts`` prompts.
    """

    total: float
    ends: float
    num_confirm: int
    num_confirm_prompts: int

    @classmethod
    def of(
        cls, ends: float, *, num_search: int, num_confirm: int, num_confirm_prompts: int, cap: int | None
    ) -> TokenAllowance:
        """Returns the allowance of a study with ``num_search`` responses in its search slice.

        ``cap`` is ``search.max_tokens_generated``.
        """
        total = ends * max(num_search, LEAST_FULL) if cap is None else float(cap)
        return cls(total, ends, num_confirm, num_confirm_prompts)

    @property
    def search(self) -> float:
        """The tokens of the search."""
        return SEARCH_SHARE * self.total

    def confirm(self, spent: float) -> float:
        """The tokens of the confirmation, if the search has spent ``spent``."""
        return max((1 - RESERVED) * self.total - spent, CONFIRM_SHARE * self.total)

    def num_final(self, costs: float, *, spent: float, once: float = 0.0) -> int:
        """Returns the number of responses per finalist.

        All finalists, with the parents that may be the answer, take ``costs`` tokens per response. A parent that cannot
        be the answer responds once to each of their prompts; such parents take ``once`` tokens per prompt. The number
        depends only on the search, not on the results of the confirmation.
        """
        tokens = self.confirm(spent)
        num_final = tokens / (costs + once)
        if num_final > self.num_confirm_prompts:  # prompts are repeated, but not for such a parent
            num_final = (tokens - once * self.num_confirm_prompts) / costs
        return self._within(num_final)

    def num_prompts(self, num_final: int) -> int:
        """Returns how many prompts the first ``num_final`` responses of the confirm slice answer."""
        return min(num_final, self.num_confirm_prompts)

    def _within(self, wanted: float) -> int:
        return min(self.num_confirm, max(LEAST_CONFIRM, int(wanted)))
