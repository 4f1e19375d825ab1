"""Whole responses of one model as drafts: which of them a cap on thinking cuts, where, and what is then left.

A response without the closing tag is all thinking. A stored text is tokenized again to find its first tokens, which
gives nearly always the tokens that were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autolambda.engines.chat import ChatFormat
from autolambda.responses import Graded, Key
from autolambda.statistics.estimates import Weights, task_weights


class Drafts:
    """The whole responses of one model to a slice, with their texts."""

    def __init__(self, graded: Sequence[Graded], chat: ChatFormat, *, weights: Weights | None = None) -> None:
        """``chat`` has the tokenizer and the tag. Raises ``InputError`` if the ``weights`` do not name the tasks."""
        self.graded, self.chat = graded, chat
        self._shares = task_weights({each.task for each in graded}, weights=weights)
        self._tasks = np.array([each.task for each in graded])
        self._totals = np.array([each.response.num_tokens for each in graded], dtype=float)
        self._ids = [np.array(ids, np.int32) for ids in _encoded(chat, [each.response.text for each in graded])]
        closed = np.array([each.thought for each in graded], dtype=bool)
        thoughts = ["".join(each.response.text.partition(chat.think_end)[:2]) for each in graded]
        lengths = np.array([len(ids) for ids in _encoded(chat, thoughts)], dtype=float)
        self._thinking = np.where(closed, lengths, self._totals)
        answers = np.maximum(self._totals - lengths, 0)
        self.has_answers = bool(closed.any())
        self.answer_tokens = float(answers[closed].mean()) if self.has_answers else float(self._totals.mean())
        self._answers = np.where(closed, answers, self.answer_tokens)

    @property
    def longest(self) -> int:
        """The most tokens of thinking, which a cap of as many does not cut."""
        return int(self._thinking.max())

    def first(self, num_responses: int, *, weights: Weights | None) -> Drafts:
        """Returns the first drafts."""
        return Drafts(self.graded[:num_responses], self.chat, weights=weights)

    def cut_by(self, cap: int) -> dict[Key, str]:
        """Returns the drafts that a cap of ``cap`` tokens cuts, each with the text of its first ``cap`` tokens.

        The tag counts as thinking. A character that the cap splits is left out.
        """
        decode = self.chat.tokenizer.decode
        return {
            self.graded[i].key: str(
                decode(self._ids[i][:cap].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            ).rstrip("\N{REPLACEMENT CHARACTER}")
            for i in np.flatnonzero(self._thinking > cap).tolist()
        }

    def tail_cap(self, share: float) -> int:
        """Returns the smallest cap that cuts at most this ``share`` of the responses."""
        kept = int(np.ceil((1 - share) * len(self.graded)))
        return max(int(np.sort(self._thinking)[kept - 1]), 1)

    def estimate(self, cap: int, *, num_forced: int) -> float:
        """Returns the mean tokens to expect under a cap, which rise with it.

        After a cut, an answer is taken to be as long as without it, or as the mean answer, and no response gets longer.
        """
        lengths = np.minimum(cap + num_forced + self._answers, self._totals)
        means = {task: lengths[self._tasks == task].mean() for task, share in self._shares.items() if share}
        return float(sum(self._shares[task] * mean for task, mean in means.items()))


def _encoded(chat: ChatFormat, texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of texts; a lone surrogate, which no tokenizer takes, counts as a question mark."""
    plain = [text.encode("utf-8", "replace").decode() for text in texts]
    ids: list[list[int]] = chat.tokenizer(plain, add_special_tokens=False).input_ids
    return ids
