"""Device calibration: times `compare` on a few real samples."""

import time
from collections.abc import Collection, Sequence

import torch
from transformers import PreTrainedModel

from gradsim.gradients.capture.encoding import Sample
from gradsim.gradients.compare import compare_tiles
from gradsim.gradients.planning.rates import Rates
from gradsim.gradients.projection import Projector
from gradsim.gradients.rules.arithmetic import inner
from gradsim.gradients.run import ComparisonTiles

# Shortest comparison worth timing, in seconds; shorter ones are repeated with twice the samples.
_LONG_ENOUGH = 3.0
_MOST_SAMPLES = 64

# Bytes of a vector too large for any cache, and the number of timed reads.
_READ_BYTES = 1 << 28
_READS = 3


def measure_rates(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    *,
    layers: Collection[str] | None = None,
    partners: int,
    precision: str = "float32",
    projectors: Sequence[Projector] = (),
    memory_budget: int | None = None,
) -> Rates:
    """Measure the compute rate and the memory read speed of the model's device.

    Compares a few samples, and doubles their number until a comparison takes long enough to time. Takes a few seconds.

    Args:
        model: model on its device.
        samples: samples of the study; the compared ones span the range of lengths.
        layers: see `compare`.
        partners: maximum number of originals to compare each query with.
        precision: see `compare`.
        projectors: see `compare`.
        memory_budget: see `compare`.

    Raises:
        GradientError: The samples cannot be compared.
    """
    by_length = sorted(samples, key=lambda sample: len(sample.input_ids))
    bytes_per_second = read_speed(next(model.parameters()).device)
    most = min(_MOST_SAMPLES, len(by_length))
    count, warm = min(2, most), False
    while True:
        chosen = [by_length[int((place + 0.5) * len(by_length) / count)] for place in range(count)]
        queries, originals = chosen[::2], chosen[1::2] or chosen
        tiles = compare_tiles(
            model,
            queries,
            originals,
            _neighbours(len(queries), len(originals), partners),
            layers=layers,
            precision=precision,
            memory_budget=memory_budget,
            projectors=projectors,
        )
        tiles.together()
        if tiles.seconds >= _LONG_ENOUGH or (warm and count == most):
            return _rates(tiles, bytes_per_second)
        if warm:
            count = min(2 * count, most)
        warm = True


def read_speed(device: torch.device) -> float:
    """Return the read speed of an inner product, in bytes per second."""
    vector = torch.ones(_READ_BYTES // 4, device=device)
    inner(vector, vector).item()
    seconds = min(_timed_read(vector) for _ in range(_READS))
    return vector.nbytes / seconds


def _timed_read(vector: torch.Tensor) -> float:
    started = time.perf_counter()
    inner(vector, vector).item()
    return time.perf_counter() - started


def _neighbours(queries: int, originals: int, partners: int) -> list[tuple[int, int]]:
    """Pair each query with up to `partners` originals, starting at the query's own position and wrapping around."""
    return [(query, (query + step) % originals) for query in range(queries) for step in range(min(partners, originals))]


def _rates(tiles: ComparisonTiles, bytes_per_second: float) -> Rates:
    """Return the rates derived from a timed comparison.

    Time not explained by memory reads counts as arithmetic, but never less than half of the total.
    """
    assert tiles.plan is not None
    computing = max(tiles.seconds - tiles.plan.cost.moved_bytes / bytes_per_second, tiles.seconds / 2)
    return Rates(tiles.plan.operations_with_copies / computing, bytes_per_second)
