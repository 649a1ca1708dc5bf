"""Compute projected gradients of single samples for storage: one forward and backward pass each, no comparisons.

Because projections are linear, each term is projected as it arrives and added up. A layer's full gradient is built only
for kinds that require it, one layer at a time.
"""

from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.errors import MemoryBudgetError
from gradsim.gradients.capture.bad_samples import BadSampleError, bad_gradient, bad_loss, no_label
from gradsim.gradients.capture.capture import GradientCapture, own_gradients
from gradsim.gradients.capture.check import Probe, probe, require_room
from gradsim.gradients.capture.eager import uncompiled_model, uncompiled_modules
from gradsim.gradients.capture.encoding import Encoded, Sample, encode, model_limits
from gradsim.gradients.capture.layers import model_layers
from gradsim.gradients.capture.length import require_length
from gradsim.gradients.capture.memory import default_budget
from gradsim.gradients.capture.precision import Precision, plain_arithmetic, precision_of, running_in
from gradsim.gradients.capture.profile import PassProfile
from gradsim.gradients.compare import OnBadSample
from gradsim.gradients.planning.plan_check import PlanCheck, checkpointing_holds
from gradsim.gradients.projection import ModelProjection, Projector
from gradsim.gradients.projection.vector_layout import VectorLayout
from gradsim.gradients.rules.terms import RowSum, Term
from gradsim.gradients.run import Progress

Vector = NDArray[np.float32] | NDArray[np.float64]


def projected_gradients(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    projector: Projector,
    *,
    layers: Collection[str] | None = None,
    precision: str = "float32",
    memory_budget: int | None = None,
    progress: Progress | None = None,
    on_bad_sample: OnBadSample = "error",
) -> Generator[tuple[int, Vector]]:
    """Yield each sample's position and projected gradient, in order.

    The inner products of these vectors per layer are the projected dots of `compare`, except that `compare` rounds the
    vectors to bfloat16 in that precision. The model is in eval mode, frozen and hooked until the generator is exhausted
    or closed.

    Args:
        model: causal language model.
        samples: samples, as for `compare`.
        projector: projection to compute.
        layers: names of the layers to project, as for `compare`.
        precision: precision, as for `compare`.
        memory_budget: bytes on the model's device for passes and projections; None for the free memory less a margin.
        progress: callback that receives the number of finished samples and of all samples.
        on_bad_sample: "exclude" to skip samples without a label or with a non-finite loss or projected gradient.

    Yields:
        Position of the sample, and its vector (width,) in the order of `VectorLayout.of` the layers' dimensions.

    Raises:
        GradientError: The model, samples, projector and memory budget are incompatible, or a bad sample is not
            excluded.
    """
    model = uncompiled_model(model)
    with ExitStack() as lent:
        lent.enter_context(uncompiled_modules(model))
        parameters, limits = model_layers(model, layers), model_limits(model)
        device = next(iter(parameters.values())).device
        encoded = [encode(sample, limits) for sample in samples]
        require_length(model, encoded)
        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        projection = ModelProjection(projector, shapes, device)
        format_ = precision_of(precision)
        lent.enter_context(own_gradients(list(model.parameters())))
        lent.enter_context(running_in(model, format_.dtype))
        budget = default_budget(device) if memory_budget is None else memory_budget
        labelled = [sample for sample in encoded if len(sample.positions)]
        require_room(list(parameters.values()), budget)
        with plain_arithmetic(device):
            probed = probe(model, labelled, shapes)
        capture = lent.enter_context(GradientCapture(model, probed.by_autograd, shapes))
        room = budget - _bytes_beside_a_pass(capture, projection)
        with plain_arithmetic(device):
            if labelled:
                PlanCheck(model, capture, labelled).require_repeatable(range(len(labelled)), probed)
            profile = _profile_that_holds(capture, probed, labelled, room)
        for position, sample in enumerate(encoded):
            try:
                checkpoint = _needs_checkpoint(sample, profile, room)
                vector = _vector(capture, sample, projection, format_, checkpoint=checkpoint)
            except BadSampleError:
                if on_bad_sample == "error":
                    raise
            else:
                yield position, vector
            if progress:
                progress(position + 1, len(encoded))


def _bytes_beside_a_pass(capture: GradientCapture, projection: ModelProjection) -> int:
    """Return the bytes of the projection, the vector, autograd gradients and the largest built gradient."""
    sizes = [parameter.nbytes for parameter in capture.parameters]
    vector = 8 * VectorLayout.of(projection.dimensions).width
    return projection.nbytes + vector + sum(sizes[layer] for layer in capture.without_rule) + max(sizes)


def _profile_that_holds(capture: GradientCapture, probed: Probe, samples: Sequence[Encoded], room: int) -> PassProfile:
    """Return the pass profile, with checkpointing disabled if a sample needs it but it changes the gradients."""
    is_needed = any(_needs_checkpoint(sample, probed.profile, room) for sample in samples)
    if is_needed and not checkpointing_holds(capture, probed):
        return replace(probed.profile, blocks=0)
    return probed.profile


def _needs_checkpoint(sample: Encoded, profile: PassProfile, room: int) -> bool:
    """Return whether a pass needs checkpointed blocks to fit.

    Raises:
        MemoryBudgetError: The pass does not fit even with checkpointing.
    """
    whole, least = (profile.nbytes(1, len(sample.tokens), checkpoint=checkpoint) for checkpoint in (False, True))
    if least > room:
        raise MemoryBudgetError(
            f"sample {sample.id!r} needs {least - room:,} more bytes than memory_budget leaves next to the projection: "
            "increase memory_budget"
        )
    return whole > room


def _vector(
    capture: GradientCapture, sample: Encoded, projection: ModelProjection, precision: Precision, *, checkpoint: bool
) -> Vector:
    if len(sample.positions) == 0:
        raise no_label(sample)
    layout = VectorLayout.of(projection.dimensions)
    dtype = torch.float64 if precision.dtype == torch.float64 else torch.float32
    vector = torch.zeros(layout.width, dtype=dtype, device=capture.device)
    parts = [vector[place] for place in layout.slices]

    def take(layer: int, member: int, term: Term | RowSum) -> None:
        name = layout.layers[layer]
        whole = projection.keeps_whole(name)
        parts[layer].add_(term.gradient().reshape(-1) if whole else projection.project_term(name, term))

    with plain_arithmetic(capture.device, precision.products):
        loss = capture.run([sample], take, checkpoint=checkpoint)[0]
    if not np.isfinite(loss):
        raise bad_loss(sample, loss)
    on_host: Vector = vector.cpu().numpy()
    for name, place in zip(layout.layers, layout.slices, strict=True):
        if not np.isfinite(on_host[place]).all():
            raise bad_gradient(sample, name)
    return on_host
