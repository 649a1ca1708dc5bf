"""What `compare` promises beside the numbers themselves: passes, memory, order, bits, tiles."""

from typing import Any

import numpy as np
import pytest
import torch

from gradsim.gradients import Projector, compare, compare_tiles
from gradsim.gradients.capture.check import probe as run_probe

PAIRS = [(0, 0), (0, 1), (1, 1), (1, 4), (2, 3), (3, 0), (3, 4), (3, 2), (4, 1)]


@pytest.fixture
def model(make_model):
    return make_model(dtype=torch.float32)


@pytest.fixture
def queries(make_samples):
    return make_samples(5, seed=1)


@pytest.fixture
def originals(make_samples):
    return make_samples(5, seed=2)


@pytest.fixture
def forwards(model, monkeypatch):
    """How many samples each forward pass of the model has run, in order, without the checks of rules and plan."""
    from gradsim.gradients import run

    sizes = []
    model.register_forward_hook(
        lambda _, arguments, keywords, output: sizes.append(len(keywords["input_ids"])),
        with_kwargs=True,
    )

    def slower_way(*arguments):
        before = len(sizes)
        found = run_slower_way(*arguments)
        del sizes[before:]
        return found

    def probe(*arguments):
        found = run_probe(*arguments)
        sizes.clear()
        return found

    run_slower_way = run.ComparisonTiles._slower_way
    monkeypatch.setattr(run, "probe", probe)
    monkeypatch.setattr(run.ComparisonTiles, "_slower_way", slower_way)
    return sizes


def numbers(result):
    arrays = [result.dots, result.query_self_dots, result.original_self_dots]
    for projected in result.projected.values():
        arrays += [projected.dots, projected.query_self_dots, projected.original_self_dots]
    return arrays


def test_each_sample_is_run_once(model, queries, originals, forwards):
    result = compare(model, queries, originals, PAIRS)
    assert sum(forwards) == result.passes == result.plan.passes == 10
    assert len(forwards) == result.plan.cost.batches < 10


def test_a_sample_on_both_sides_is_run_once(model, queries, forwards):
    result = compare(model, queries, list(queries), "all")
    assert sum(forwards) == 5
    np.testing.assert_array_equal(result.query_self_dots, result.original_self_dots)
    np.testing.assert_allclose(result.dots[[0, 6, 12, 18, 24]], result.query_self_dots, rtol=1e-5)


def test_a_comparison_is_shown_in_a_few_lines(model, queries, originals):
    result = compare(model, queries, originals, "all", projectors=[Projector("sjlt", 0.5, seed=1, name="<half>")])
    shown = repr(result).splitlines()
    assert shown[0] == "Comparison of gradients"
    pairs = len(queries) * len(originals)
    assert f"  pairs      {pairs}, of {len(queries)} queries and {len(originals)} originals" in shown
    assert "  projected  <half>" in shown
    assert max(map(len, shown)) < 120
    assert "&lt;half&gt;" in result._repr_html_()


def test_samples_in_no_pair_are_not_run(model, queries, originals, forwards):
    result = compare(model, queries, originals, [(1, 2)])
    assert sum(forwards) == 2
    assert np.isnan(np.delete(result.query_self_dots, 1, axis=0)).all()
    assert np.isnan(np.delete(result.original_self_dots, 2, axis=0)).all()
    assert np.isfinite(result.dots).all()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_a_small_budget_gives_the_same_numbers_in_more_passes(model, make_samples, forwards, least_budget, share):
    queries, originals = make_samples(12, 1, 3, 40), make_samples(12, 2, 3, 40)
    ample = compare(model, queries, originals, "all")
    smallest = least_budget(model, queries, originals, "all")
    budget = int(smallest + share * ample.peak_bytes)
    forwards.clear()

    result = compare(model, queries, originals, "all", memory_budget=budget)

    assert 24 <= result.passes == result.plan.passes == sum(forwards)
    assert result.peak_bytes <= result.plan.peak_bytes <= budget - result.plan.working_bytes
    scale = np.sqrt(ample.query_self_dots[:, None] * ample.original_self_dots[None]).reshape(144, -1)
    assert (np.abs(result.dots - ample.dots) <= 1e-5 * scale).all()
    if share == 0.0:
        assert result.passes > 24


@pytest.mark.parametrize("projected", [False, True])
def test_copies_on_the_host_save_passes(model, make_samples, forwards, least_budget, projected, monkeypatch):
    """As on a GPU that is short of memory; here both memories are the processor's."""
    queries, originals = make_samples(12, 1, 3, 40), make_samples(12, 2, 3, 40)
    keywords: dict[str, Any] = {"projectors": [Projector("sjlt", 0.3, 42, "p")] if projected else []}
    budget = int(1.2 * least_budget(model, queries, originals, "all", **keywords))
    again = compare(model, queries, originals, "all", memory_budget=budget, **keywords)
    assert again.passes > 24
    forwards.clear()

    monkeypatch.setattr("gradsim.gradients.planning.alternatives._host_bytes", lambda device: 10**9)
    monkeypatch.setattr("gradsim.gradients.planning.alternatives._PER_SPILLED_BYTE", {"ieee": 1e-3})
    spilled = compare(model, queries, originals, "all", memory_budget=budget, **keywords)

    assert spilled.passes == sum(forwards) == 24
    assert spilled.plan.cost.spilled_bytes > 0
    assert spilled.peak_bytes <= spilled.plan.peak_bytes <= budget - spilled.plan.working_bytes
    scale = np.sqrt(again.query_self_dots[:, None] * again.original_self_dots[None]).reshape(144, -1)
    assert (np.abs(spilled.dots - again.dots) <= 1e-5 * scale).all()
    for name, dots in spilled.projected.items():
        assert (np.abs(dots.dots - again.projected[name].dots) <= 1e-5 * scale).all()


