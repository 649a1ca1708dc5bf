"""Predictions from shapes alone: the plan that `compare` itself makes, without weights."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from gradsim.errors import GradientError
from gradsim.gradients import Projector, compare
from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import Probe, probe
from gradsim.gradients.capture.encoding import Nodes, encode, model_limits
from gradsim.gradients.capture.precision import precision_of
from gradsim.gradients.planning.alternatives import PairsToRun
from gradsim.gradients.planning.prediction import estimated_probe, pairs_to_run, predict
from gradsim.gradients.planning.rates import Rates
from gradsim.gradients.planning.sizes import Lengths

CPU = torch.device("cpu")
FLOAT32 = precision_of("float32")
AMPLE = 10**9
KINDS = ["olmo, tied", "gpt2, tied", "qwen3, norms of heads", "opt, tied", "mixtral, stacked experts"]
ESTIMATED_KINDS = [*KINDS, "llama, untied", "gemma, scaled embedding", "gpt_neox, biases", "olmoe, stacked experts"]


@pytest.fixture
def make_shapes(make_model):
    """The same model on the `meta` device."""

    def make(kind="olmo, tied", **settings):
        config = AutoConfig.for_model(**make_model(kind).config.to_dict() | {"dtype": None})
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **settings).eval()

    return make


@pytest.fixture
def samples(make_samples):
    return make_samples(5, 1, 8, 32), make_samples(4, 2, 8, 32)


def comparison_of(model, queries, originals, pairs=None):
    limits = model_limits(model)
    nodes = Nodes.of([encode(each, limits) for each in queries], [encode(each, limits) for each in originals])
    every = [(query, original) for query in range(len(queries)) for original in range(len(originals))]
    return pairs_to_run(nodes, np.array(every if pairs is None else pairs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget_share", [None, 1.3])
def test_without_weights_the_plan_is_the_one_that_compare_makes(
    make_model, make_shapes, samples, least_budget, kind, budget_share, monkeypatch
):
    model, shapes = make_model(kind, torch.float32), make_shapes(kind)
    queries, originals = samples
    probes = []

    def watched(*given):
        probes.append(probe(*given))
        return probes[-1]

    monkeypatch.setattr("gradsim.gradients.run.probe", watched)
    budget = AMPLE
    if budget_share:
        budget = int(budget_share * least_budget(model, queries, originals, "all"))
    expected = compare(model, queries, originals, "all", memory_budget=budget).plan
    # Modules are known by themselves: those of the other model have the same places.
    known = probes[-1]
    places = dict(zip(model.modules(), shapes.modules(), strict=True))
    known = replace(known, rows_per_token={places[module]: rows for module, rows in known.rows_per_token.items()})

    comparison = comparison_of(shapes, queries, originals)
    found = predict(shapes, comparison, device=CPU, precision=FLOAT32, memory_budget=budget, probed=known)

    assert found.plan == expected
    assert found.plan.built.tolist() == expected.built.tolist()
    assert found.plan.passes == 9 or budget_share
    assert next(shapes.parameters()).is_meta


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_check_would_find_is_estimated_well_enough_for_the_same_cost(make_model, make_shapes, samples, kind):
    shapes = make_shapes(kind)
    queries, originals = samples
    projectors = [Projector("sjlt", 0.3, 42, "p")]
    expected = compare(
        make_model(kind, torch.float32), queries, originals, "all", memory_budget=AMPLE, projectors=projectors
    ).plan
    found = predict(
        shapes,
        comparison_of(shapes, queries, originals),
        device=CPU,
        precision=FLOAT32,
        memory_budget=AMPLE,
        projectors=projectors,
    )
    assert found.plan.cost == expected.cost
    assert found.memory_bytes == found.weight_bytes + found.plan.peak_bytes + found.plan.working_bytes
    assert found.weight_bytes == sum(parameter.nbytes for parameter in shapes.parameters())


@pytest.mark.parametrize("kind", ESTIMATED_KINDS)
def test_memory_of_a_pass_is_estimated_within_a_factor_of_two(make_model, make_shapes, samples, kind):
    shapes, model = make_shapes(kind), make_model(kind, torch.float32)
    limits = model_limits(shapes)
    expected = probe(model, [encode(sample, limits) for sample in samples[0]]).profile
    found = estimated_probe(shapes, GradientCapture(shapes)).profile
    if not kind.startswith("opt"):  # which keeps less than any other: its shared inputs count three times
        assert 0.5 < found.per_token / expected.per_token < 2
    for members, length in ((1, 5), (1, 5000), (8, 100)):
        assert 0.5 < found.nbytes(members, length) / expected.nbytes(members, length) < 2
        assert 0.5 < found.nbytes(1, length, checkpoint=True) / expected.nbytes(1, length, checkpoint=True) < 2
    # What stands inside of a stack of experts is wider than what comes out of it.
    assert found.widest >= expected.widest if "experts" in kind else found.widest == expected.widest
    assert (found.per_pair, found.blocks) == (expected.per_pair, expected.blocks)
    assert (found.per_logit_token, found.block_input) == (expected.per_logit_token, expected.block_input)


def test_attention_by_plain_products_keeps_its_weights(make_shapes):
    eager = make_shapes("olmo, tied", attn_implementation="eager")
    profile = estimated_probe(eager, GradientCapture(eager)).profile
    assert profile.per_pair == 2 * 4 * 2 * 4, "scores and weights, four heads, two blocks, four bytes"


def test_batches_leave_room_for_each_sample_s_gradient_of_a_layer_without_a_rule(make_shapes, make_samples):
    shapes, samples = make_shapes(), make_samples(20, 1, 20, 20)
    shapes.scale = torch.nn.Parameter(torch.ones(2000, 2000, device="meta"))
    comparison = comparison_of(shapes, samples, samples[:1])
    wide, narrow = (
        predict(shapes, comparison, device=CPU, precision=FLOAT32, memory_budget=budget).plan
        for budget in (10 * AMPLE, AMPLE)
    )
    # Sixteen megabytes, and as much to make it from: an eighth of the budget holds three.
    assert (wide.cost.batches, narrow.cost.batches) == (1, 7)
    assert narrow.working_bytes > 3 * 2 * 16_000_000


def test_for_a_gpu_that_is_not_here(make_shapes, make_samples):
    """Larger batches than on a processor."""
    shapes, queries = make_shapes(), make_samples(50, 1, 110, 120)
    comparison = comparison_of(shapes, queries, queries[:1])
    costs = [
        predict(shapes, comparison, device=torch.device(device), precision=FLOAT32, memory_budget=AMPLE).plan.cost
        for device in ("cpu", "cuda:7")
    ]
    assert costs[0].batches > costs[1].batches
    assert costs[0].passes == costs[1].passes == 50


def test_what_does_not_fit_is_an_error(make_shapes, samples):
    shapes = make_shapes()
    with pytest.raises(GradientError, match="set memory_budget to at least"):
        predict(shapes, comparison_of(shapes, *samples), device=CPU, precision=FLOAT32, memory_budget=1000)


def test_seconds_are_operations_and_reading_at_their_rates(make_shapes, samples):
    shapes = make_shapes()
    given: dict[str, Any] = {"device": CPU, "precision": FLOAT32, "memory_budget": AMPLE}
    comparison = comparison_of(shapes, *samples)
    assert predict(shapes, comparison, **given).seconds is None
    found = predict(shapes, comparison, rates=Rates(1e6, 1e3), **given)
    cost = found.plan.cost
    assert found.seconds == pytest.approx(cost.operations / 1e6 + cost.moved_bytes / 1e3)
    assert found.seconds is not None
    assert math.isfinite(found.seconds)


class TestPublishedStudy:
    """988 queries with the five candidates that the original project chose for each."""

    @pytest.fixture
    def pairs(self, golden):
        dots = pl.scan_parquet(golden / "published/dot_products_paraphrased.parquet")
        first = dots.select(pl.col("layer").cast(pl.String).first()).collect().item()
        rows = dots.filter(pl.col("layer").cast(pl.String) == first).select("query_id", "original_id").collect()
        place = {name: number for number, name in enumerate(rows["query_id"].unique(maintain_order=True))}
        return np.array([(place[query], place[original]) for query, original in rows.iter_rows()])

    def passes(self, shapes, pairs):
        """Of one job, with memory for everything: queries and originals are nodes of their own."""
        total = 988
        comparison = PairsToRun(
            lengths=Lengths(np.full(2 * total, 20), np.full(2 * total, 10)),
            pairs=pairs + np.array([0, total]),
            positions=np.arange(len(pairs)),
            queries=pairs[:, 0] - pairs[:, 0].min(),
            n_queries=int(np.ptp(pairs[:, 0])) + 1,
        )
        found = predict(shapes, comparison, device=CPU, precision=FLOAT32, memory_budget=10**12, probed=Probe())
        return found.plan.passes

    def test_ten_jobs_run_nearly_twice_the_samples_of_one(self, make_shapes, pairs):
        shapes = make_shapes()
        assert pairs.shape == (4940, 2)
        assert self.passes(shapes, pairs) == 1976
        parts = [pairs[pairs[:, 0] // 99 == part] for part in range(10)]
        assert [len(np.unique(part[:, 0])) for part in parts] == [99] * 9 + [97]
        assert sum(self.passes(shapes, part) for part in parts) == 3763
