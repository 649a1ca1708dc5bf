"""Samples of similar length, run together: padded at their right, where causal attention never looks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsim.gradients.capture.encoding import MASKED, Encoded


@dataclass(frozen=True)
class Batching:
    """Which samples may share a batch.

    Attributes:
        stretch: how many times as long as the shortest sample of a batch the longest may be; 1: all of one length.
        boundaries: ascending lengths; samples up to one of them never share a batch with longer ones.
    """

    stretch: float = 1.15
    boundaries: tuple[int, ...] = ()

    def sections(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many boundaries each of these lengths exceeds."""
        return np.searchsorted(np.array(self.boundaries, dtype=np.int64), tokens, side="left")


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
        weights: (B, kept) one over the sample's labels at each of them, zero elsewhere.
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
        weights = np.zeros((len(samples), length))
        for row, sample in enumerate(samples):
            tokens[row, : len(sample.tokens)] = sample.tokens
            targets[row, sample.positions] = sample.targets
            weights[row, sample.positions] = 1 / len(sample.positions)
        return cls(
            samples=samples,
            tokens=torch.from_numpy(tokens).to(device),
            kept=length - first,
            targets=torch.from_numpy(targets[:, first:]).to(device),
            weights=torch.from_numpy(weights[:, first:]).to(device),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.tokens.shape[0], self.tokens.shape[1]

    def scored(self, logits: Tensor) -> Tensor:
        """(B, at least kept, V) -> (B, kept, V)."""
        return logits if logits.shape[1] == self.kept else logits[:, -self.kept :]

    def losses_and_gradient(self, scored: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return each sample's mean cross-entropy over its n unmasked labels, and the gradient of their sum.

        With p = softmax(z), ∂L/∂z_j = p_j / n, and -Σ_{j≠y} p_j / n at the label y. That equals (p_y - 1) / n, but the
        difference cancels where the model is sure of the label: float32 would keep only rounding. For the same reason
        such a label's loss is -log(1 - Σ_{j≠y} p_j). Written by hand, because autograd allocates three tensors of the
        logits' size where one suffices.

        Args:
            scored: (B, kept, V) logits z.
            precision: the model's number format; the arithmetic is in at least float32.

        Returns:
            (B,) losses in that arithmetic, and the (B, kept, V) gradient in the format of the logits.
        """
        wide = torch.promote_types(precision, torch.float32)
        logarithms = torch.log_softmax(scored.detach(), dim=-1, dtype=wide)
        labels = self.targets.clamp(min=0)[..., None]
        weights = self.weights.to(wide)
        at_labels = logarithms.gather(-1, labels).squeeze(-1)
        others = logarithms.exp_().scatter_(-1, labels, 0.0)
        missing = others.sum(dim=-1)
        negative_logarithms = torch.where(missing < 0.5, -torch.log1p(-missing), -at_labels)
        losses = torch.where(weights > 0, negative_logarithms * weights, 0.0).sum(dim=1)
        gradient = others.mul_(weights[..., None]).scatter_(-1, labels, -(missing * weights)[..., None])
        return losses, gradient.to(scored.dtype)

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
        return slice(0, len(sample.tokens) if positions == length else positions)

    def first_label(self, member: int, positions: int) -> int:
        """The first position of a module's output, of so many, that predicts a label of a sample; 0: unknown."""
        return int(self.samples[member].positions[0]) if positions == self.shape[1] else 0
