"""Public entry points: validate the arguments; `run` does the work."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.gradients.capture.eager import uncompiled_model, uncompiled_modules
from gradsim.gradients.capture.encoding import Nodes, Sample, encode, model_limits, pair_positions
from gradsim.gradients.capture.layers import model_layers
from gradsim.gradients.capture.length import require_length
from gradsim.gradients.capture.precision import precision_of
from gradsim.gradients.projection import Projector, make_projections
from gradsim.gradients.results import Comparison
from gradsim.gradients.run import ComparisonRequest, ComparisonTiles, Progress

OnBadSample = Literal["error", "exclude"]
PrecisionOfMemorised = Literal["float64"] | None


def compare(
    model: PreTrainedModel,
    queries: Sequence[Sample],
    originals: Sequence[Sample],
    pairs: Any,
    *,
    layers: Collection[str] | None = None,
    precision: str = "float32",
    memory_budget: int | None = None,
    projectors: Sequence[Projector] = (),
    progress: Progress | None = None,
    on_bad_sample: OnBadSample = "error",
    precision_of_memorised: PrecisionOfMemorised = None,
) -> Comparison:
    """Compute inner products of single-sample gradients, for every layer and every pair.

    Each gradient is the gradient of one sample's mean cross-entropy over its unmasked labels, in eval mode. The model
    is left unchanged.

    Args:
        model: causal language model on one device. A compiled model runs uncompiled.
        queries: objects with `id`, `input_ids` and `labels` (1-D, equal length; label -100 is masked).
        originals: objects like the queries. Duplicate samples run only once.
        pairs: (n, 2) positions in queries and originals, or "all" for every pair in query-major order.
        layers: names of the layers to compare, as in `model.named_parameters()`; None for all. The backward pass ends
            at the lowest of them, and nothing is computed for other layers.
        precision: "float32", "tf32", "bfloat16" or "float64", the precision of the model's passes. A model in another
            dtype is cast for the run. Dots always accumulate in float64.
        memory_budget: bytes available on the model's device in addition to the model, for captured gradients and for
            the passes that capture them. None uses the free memory minus a margin. The budget can affect rounding.
        projectors: random projections to compute dots for, in addition to the exact ones.
        progress: callback that receives the number of samples done and the total after each batch.
        on_bad_sample: "error" raises on a sample without an unmasked label or with a non-finite loss or gradient;
            "exclude" sets the sample's results to NaN.
        precision_of_memorised: "float64" reruns samples with a mean loss below 0.5 in float64. In float32, the
            model's own arithmetic limits the precision of their gradients, see docs/gradients.md. Requires memory for
            a float64 copy of the model.

    Raises:
        GradientError: An argument is invalid, or the samples cannot be compared.
    """
    return compare_tiles(
        model,
        queries,
        originals,
        pairs,
        layers=layers,
        precision=precision,
        memory_budget=memory_budget,
        projectors=projectors,
        progress=progress,
        on_bad_sample=on_bad_sample,
        precision_of_memorised=precision_of_memorised,
    ).together()


def compare_tiles(
    model: PreTrainedModel,
    queries: Sequence[Sample],
    originals: Sequence[Sample],
    pairs: Any,
    *,
    layers: Collection[str] | None = None,
    precision: str = "float32",
    memory_budget: int | None = None,
    projectors: Sequence[Projector] = (),
    progress: Progress | None = None,
    on_bad_sample: OnBadSample = "error",
    precision_of_memorised: PrecisionOfMemorised = None,
) -> "ComparisonTiles":
    """Return the results of `compare` as an iterator of tiles, for results too large to hold in memory.

    Takes the same arguments as `compare` and validates them immediately; the computation runs as tiles are consumed.
    Do not use the model before the last tile or a call to `close`: until then it is in eval mode, with frozen
    parameters and hooks.

    Raises:
        GradientError: An argument is invalid.
    """
    if on_bad_sample not in ("error", "exclude"):
        raise GradientError(f'on_bad_sample is {on_bad_sample!r}: choose "error" or "exclude"')
    if precision_of_memorised not in (None, "float64"):
        raise GradientError(f'precision_of_memorised is {precision_of_memorised!r}: choose "float64" or None')
    model = uncompiled_model(model)
    with uncompiled_modules(model):
        parameters = model_layers(model, layers)
        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        limits = model_limits(model)
        nodes = Nodes.of(
            [encode(query, limits) for query in queries],
            [encode(original, limits) for original in originals],
        )
        request = ComparisonRequest(
            model=model,
            layers=list(parameters),
            precision=precision_of(precision),
            nodes=nodes,
            pairs=pair_positions(pairs, len(queries), len(originals)),
            projections=make_projections(projectors, shapes, next(iter(parameters.values())).device),
            memory_budget=memory_budget,
            progress=progress,
            exclude_bad=on_bad_sample == "exclude",
            rerun_memorised=precision_of_memorised is not None and precision != precision_of_memorised,
        )
        require_length(model, nodes.samples)
        return ComparisonTiles(request)
