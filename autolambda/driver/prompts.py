"""Renders the prompts of slices, within limits of time and memory, and leaves out those that are too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autolambda.driver.models import Models
from autolambda.engines.chat import ChatFormat
from autolambda.engines.limits import LimitError, limited
from autolambda.errors import ConfigError, TaskError
from autolambda.responses import Sample
from autolambda.tasks.base import Slice

TEMPLATE_SECONDS = 5.0  # for one prompt, which usually takes a millisecond
TEMPLATE_BYTES = 1 << 30
STEADY_PROMPTS = 32  # rendered twice
CHARACTERS_PER_TOKEN = 128  # no tokenizer has longer tokens, except of spaces


def _rendered(chat: ChatFormat, sample: Sample, context: int) -> str:
    """Renders a prompt. Raises ``ConfigError`` if an untrusted template is endless or huge."""
    try:
        with limited(seconds=TEMPLATE_SECONDS, num_bytes=TEMPLATE_BYTES):
            text = chat.render(sample)
        problem = f"{len(text):,} characters come out" if len(text) > CHARACTERS_PER_TOKEN * context else None
    except LimitError:
        problem = f"it runs for more than {TEMPLATE_SECONDS:g} s"
    if problem:
        raise ConfigError(f"models.chat_template cannot render sample {sample.id[:60]!r}: {problem}; correct it")
    return text


def _check_steady(chat: ChatFormat, samples: Sequence[Sample], texts: Sequence[str]) -> None:
    """Raises ``ConfigError`` if a template draws lots (``random``, ``lipsum``): a resumed study needs equal prompts."""
    for sample, text in zip(samples[:STEADY_PROMPTS], texts, strict=False):
        if chat.render(sample) != text:
            raise ConfigError(
                f"models.chat_template renders sample {sample.id[:60]!r} differently each time; take out what is random"
            )


@dataclass(frozen=True)
class Fitting:
    """Slices without prompts that are too long, ``[task, id]`` of these, notes, and the tokens of the longest left."""

    slices: tuple[Slice, ...]
    too_long: tuple[list[str], ...]
    notes: tuple[str, ...]
    longest: int


def fitting(models: Models, chats: Sequence[ChatFormat], slices: Sequence[Slice], shares: Sequence[float]) -> Fitting:
    """Leaves out prompts that exceed the context together with their response, if they are few.

    ``shares`` are how many of a task's prompts (of 1) may be left out. Raises ``TaskError`` if more are too long.
    """
    kept, too_long, notes, longest = list[Slice](), list[list[str]](), list[str](), 0
    room = models.context - models.sampling.max_tokens
    for part, share in zip(slices, shares, strict=True):
        lengths = [max(each) for each in zip(*(_lengths(models, chat, part) for chat in chats), strict=True)]
        lost = [(sample.id, num) for sample, num in zip(part.samples, lengths, strict=True) if num > room]
        if lost:
            problem = (
                f"task '{part.task}', sample '{lost[0][0]}': its prompt of {lost[0][1]} tokens and sampling.max_tokens "
                f"{models.sampling.max_tokens} do not fit the model's context of {models.context}"
            )
            if len(lost) > share * len(lengths):
                raise TaskError(f"{problem}; lower sampling.max_tokens ({len(lost)} of {len(lengths)} prompts are so)")
            notes.append(f"{problem}; {len(lost)} of {len(lengths)} prompts are too long and left out")
        ids = {id for id, _ in lost}
        kept.append(replace(part, samples=tuple(sample for sample in part.samples if sample.id not in ids)))
        too_long += [[part.task, id] for id, _ in lost]
        longest = max([longest, *(num for num in lengths if num <= room)])
    return Fitting(tuple(kept), tuple(too_long), tuple(notes), longest)


def _lengths(models: Models, chat: ChatFormat, part: Slice) -> list[int]:
    """Returns the tokens of each prompt of a slice. Raises ``TaskError`` for one without any."""
    texts = [_rendered(chat, sample, models.context) for sample in part.samples]
    _check_steady(chat, part.samples, texts)
    lengths = [len(ids) for ids in chat.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids]
    if 0 in lengths:
        empty = part.samples[lengths.index(0)]
        raise TaskError(f"task '{part.task}', sample '{empty.id}': the chat template renders it to nothing")
    return lengths
