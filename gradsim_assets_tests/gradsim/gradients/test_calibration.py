"""Rates of a device: positive, of this work, and soon found."""

import math

import pytest
import torch

from gradsim.gradients import calibration, compare_tiles
from gradsim.gradients.calibration import measure_rates, read_speed


@pytest.fixture
def runs(monkeypatch):
    """Every comparison that is made: its queries, originals, pairs and keywords."""
    made = []

    def watched(model, queries, originals, pairs, **keywords):
        made.append((queries, originals, pairs, keywords))
        return compare_tiles(model, queries, originals, pairs, **keywords)

    monkeypatch.setattr(calibration, "compare_tiles", watched)
    monkeypatch.setattr(calibration, "_READ_BYTES", 1 << 20)
    return made


def test_rates_are_positive_and_the_samples_span_the_lengths(make_model, make_samples, runs, monkeypatch):
    monkeypatch.setattr(calibration, "_LONG_ENOUGH", math.inf)
    samples = make_samples(40, 1, 8, 32)
    rates = measure_rates(make_model(dtype=torch.float32), samples, partners=3, precision="float32")
    assert 0 < rates.operations_per_second < math.inf
    assert 0 < rates.bytes_per_second < math.inf
    queries, originals, pairs, _ = runs[-1]
    assert len(queries) + len(originals) == 40
    assert {len(sample.input_ids) for sample in (*queries, *originals)} == {len(each.input_ids) for each in samples}
    assert len(pairs) == len(set(pairs)) == 3 * len(queries)


def test_what_takes_long_is_measured_at_once(make_model, make_samples, runs, monkeypatch):
    monkeypatch.setattr(calibration, "_LONG_ENOUGH", 0.0)
    measure_rates(make_model(), make_samples(40, 1), partners=3, precision="float64", memory_budget=10**9)
    ((queries, originals, pairs, keywords),) = runs
    assert (len(queries), len(originals), len(pairs)) == (1, 1, 1)
    assert (keywords["precision"], keywords["memory_budget"]) == ("float64", 10**9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_are_enough(make_model, make_samples, runs, count):
    rates = measure_rates(make_model(dtype=torch.float32), make_samples(count, 1), partners=5)
    assert rates.operations_per_second > 0


def test_reading_is_timed(monkeypatch):
    monkeypatch.setattr(calibration, "_READ_BYTES", 1 << 24)
    assert 1e8 < read_speed(torch.device("cpu")) < 1e13
