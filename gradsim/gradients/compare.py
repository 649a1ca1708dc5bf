"""The public entry: what is given is checked here, and run in `run`."""

from collections.abc import Sequence
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
from gradsim.gradients.run import ComparisonTiles, Progress, Request

OnBadSample = Literal["error", "exclude"]
PrecisionOfMemorised = Literal["float64"] | None


def compare(
    model: PreTrainedModel,
    queries: Sequence[Sample],
    originals: Sequence[Sample],
    pairs: Any,
    *,
    precision: str = "float32",
    memory_budget: int | None = None,
    projectors: Sequence[Projector] = (),
    progress: Progress | None = None,
    on_bad_sample: OnBadSample = "error",
    precision_of_memorised: PrecisionOfMemorised = None,
) -> Comparison:
    """Inner products of single-sample gradients, for every layer and every pair.

    The gradient is that of the mean cross-entropy over the unmasked labels, in eval mode, one sample at a time. The
    model comes back as it was.

    Args:
        model: a causal language model on one device; a compiled one runs uncompiled.
        queries: objects with `id`, `input_ids` and `labels` (1-D, of one length; label -100 is masked).
        originals: the same. A sample that is given several times is run once.
        pairs: (n, 2) positions in queries and originals, or "all": every pair, query-major.
        precision: "float32", "tf32", "bfloat16" or "float64", what the model runs in; a model in another format is
            cast for the run. Dots are added up in float64 in any case.
        memory_budget: bytes that may be taken on the model's device beside the model: by captured gradients and by the
            pass that captures more. None: what is free, less a margin. Another budget can mean another rounding.
        projectors: random projections whose dots are wanted beside the exact ones.
        progress: called with (done, total) samples that were run, after each batch.
        on_bad_sample: whether a sample without an unmasked label, or whose loss or gradient is not finite, is an
            error or is excluded: its numbers are NaN.
        precision_of_memorised: "float64" runs samples with a mean loss below 0.5 again in float64. In float32 the
            arithmetic of the model itself limits the precision of their gradients, see docs/gradients.md. Needs memory
            for a copy of the model in float64.

    Raises:
        GradientError: something that was given cannot be used.
    """
    return compare_tiles(
        model,
        queries,
        originals,
        pairs,
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
    precision: str = "float32",
    memory_budget: int | None = None,
    projectors: Sequence[Projector] = (),
    progress: Progress | None = None,
    on_bad_sample: OnBadSample = "error",
    precision_of_memorised: PrecisionOfMemorised = None,
) -> "ComparisonTiles":
    """What `compare` computes, in tiles, for results that are too large to hold.

    What is given is checked at once; the work is done while the tiles are taken. Until the last one, or until `close`,
    the model is lent to the comparison: in eval mode, its parameters frozen, with hooks.
    """
    if on_bad_sample not in ("error", "exclude"):
        raise GradientError(f'on_bad_sample is {on_bad_sample!r}: choose "error" or "exclude"')
    if precision_of_memorised not in (None, "float64"):
        raise GradientError(f'precision_of_memorised is {precision_of_memorised!r}: choose "float64" or None')
    model = uncompiled_model(model)
    with uncompiled_modules(model):
        layers = model_layers(model)
        shapes = {name: parameter.shape for name, parameter in layers.items()}
        limits = model_limits(model)
        nodes = Nodes.of(
            [encode(query, limits) for query in queries],
            [encode(original, limits) for original in originals],
        )
        request = Request(
            model=model,
            precision=precision_of(precision),
            nodes=nodes,
            pairs=pair_positions(pairs, len(queries), len(originals)),
            projections=make_projections(projectors, shapes, next(iter(layers.values())).device),
            memory_budget=memory_budget,
            progress=progress,
            exclude_bad=on_bad_sample == "exclude",
            rerun_memorised=precision_of_memorised is not None and precision != precision_of_memorised,
        )
        require_length(model, nodes.samples)
        return ComparisonTiles(request)
