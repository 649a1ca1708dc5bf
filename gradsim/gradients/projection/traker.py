"""The projectors of the package traker, as a reference."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gradsim.gradients.projection.kind import LayerSketch
from gradsim.gradients.projection.rademacher import Rademacher
from gradsim.gradients.rules.arithmetic import wide

# Columns of the projection that `BasicProjector` keeps at once, and of which `CudaProjector` has multiples.
_BLOCK = 100
_BLOCK_ON_GPU = 512

# The most gradients that are projected at once.
_MOST_GRADIENTS = 8


class Traker(Rademacher):
    """Dense random signs as traker makes them: `BasicProjector` on a processor, `CudaProjector` on a GPU.

    Divided by √k here, which traker does not do. The signs differ from device to device, so that it serves to compare
    with, not to be stored; `Rademacher` is the same everywhere. The variance is the same.
    """

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        super().__init__(sketch, device)
        from trak import projectors  # noqa: PLC0415 - only this kind needs it, and it takes a while

        # fast_jl has multiples of a block; columns are independent, so that some may be left out.
        on_gpu = -(-sketch.dimension // _BLOCK_ON_GPU) * _BLOCK_ON_GPU
        arguments: dict[str, Any] = {
            "grad_dim": sketch.elements,
            "proj_dim": on_gpu if device.type == "cuda" else sketch.dimension,
            "seed": sketch.key % (1 << 31),
            "proj_type": projectors.ProjectionType.rademacher,
            "device": device,
        }
        self._projector: Any = (
            projectors.CudaProjector(**arguments, max_batch_size=_MOST_GRADIENTS)
            if device.type == "cuda"
            else projectors.BasicProjector(**arguments, block_size=_BLOCK)
        )

    @staticmethod
    def why_not_on(device: torch.device) -> str | None:
        """It runs on a processor, and on a GPU with traker's own CUDA code."""
        if device.type == "cuda" and find_spec("fast_jl") is None:
            return (
                f"kind traker needs the package fast_jl on {device}: install it (pip install 'traker[fast]'), "
                "or choose rademacher, which needs nothing"
            )
        if device.type not in ("cpu", "cuda"):
            return f"kind traker does not run on {device}: choose rademacher, which does"
        return None

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """B of the layer's shape -> (B, k)."""
        found = []
        for first in range(0, len(gradients), _MOST_GRADIENTS):
            values = torch.stack([gradient.reshape(-1) for gradient in gradients[first : first + _MOST_GRADIENTS]])
            projected = self._projector.project(values.float(), model_id=0)[:, : self.sketch.dimension]
            found.append((projected / self.sketch.dimension**0.5).to(wide(values[:0]).dtype))
        return torch.cat(found)

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """On a processor one block of columns as float32."""
        return 4 * sketch.elements * min(sketch.dimension, _BLOCK) if device.type == "cpu" else 0

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Gradients in one piece, as they are and as float32."""
        return 12 * sketch.elements * _MOST_GRADIENTS
