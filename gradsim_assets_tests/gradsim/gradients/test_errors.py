"""Bad input: one line that names the sample and the fix."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from gradsim.errors import GradientError, MemoryBudgetError
from gradsim.gradients import compare


@pytest.fixture
def model(make_model):
    return make_model(dtype=torch.float32)


@pytest.fixture
def good(make_samples):
    return make_samples(3, seed=1)


def message(call, *arguments, **keywords):
    with pytest.raises(GradientError) as error:
        call(*arguments, **keywords)
    return str(error.value)


@pytest.mark.parametrize(
    ("tokens", "labels", "expected"),
    [
        ([], [], "sample 'bad' is empty: give it at least two input_ids"),
        ([1, 2, 3], [1, 2], "sample 'bad' has 3 input_ids but 2 labels: give one label for each id"),
        (
            [1, 64],
            [1, 2],
            "sample 'bad' has input_ids outside the vocabulary of 64, first 64: "
            "tokenize it with the model's own tokenizer",
        ),
        (
            [1, 2],
            [1, -5],
            "sample 'bad' has labels outside the 64 outputs of the model's head, first -5: "
            "tokenize it with the model's own tokenizer",
        ),
        (
            [[1, 2]],
            [[1, 2]],
            "sample 'bad' has input_ids of shape (1, 2) and type int64: give a 1-D list of integers",
        ),
        (
            [0.5, 1.0],
            [1, 2],
            "sample 'bad' has input_ids of shape (2,) and type float64: give a 1-D list of integers",
        ),
        (
            [1, 2, 3],
            [1, -100, -100],
            "sample 'bad' has no unmasked label after its first token: fix or exclude it (on_bad_sample=\"exclude\")",
        ),
    ],
)
def test_bad_samples(model, good, make_sample, tokens, labels, expected):
    bad = make_sample("bad", tokens, labels)
    assert message(compare, model, good, [good[0], bad], "all") == expected
    assert message(compare, model, [bad], good, "all") == expected


@pytest.mark.parametrize("kind", ["gpt2, tied", "opt, tied"])
def test_sample_longer_than_the_learned_positions(make_model, make_sample, kind):
    model = make_model(kind, torch.float32)
    fits, long = (make_sample(f"of {n}", [5] * n, [5] * n) for n in (32, 33))
    assert compare(model, [fits], [fits], "all").passes == 1
    assert message(compare, model, [fits], [long], "all") == (
        "sample 'of 33' has 33 tokens, but the model has only 32 learned positions: shorten or exclude it"
    )


def test_rotary_positions_have_no_limit(model, make_sample):
    long = make_sample("long", [5] * 50, [5] * 50)
    assert np.isfinite(compare(model, [long], [long], "all").dots).all()


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("every", 'pairs has shape () and type <U5: give an (n, 2) array of integers, or "all"'),
        ([0, 1], 'pairs has shape (2,) and type int64: give an (n, 2) array of integers, or "all"'),
        ([(0, 1, 2)], 'pairs has shape (1, 3) and type int64: give an (n, 2) array of integers, or "all"'),
        ([(0.0, 1.0)], 'pairs has shape (1, 2) and type float64: give an (n, 2) array of integers, or "all"'),
        ([(0, 0), (3, 0)], "pair 1 refers to query 3, but there are 3: positions run from 0 to 2"),
        ([(0, -1)], "pair 0 refers to original -1, but there are 2: positions run from 0 to 1"),
        ([], "there are no pairs to compare: give at least one query, one original and one pair"),
    ],
)
def test_bad_pairs(model, good, pairs, expected):
    assert message(compare, model, good, good[:2], pairs) == expected


def test_nothing_to_compare(model, good):
    expected = "there are no pairs to compare: give at least one query, one original and one pair"
    assert message(compare, model, [], good, "all") == expected
    assert message(compare, model, good, [], "all") == expected


def test_bad_settings(model, good):
    assert message(compare, model, good, good, "all", precision="int4") == (
        "precision is 'int4': choose one of float32, tf32, bfloat16, float64"
    )
    assert message(compare, model, good, good, "all", on_bad_sample="ignore") == (
        'on_bad_sample is \'ignore\': choose "error" or "exclude"'
    )


def test_bad_models(model, good):
    model.counter = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    assert message(compare, model, good, good, "all") == (
        "layer counter has dtype torch.int8, so it has no gradient: load the model unquantized"
    )
    del model.counter
    model.hf_quantizer = object()
    assert message(compare, model, good, good, "all") == (
        "the model is quantized, so its weights have no gradients: load it unquantized"
    )
    del model.hf_quantizer
    model.counter = nn.Parameter(torch.zeros(2, device="meta"))
    assert message(compare, model, good, good, "all") == (
        "the model is split across cpu, meta: load it on one device (no device_map)"
    )


def spoil(model, token, value):
    """Make every sample that contains a token have this loss."""

    def hook(module, arguments, keywords, output):
        if (keywords["input_ids"] == token).any():
            output.logits = output.logits * value

    model.register_forward_hook(hook, with_kwargs=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite(model, good, make_sample, value):
    spoil(model, 60, value)
    bad = make_sample("bad", [3, 60, 5], [3, 60, 5])
    assert message(compare, model, good, [good[0], bad], "all") == (
        "sample 'bad' has a loss of nan: fix or exclude it (on_bad_sample=\"exclude\")"
    )


class Exploding(torch.autograd.Function):
    """Passes its input on, and infinity back."""

    @staticmethod
    def forward(context, hidden):
        return hidden.clone()

    @staticmethod
    def backward(context, delta):
        return delta * torch.inf


@pytest.mark.parametrize("length", [3, 12])
def test_gradient_that_is_not_finite(model, good, make_sample, length):
    """In the checked first sample (a short one is not it, having few labels), and in a later one."""
    model.model.embed_tokens.register_forward_hook(
        lambda module, arguments, output: Exploding.apply(output) if (arguments[0] == 60).any() else None
    )
    bad = make_sample("bad", [60] * length, [60] * length)
    assert message(compare, model, good, [bad], "all") == (
        "sample 'bad' has a gradient that is not finite in layer model.embed_tokens.weight: "
        'fix or exclude it (on_bad_sample="exclude")'
    )


@pytest.mark.parametrize("bad_length", [3, 12])
def test_bad_samples_can_be_excluded(model, good, make_sample, make_samples, bad_length):
    queries, originals = good, make_samples(3, seed=2)
    expected = compare(model, queries, originals, "all")
    spoil(model, 60, float("nan"))
    nan = make_sample("nan", [60] * bad_length, [60] * bad_length)
    unlabelled = make_sample("unlabelled", [1, 2, 3], [-100] * 3)

    result = compare(
        model,
        [queries[0], nan, *queries[1:], unlabelled],
        [unlabelled, *originals, nan],
        "all",
        on_bad_sample="exclude",
    )

    assert result.bad_queries == [1, 4]
    assert result.bad_originals == [0, 4]
    dots = result.dots.reshape(5, 5, -1)
    kept = dots[np.ix_([0, 2, 3], [1, 2, 3])]
    assert np.isnan(dots[[1, 4]]).all()
    assert np.isnan(dots[:, [0, 4]]).all()
    np.testing.assert_allclose(kept.reshape(9, -1), expected.dots, rtol=1e-4, atol=1e-8)
    assert np.isnan(result.query_self_dots[[1, 4]]).all()
    np.testing.assert_allclose(result.query_self_dots[[0, 2, 3]], expected.query_self_dots, rtol=1e-5)


def test_partners_of_bad_samples_keep_their_self_dots(model, good, make_sample):
    unlabelled = make_sample("unlabelled", [1, 2, 3], [-100] * 3)
    result = compare(model, good[:1], [unlabelled], "all", on_bad_sample="exclude")
    assert np.isfinite(result.query_self_dots).all()
    assert np.isnan(result.dots).all()


def test_everything_bad(model, make_sample):
    unlabelled = make_sample("unlabelled", [1, 2, 3], [-100] * 3)
    result = compare(model, [unlabelled], [unlabelled], "all", on_bad_sample="exclude")
    assert np.isnan(result.dots).all()
    assert (result.bad_queries, result.bad_originals, result.passes) == ([0], [0], 0)


def test_the_check_of_the_rules_fits_the_budget_or_does_not_begin(model, good, make_samples, monkeypatch):
    monkeypatch.setattr("gradsim.gradients.run.probe", lambda *_: pytest.fail("the check began"))
    with pytest.raises(MemoryBudgetError) as error:
        compare(model, good, make_samples(2, seed=2), "all", memory_budget=1000)
    needed = re.fullmatch(
        r"the check of the model's rules needs up to ([\d,]+) bytes, but memory_budget is 1,000: "
        r"set memory_budget to at least (\d+)",
        str(error.value),
    )
    assert needed
    assert int(needed[1].replace(",", "")) == int(needed[2]) > 4 * model.get_input_embeddings().weight.nbytes
