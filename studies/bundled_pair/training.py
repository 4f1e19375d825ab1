"""Training of small pairs: batches of rows of one length, AdamW, and a checkpoint folder as on the hub.

A row is the token ids of a prompt with its response, and the number of tokens of the prompt. Only the response is
learned.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

Row = tuple[list[int], int]
MakeRows = Callable[[random.Random, int], list[Row]]  # how many


def batches(rows: list[Row], batch_size: int, pad: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of similar lengths: (ids int64 [B, T], labels int64 [B, T] with -100 outside the response)."""
    ordered = sorted(rows, key=lambda row: len(row[0]))
    groups = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    random.Random(len(rows)).shuffle(groups)
    for group in groups:
        width = max(len(ids) for ids, _ in group)
        ids = torch.full((len(group), width), pad)
        labels = torch.full((len(group), width), -100)
        for i, (tokens, num_prompt) in enumerate(group):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            labels[i, num_prompt : len(tokens)] = torch.tensor(tokens[num_prompt:])
        yield ids, labels


def fit(
    model: PreTrainedModel,
    make_rows: MakeRows,
    *,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
    pad: int,
    tokens_a_row: float,
    constant: bool = False,
    compiled: bool = False,
) -> None:
    """AdamW; a warm-up, then a cosine to a tenth of ``lr`` (or ``lr`` throughout when ``constant``).

    ``tokens_a_row`` is about the mean response, by which the loss is divided.
    """
    rng = random.Random(seed)
    optimizer, schedule = _optimizer(model, steps=steps, lr=lr, constant=constant)
    model.train()
    forward = torch.compile(model, dynamic=True) if compiled else model
    step, running, started = 0, 0.0, time.monotonic()
    while step < steps:
        rows = make_rows(rng, batch_size * 16)
        for ids, labels in batches(rows, batch_size, pad):
            if step == steps:
                break
            ids, labels = ids.to(model.device), labels.to(model.device)
            logits = forward(input_ids=ids).logits
            total = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
            )
            # by a constant, not by the batch's own number of tokens: batches hold rows of one length, and a mean
            # would weigh a token of a short answer twenty times one of a long thought
            loss = total / (batch_size * tokens_a_row)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            step += 1
            if step == 1 or step % 10 == 0:
                running = loss.item() if step == 1 else 0.8 * running + 0.2 * loss.item()
            if step % 100 == 0 or step == steps:
                print(f"  step {step:5d}  loss {running:.4f}  {time.monotonic() - started:.0f} s", flush=True)


def _optimizer(
    model: PreTrainedModel, *, steps: int, lr: float, constant: bool
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    decay = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": 0.05},
            {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=lr,
        betas=(0.9, 0.98),
    )
    warmup = max(1, min(200, steps // 10))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup, eta_min=lr / 10)
    ramp = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, total_iters=warmup)
    if constant:
        return optimizer, ramp
    return optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, [ramp, cosine], [warmup])


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, *, max_tokens: int, **sampling: float
) -> None:
    """A checkpoint folder as on the hub: bfloat16 safetensors, tokenizer, template, generation config."""
    stored = type(model)(model.config)
    stored.load_state_dict(model.state_dict())
    stored.to("cpu", torch.bfloat16)
    stored.generation_config = GenerationConfig(
        do_sample=True,
        **({"temperature": 1.0, "top_p": 1.0, "top_k": 0} | sampling),
        max_new_tokens=max_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    stored.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
