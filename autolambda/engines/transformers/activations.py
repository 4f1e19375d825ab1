"""The activations of a checkpoint's layers on given texts, and how much those of two checkpoints have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autolambda.engines.transformers.loading import load_checkpoint
from autolambda.merging.checkpoint import Checkpoint

NUM_POSITIONS = 16  # of each text, spread evenly over it
_ALIKE = 1 - 1e-6  # squared correlations are at most this, so that equal activations have a finite information


@torch.inference_mode()
def layer_activations(checkpoint: Checkpoint, texts: Sequence[Sequence[int]]) -> Tensor:
    """Returns what each layer passes on, float32 [layers, positions, hidden]. Runs on the CPU.

    ``texts`` are token ids. Of each text at most ``NUM_POSITIONS`` positions are kept. Raises ``CheckpointError`` if
    transformers cannot make the model.
    """
    model = load_checkpoint(checkpoint)
    kept = []
    for ids in texts:
        states = model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
        at = torch.linspace(0, len(ids) - 1, min(NUM_POSITIONS, len(ids))).round().long()
        kept.append(torch.stack([state[0, at].float() for state in states.hidden_states[1:]]))
    return torch.cat(kept, dim=1)


def mutual_information(one: Tensor, other: Tensor) -> list[float]:
    """Returns the mutual information in nats of two checkpoints' activations, for each layer.

    Both are [layers, positions, hidden]. Each hidden unit and its counterpart are taken as jointly normal, with the
    correlation r over the positions: ``-log(1 - r^2) / 2`` (Cover & Thomas 2006, example 8.5.1), averaged over units.
    """
    centred = [each - each.mean(dim=1, keepdim=True) for each in (one, other)]
    covariance = (centred[0] * centred[1]).sum(dim=1)
    variances = (centred[0].square().sum(dim=1) * centred[1].square().sum(dim=1)).clamp_min(1e-30)
    squared = (covariance.square() / variances).clamp(max=_ALIKE)
    found: list[float] = (-torch.log1p(-squared) / 2).mean(dim=1).tolist()
    return found
