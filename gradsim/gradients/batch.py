"""Samples of similar length, run together: padded at their right, where causal attention never looks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsim.gradients.encoding import MASKED, Encoded


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of at most T tokens on the model's device.

    No attention mask is needed: under causal attention no token sees the padding behind it, and no loss looks there,
    so that the gradient of its outputs is zero.

    Attributes:
        samples: the B samples.
        tokens: (B, T) input ids; any id stands for padding.
        kept: of each row's outputs the last so many predict labels, (B, kept) of them are scored.
        targets: (B, kept) the label that each of these outputs predicts, masked where there is none.
        weights: (B, kept) one over the sample's labels.
    """

    samples: Sequence[Encoded]
    tokens: Tensor
    kept: int
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, samples: Sequence[Encoded], device: torch.device) -> "Batch":
        """Pad samples; each has at least one label."""
        length = max(len(sample.tokens) for sample in samples)
        first = min(int(sample.positions[0]) for sample in samples)
        tokens = np.zeros((len(samples), length), dtype=np.int64)
        targets = np.full((len(samples), length), MASKED)
        weights = np.zeros((len(samples), 1))
        for row, sample in enumerate(samples):
            tokens[row, : len(sample.tokens)] = sample.tokens
            targets[row, sample.positions] = sample.targets
            weights[row] = 1 / len(sample.positions)
        return cls(
            samples=samples,
            tokens=torch.from_numpy(tokens).to(device),
            kept=length - first,
            targets=torch.from_numpy(targets[:, first:]).to(device),
            weights=torch.from_numpy(weights).to(device),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.tokens.shape[0], self.tokens.shape[1]

    def losses(self, logits: Tensor) -> Tensor:
        """(B, at least kept, V) -> (B,): each sample's mean cross-entropy over its unmasked labels."""
        kept = logits[:, -self.kept :]
        kept = kept if kept.dtype == torch.float64 else kept.float()
        each = torch.nn.functional.cross_entropy(
            kept.flatten(0, 1), self.targets.flatten(), ignore_index=MASKED, reduction="none"
        )
        return (each.view(self.targets.shape) * self.weights.to(each.dtype)).sum(dim=1)

    def places(self, member: int, positions: int, *, is_head: bool) -> slice:
        """Which positions of a module's output are a sample's and can have a gradient.

        Args:
            member: the sample's number in the batch.
            positions: of the output: its second dimension.
            is_head: whether the output is the logits, of which only those that predict a label have a gradient.
        """
        sample, length = self.samples[member], self.shape[1]
        if is_head and positions in (self.kept, length):
            before = length - positions
            return slice(int(sample.positions[0]) - before, int(sample.positions[-1]) + 1 - before)
        return slice(0, len(sample.tokens)) if positions == length else slice(None)
