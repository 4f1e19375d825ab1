"""The seconds of a GPU by a stated model: Qwen3-4B in bfloat16 on one H200. Nothing here was measured on one.

A decoding step of r rows takes ``STEP + ROW * r`` seconds and gives each row a token. At most ``MAX_ROWS`` rows run,
and their tokens together fit into the key/value cache. Waiting rows join in order as soon as there is room. If the
cache is full, the youngest row waits and goes on later. Prefill and the switch of merges take no time.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from bank import Floats

STEP, ROW = 6e-3, 3e-5  # seconds
MAX_ROWS = 512
CACHE_TOKENS = int(110e9 / 147e3)
ROOM = 0.98  # of the cache: no row joins above it, so that rows are seldom sent back


def call_seconds(lengths: Sequence[float] | Floats, *, most_tokens: float = math.inf) -> float:
    """Returns the seconds of one call of the engine whose responses have these lengths, in their order.

    The call is aborted at ``most_tokens`` tokens.
    """
    waiting = deque((max(1, round(length)), 0) for length in lengths)  # what is left, and what is done
    ends: list[tuple[int, int]] = []  # (last step, number) of the running rows
    running: dict[int, int] = {}  # number of a running row, by age -> its first step, were it never interrupted
    step, number, held, seconds, num_tokens = 0, 0, 0, 0.0, 0
    while (waiting or running) and num_tokens < most_tokens:
        while waiting and len(running) < MAX_ROWS and (not running or held + waiting[0][1] < ROOM * CACHE_TOKENS):
            left, done = waiting.popleft()
            running[number] = step - done
            heapq.heappush(ends, (step + left, number))
            held, number = held + done, number + 1
        while ends[0][1] not in running:
            heapq.heappop(ends)
        rows = len(running)
        steps = min(ends[0][0] - step, max((CACHE_TOKENS - held) // rows, 1))
        steps = min(steps, math.ceil((most_tokens - num_tokens) / rows)) if most_tokens < math.inf else steps
        seconds += steps * (STEP + ROW * rows)
        step, held, num_tokens = step + steps, held + rows * steps, num_tokens + rows * steps
        while ends and (ends[0][0] <= step or ends[0][1] not in running):
            last, ended = heapq.heappop(ends)
            if ended in running:
                held -= last - running.pop(ended)
        if held + len(running) > CACHE_TOKENS and len(running) > 1:
            youngest, first = running.popitem()
            last = next(last for last, row in ends if row == youngest)
            held -= step - first
            waiting.appendleft((last - step, step - first))
    return seconds


def saturated_speed(lengths: Sequence[float] | Floats, *, seed: int = 0) -> float:
    """Returns the tokens per second of an endless queue of responses with these lengths."""
    rng = np.random.default_rng(seed)
    long = rng.choice(np.asarray(lengths), 6144)
    short = long[:3072]
    return float((long.sum() - short.sum()) / (call_seconds(long) - call_seconds(short)))
