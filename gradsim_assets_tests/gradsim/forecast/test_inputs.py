"""What partitions compare, as far as it is known, and what it leaves behind."""

import numpy as np
import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.dataset.token_estimate import estimated_tokens
from gradsim.errors import DeviceError, MemoryBudgetError, ModelError
from gradsim.forecast.costs import Forecaster, Machine, result_rows
from gradsim.forecast.inputs import ForecastInputs, PartitionInputs, partition_inputs
from gradsim.forecast.sources import Originals, Sources, blank
from gradsim.study import Study
from gradsim.tables import Store

NAMES = [f"s{number}" for number in range(6)]
SIZES = {"layers": 1, "hidden_size": 16, "heads": 2, "vocabulary": 300}


def rows():
    """Answers of 40, 80, ... characters."""
    return pl.DataFrame(
        [
            (name, [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "word " * 8 * number}])
            for number, name in enumerate(NAMES, start=1)
        ],
        SAMPLES_SCHEMA,
        orient="row",
    )


@pytest.fixture
def make_sources(tmp_path):
    """A study of six originals in partitions of four and two; nothing of it is stored."""

    def make(**changes):
        definition = {
            "name": "mine",
            "dataset": {"path": tmp_path / "originals.jsonl"},
            "samples": 6,
            "model": {"reference": SIZES},
            "settings": {"dropped": {"method": "word_dropout"}, "more": {"method": "word_dropout", "every": 3}},
            "partition_size": 4,
            "top_k": 3,
        }
        (tmp_path / "originals.jsonl").write_text("{}")
        study = Study.model_validate(definition | changes)
        return Sources(Store(tmp_path / "data root", study), rows)

    return make


def test_originals_that_are_not_tokenized_have_estimated_lengths(make_sources):
    originals = make_sources().originals
    assert originals.estimated
    assert originals.ids == NAMES
    for number, sample in enumerate(originals.samples, start=1):
        assert len(sample.positions) == 10 * number + 1, "forty characters a step, and the end token"
        assert sample.positions[-1] == len(sample.tokens) - 2
        assert len(sample.tokens) - len(sample.positions) == estimated_tokens("<|user|>\nWhy?\n<|assistant|>\n")


def test_queries_are_as_long_as_their_originals_and_not_taken_for_them(make_sources):
    sources = make_sources()
    partition = sources.store.study.partitions[1]
    inputs = partition_inputs(sources, "dropped", partition)
    assert [query.id for query in inputs.queries] == NAMES[4:]
    assert inputs.estimated == {"lengths", "candidates"}
    for query, original in zip(inputs.queries, sources.originals.samples[4:], strict=True):
        assert (len(query.tokens), len(query.positions)) == (len(original.tokens), len(original.positions))
    comparison = ForecastInputs.of([inputs], sources.originals).comparison()
    assert len(comparison.lengths.tokens) == 2 + len(np.unique(inputs.pairs[:, 1])), "each is a node of its own"


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (6, 6), (99, 6), ("all", 6)])
def test_candidates_by_lot_hold_the_source_and_no_original_twice(make_sources, top_k, count):
    sources = make_sources(top_k=top_k)
    inputs = partition_inputs(sources, "dropped", sources.store.study.partitions[0])
    assert inputs.pairs.shape == (4 * count, 2)
    for query in range(4):
        candidates = inputs.pairs[inputs.pairs[:, 0] == query, 1].tolist()
        assert query in candidates
        assert len(set(candidates)) == count
        assert set(candidates) <= set(range(6))
    again = partition_inputs(sources, "dropped", sources.store.study.partitions[0])
    assert again.pairs.tolist() == inputs.pairs.tolist()


def test_a_job_has_the_originals_of_all_its_partitions_once():
    originals = Originals(list("abcd"), [blank(name, 5, 2) for name in "abcd"], estimated=True)
    parts = [
        PartitionInputs([blank("a", 5, 2, 1), blank("b", 5, 2, 1)], np.array([(0, 0), (1, 3)]), frozenset()),
        PartitionInputs([blank("d", 5, 2, 1)], np.array([(0, 3)]), frozenset()),
    ]
    inputs = ForecastInputs.of(parts, originals)
    assert [sample.id for sample in inputs.originals] == ["a", "d"]
    assert inputs.pairs.tolist() == [[0, 0], [1, 1], [2, 1]]
    rows = result_rows(parts, layers=10, projections=3, projectors=2)
    # Exact dots and those of two projectors, similarities and three projected ones of three pairs; self dots of three
    # queries and of 2 + 1 originals, the same number of times.
    assert rows.count == 3 * (30 + 1 + 3) + 3 * 30 + 3 * 30
    combined = rows.count - 30  # one original is met twice
    assert rows.nbytes == 8 * (rows.count + combined) + 4000 * 8 * 3


def test_a_job_a_partition_repeats_originals_and_one_job_of_all_settings_repeats_none(make_sources):
    forecaster = Forecaster(make_sources(), Machine("cpu", 10**9))
    first, second, together = forecaster.settings(["dropped", "more"])
    assert (first.partitions, first.missing, tuple(first.parts)) == (2, ("0000-0003", "0004-0005"), first.missing)
    assert first.together.plan.passes == first.together.plan.unique_samples == 12
    assert first.split_passes > 12
    assert first.split_operations > first.together.plan.cost.operations
    assert first.split_seconds is None
    assert (together.setting, together.partitions, len(together.missing)) == ("together", 4, 4)
    originals = 6
    assert together.together.plan.passes == together.together.plan.unique_samples
    assert together.together.plan.passes == first.together.plan.passes + second.together.plan.passes - originals
    assert together.rows.count == first.rows.count + second.rows.count


def test_nothing_is_stored(make_sources):
    sources = make_sources()
    Forecaster(sources, Machine("cpu", 10**9)).settings(["dropped"])
    assert not sources.store.root.exists()


def test_a_model_that_is_not_trained_cannot_be_loaded(make_sources):
    with pytest.raises(ModelError, match=r"the first run trains its model.*gradsim run mine --partition 0000-0003$"):
        make_sources().loadable_model("cpu")


def test_memory_that_is_too_small_for_a_pair(make_sources):
    with pytest.raises(
        MemoryBudgetError, match=r"memory_budget is 1,000: set .* to at least \d+ \(GRADSIM_MEMORY_BUDGET"
    ):
        Forecaster(make_sources(), Machine("cpu", 1000)).settings(["dropped"])


def test_a_model_that_is_too_large_for_the_device():
    with pytest.raises(DeviceError) as caught:
        Machine("cpu").budget(10**18)
    assert str(caught.value).startswith("the model takes 1,000,000,000,000,000,000 bytes, but cpu has only ")
    assert Machine("cpu", 1000).budget(10**18) == 1000, "it is planned for another machine"
    assert 0 < Machine("cpu").budget(1) == pytest.approx(Machine("cpu").budget(0), rel=0.1)
