"""The gradients of the loss summed over labels, against plain autograd."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gradsim.analysis.audit import DOT, ORIGINAL_SELF, QUERY_SELF
from gradsim.gradients import Projector, compare_tiles
from gradsim.gradients.reference import reference_gradient
from gradsim.partition_job.audit import _reference
from gradsim.partition_job.inputs import JobInputs, TokenSequence
from gradsim.partition_job.summed_loss import label_counts, of_summed_loss

pytestmark = pytest.mark.model

SAMPLES = [
    TokenSequence("a", [3, 4, 5, 6, 7], [3, -100, 5, 6, 7]),  # nothing predicts the first label
    TokenSequence("b", [8, 9, 10], [-100, -100, 10]),
    TokenSequence("c", [5, 3, 9, 11], [-100, 3, 9, 11]),
]


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=32)).double().eval()


def gradient(model: GPT2LMHeadModel, sample: TokenSequence) -> dict[str, torch.Tensor]:
    """The gradient of the summed cross-entropy of the labels, each predicted from the tokens before it."""
    model.zero_grad()
    logits = model(input_ids=torch.tensor([sample.input_ids])).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(sample.labels[1:]), reduction="sum").backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}  # type: ignore[union-attr]


def test_dots_are_those_of_the_summed_loss(model: GPT2LMHeadModel) -> None:
    pairs = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    inputs = JobInputs(SAMPLES[:2], SAMPLES[1:], pl.DataFrame(), pairs, [])
    whole = {name: parameter.numel() for name, parameter in model.named_parameters()}
    projector = Projector("sjlt", whole, seed=0, name="all")  # as many dimensions as parameters: nothing is projected
    means = list(
        compare_tiles(model, inputs.queries, inputs.originals, pairs, precision="float64", projectors=[projector])
    )
    gradients = [gradient(model, sample) for sample in SAMPLES]
    seen = 0
    for mean, tile in zip(means, of_summed_loss(means, inputs), strict=True):
        assert np.array_equal(mean.query_losses, tile.query_losses)
        for numbers in (tile, tile.projected["all"]):
            expected = [[_dot(gradients[q], gradients[1 + o], layer) for layer in whole] for q, o in pairs[tile.pairs]]
            np.testing.assert_allclose(numbers.dots, expected, rtol=1e-9, atol=1e-12)
            expected = [[_dot(gradients[q], gradients[q], layer) for layer in whole] for q in tile.queries]
            np.testing.assert_allclose(numbers.query_self_dots, expected, rtol=1e-9, atol=1e-12)
            expected = [[_dot(gradients[1 + o], gradients[1 + o], layer) for layer in whole] for o in tile.originals]
            np.testing.assert_allclose(numbers.original_self_dots, expected, rtol=1e-9, atol=1e-12)
        seen += len(tile.pairs)
    assert seen == len(pairs)


def test_the_audit_computes_the_same_loss(model: GPT2LMHeadModel) -> None:
    a, b = SAMPLES[0], SAMPLES[1]
    layers = [name for name, _ in model.named_parameters()]
    mean, total = (_reference(model, a, b, layers, reduction) for reduction in ("mean", "sum"))
    for layer, dot in total.select("layer", DOT).iter_rows():
        assert dot == pytest.approx(_dot(gradient(model, a), gradient(model, b), layer), rel=1e-9, abs=1e-15)
    assert label_counts(SAMPLES).tolist() == [3, 1, 3]
    for column, factor in ((DOT, 3), (QUERY_SELF, 9), (ORIGINAL_SELF, 1)):
        np.testing.assert_allclose(total[column], factor * mean[column], rtol=1e-9)


def test_a_label_at_the_first_token_adds_nothing(model: GPT2LMHeadModel) -> None:
    without = replace(SAMPLES[0], labels=[-100, *SAMPLES[0].labels[1:]])
    one, two = (reference_gradient(model, sample, reduction="sum") for sample in (SAMPLES[0], without))
    assert all(torch.equal(one[layer], two[layer]) for layer in one)


def _dot(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], layer: str) -> float:
    return float((one[layer] * two[layer]).sum())
