"""Right-padded batches of samples of similar length; causal attention never reads the padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsim.gradients.capture.encoding import MASKED, Encoded


@dataclass(frozen=True)
class Batching:
    """Rules for samples that share a batch.

    Attributes:
        stretch: maximum ratio of the longest to the shortest sample of a batch; 1 for equal lengths only.
        boundaries: ascending lengths; samples on different sides of a boundary never share a batch.
    """

    stretch: float = 1.15
    boundaries: tuple[int, ...] = ()

    def sections(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many boundaries each of these lengths exceeds."""
        return np.searchsorted(np.array(self.boundaries, dtype=np.int64), tokens, side="left")


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of at most T tokens on the model's device.

    No attention mask is needed. Under causal attention, no token attends to the padding on its right, and the padding
    has no loss, so the gradient of its outputs is zero.

    Attributes:
        samples: the B samples.
        tokens: (B, T) input ids, padded with an arbitrary id.
        kept: number of trailing positions to score; earlier outputs predict no label of any sample.
        targets: (B, kept) label that each scored output predicts, or `MASKED`.
        weights: (B, kept) one over the sample's number of labels at each label, zero elsewhere.
    """

    samples: Sequence[Encoded]
    tokens: Tensor
    kept: int
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, samples: Sequence[Encoded], device: torch.device) -> "Batch":
        """Create a batch by padding samples, each with at least one label."""
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
        """Shape of the batch, (B, T)."""
        return self.tokens.shape[0], self.tokens.shape[1]

    def scored(self, logits: Tensor) -> Tensor:
        """Return the scored logits: (B, at least kept, V) -> (B, kept, V)."""
        return logits if logits.shape[1] == self.kept else logits[:, -self.kept :]

    def losses_and_gradient(self, scored: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return each sample's mean cross-entropy over its n unmasked labels, and the gradient of their sum.

        With p = softmax(z), ∂L/∂z_j = p_j / n for j ≠ y, and ∂L/∂z_y = -Σ_{j≠y} p_j / n at the label y. The latter
        equals (p_y - 1) / n, but that difference cancels in float32 when the model is confident of the label. For the
        same reason, the loss of such a label is computed as -log(1 - Σ_{j≠y} p_j). The p_j are divided by their sum in
        float64: in float32, torch.log_softmax sums 50,000 exponentials on a CPU with a bias of 1e-5, which would scale
        all gradients. Implemented by hand, because autograd allocates three tensors of the logits' size and this needs
        only one.

        Args:
            scored: (B, kept, V) logits z.
            precision: dtype of the model; the arithmetic is in at least float32.

        Returns:
            Losses, (B,), in the dtype of the arithmetic, and the gradient, (B, kept, V), in the dtype of the logits.
        """
        wide = torch.promote_types(precision, torch.float32)
        logarithms = torch.log_softmax(scored.detach(), dim=-1, dtype=wide)
        labels = self.targets.clamp(min=0)[..., None]
        at_labels = logarithms.gather(-1, labels).squeeze(-1).double()
        others = logarithms.exp_().scatter_(-1, labels, 0.0)
        of_others = others.sum(dim=-1, dtype=torch.float64)
        total = of_others + at_labels.exp()
        missing = of_others / total
        losses = torch.where(missing < 0.5, -torch.log1p(-missing), total.log() - at_labels) * self.weights
        losses = torch.where(self.weights > 0, losses, 0.0).sum(dim=1)
        gradient = others.mul_((self.weights / total).to(wide)[..., None])
        gradient.scatter_(-1, labels, -(missing * self.weights).to(wide)[..., None])
        return losses.to(wide), gradient.to(scored.dtype)

    def places(self, member: int, positions: int, *, is_head: bool) -> slice:
        """Return the positions of a module's output that belong to a sample and can have a gradient.

        Args:
            member: index of the sample in the batch.
            positions: number of positions of the output, its second dimension.
            is_head: whether the output is the logits, which have a gradient only at the labels.
        """
        sample, length = self.samples[member], self.shape[1]
        if is_head and positions in (self.kept, length):
            before = length - positions
            return slice(int(sample.positions[0]) - before, int(sample.positions[-1]) + 1 - before)
        return slice(0, len(sample.tokens) if positions == length else positions)

    def first_label(self, member: int, positions: int) -> int:
        """Return the first position of a module's output that predicts a label of a sample, or 0 if unknown.

        Args:
            member: index of the sample in the batch.
            positions: number of positions of the output, its second dimension.
        """
        return int(self.samples[member].positions[0]) if positions == self.shape[1] else 0
