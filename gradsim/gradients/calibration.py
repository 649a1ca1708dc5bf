"""How fast a device is at this work: a few real samples through `compare`, and the time that they take."""

import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from gradsim.gradients.capture.encoding import Sample
from gradsim.gradients.compare import compare_tiles
from gradsim.gradients.planning.rates import Rates
from gradsim.gradients.projection import Projector
from gradsim.gradients.rules.arithmetic import inner
from gradsim.gradients.run import ComparisonTiles

# A comparison that takes so many seconds is long enough to measure; shorter ones are repeated with twice the samples.
_LONG_ENOUGH = 3.0
_MOST_SAMPLES = 64

# Bytes of a vector that no cache holds, and how often it is read.
_READ_BYTES = 1 << 28
_READS = 3


def measure_rates(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    *,
    partners: int,
    precision: str = "float32",
    projectors: Sequence[Projector] = (),
    memory_budget: int | None = None,
) -> Rates:
    """Compare a few samples, more of them until it takes long enough to be measured: some seconds in all.

    Args:
        model: loaded, on its device.
        samples: of the study; those that are compared span their lengths.
        partners: how many originals each query is compared with, if there are so many.
        precision: as of `compare`.
        projectors: as of `compare`.
        memory_budget: as of `compare`.

    Raises:
        GradientError: the samples cannot be compared.
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
    """Bytes a second that an inner product reads."""
    vector = torch.ones(_READ_BYTES // 4, device=device)
    inner(vector, vector).item()
    seconds = min(_timed_read(vector) for _ in range(_READS))
    return vector.nbytes / seconds


def _timed_read(vector: torch.Tensor) -> float:
    started = time.perf_counter()
    inner(vector, vector).item()
    return time.perf_counter() - started


def _neighbours(queries: int, originals: int, partners: int) -> list[tuple[int, int]]:
    """Each query with so many originals, those behind the one of its own position."""
    return [(query, (query + step) % originals) for query in range(queries) for step in range(min(partners, originals))]


def _rates(tiles: ComparisonTiles, bytes_per_second: float) -> Rates:
    """What is not spent on reading is spent on operations: half of the time at least, should reading seem slower."""
    assert tiles.plan is not None
    computing = max(tiles.seconds - tiles.plan.cost.moved_bytes / bytes_per_second, tiles.seconds / 2)
    return Rates(tiles.plan.operations_with_copies / computing, bytes_per_second)