@pytest.mark.parametrize("kind", ["gpt2, tied", "qwen2, untied"])
def test_any_mixture_of_forms_gives_the_same_numbers(make_model, queries, originals, oracle, kind, monkeypatch):
    """Every layer built or kept as factors, by lot."""

    def by_lot(costs, pairs, *, projected, per_byte):
        return ~costs.has_factors | (np.random.default_rng(0).random(len(costs.elements)) < 0.5)

    monkeypatch.setattr("gradsim.gradients.planning.alternatives.forms", by_lot)
    model = make_model(kind)
    result = compare(model, queries, originals, "all", precision="float64")
    assert 0.3 < result.plan.built.mean() < 0.9
    expected = oracle(model, queries, originals)
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale).all()
    assert result.peak_bytes <= result.plan.peak_bytes


def test_prediction_covers_what_is_held(model, queries, originals):
    for projectors in ([], [Projector("sjlt", 0.3, 42, "p")]):
        result = compare(model, queries, originals, PAIRS, projectors=projectors)
        assert 0 < result.peak_bytes <= result.plan.peak_bytes


def test_the_same_call_gives_the_same_bits(model, queries, originals):
    projectors = [Projector("sjlt", 0.3, 42, "p")]
    first, second = (compare(model, queries, originals, PAIRS, projectors=projectors) for _ in range(2))
    for a, b in zip(numbers(first), numbers(second), strict=True):
        assert a.tobytes() == b.tobytes()


def test_another_order_or_split_gives_the_same_numbers(model, queries, originals):
    whole = compare(model, queries, originals, PAIRS)
    scale = np.array([np.sqrt(whole.query_self_dots[q] * whole.original_self_dots[o]) for q, o in PAIRS])

    backwards = compare(model, queries, originals, PAIRS[::-1])
    assert (np.abs(backwards.dots[::-1] - whole.dots) <= 1e-5 * scale).all()

    reversed_samples = [(4 - q, 4 - o) for q, o in PAIRS]
    turned = compare(model, queries[::-1], originals[::-1], reversed_samples)
    assert (np.abs(turned.dots - whole.dots) <= 1e-5 * scale).all()

    for part in (slice(0, 4), slice(4, 9)):
        split = compare(model, queries, originals, PAIRS[part])
        assert (np.abs(split.dots - whole.dots[part]) <= 1e-5 * scale[part]).all()


def test_pairs_may_repeat(model, queries, originals):
    result = compare(model, queries, originals, [(0, 1), (2, 3), (0, 1)])
    assert result.dots[0].tobytes() == result.dots[2].tobytes()
    assert np.isfinite(result.dots).all()


@pytest.mark.parametrize("as_type", [np.array, torch.tensor, list])
def test_samples_and_pairs_may_be_lists_arrays_or_tensors(model, queries, originals, make_sample, as_type):
    expected = compare(model, queries, originals, PAIRS)
    converted = [make_sample(q.id, as_type(q.input_ids), as_type(q.labels)) for q in queries]
    result = compare(model, converted, originals, as_type(PAIRS))
    assert result.dots.tobytes() == expected.dots.tobytes()


def test_tiles_are_the_whole(model, queries, originals, monkeypatch):
    monkeypatch.setattr("gradsim.gradients.tiles._PAIRS", 3)
    projectors = [Projector("sjlt", 0.3, 42, "p")]
    whole = compare(model, queries, originals, "all", projectors=projectors)
    tiles = compare_tiles(model, queries, originals, "all", projectors=projectors)
    assert tiles.layers == whole.layers

    done, seen = 0, []
    for tile in tiles:
        assert (np.diff(tile.pairs) > 0).all()
        seen.extend(tile.pairs.tolist())
        np.testing.assert_array_equal(tile.dots, whole.dots[tile.pairs])
        np.testing.assert_array_equal(tile.query_self_dots, whole.query_self_dots[tile.queries])
        np.testing.assert_array_equal(tile.original_self_dots, whole.original_self_dots[tile.originals])
        np.testing.assert_array_equal(tile.projected["p"].dots, whole.projected["p"].dots[tile.pairs])
        assert done <= tile.queries_done
        done = tile.queries_done
        assert set(range(5 * done)) <= set(seen)
    assert sorted(seen) == list(range(25))
    assert done == 5
    assert tiles.plan is not None
    assert tiles.passes == tiles.plan.passes == 10


def test_progress_counts_samples(model, queries, originals):
    calls = []
    compare(model, queries, originals, PAIRS, progress=lambda done, total: calls.append((done, total)))
    done, total = zip(*calls, strict=True)
    assert done[-1] == 10
    assert list(done) == sorted(set(done))
    assert set(total) == {10}


def test_float64_of_a_float32_model_is_a_cast_for_the_run(model, queries, originals, oracle):
    before = [parameter.detach().clone() for parameter in model.parameters()]
    result = compare(model, queries, originals, "all", precision="float64")
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, value)
    expected = oracle(model.double(), queries, originals)
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale).all()


def test_settings_of_the_caller_do_not_leak_in_or_out(model, queries, originals):
    expected = compare(model, queries, originals, PAIRS)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            result = compare(model, queries, originals, PAIRS)
            assert torch.is_inference_mode_enabled()
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert result.dots.tobytes() == expected.dots.tobytes()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_is_the_model_s_own(make_model, queries, originals, oracle, implementation):
    model = make_model()
    model.set_attn_implementation(implementation)
    result = compare(model, queries, originals, "all", precision="float64")
    expected = oracle(model, queries, originals)
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale).all()
