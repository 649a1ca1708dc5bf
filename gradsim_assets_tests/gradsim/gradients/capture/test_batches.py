"""Batches, checkpointing and short formats: what runs faster or smaller, and changes no sample's numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from gradsim.gradients import compare
from gradsim.gradients.capture.batch import Batch
from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import probe
from gradsim.gradients.capture.checkpoint import checkpointed_blocks
from gradsim.gradients.capture.encoding import MASKED, encode, model_limits
from gradsim.gradients.rules.terms import Outer, Term, gradient


def encoded(model, samples):
    limits = model_limits(model)
    return [encode(sample, limits) for sample in samples]


def captured(model, samples, **keywords):
    """Gradients by (member, layer)."""
    terms: dict[tuple[int, int], list[Term]] = {}
    with GradientCapture(model) as capture:
        losses = capture.run(
            encoded(model, samples),
            lambda layer, member, term: terms.setdefault((member, layer), []).append(term),
            **keywords,
        )
    return losses, {place: gradient(found) for place, found in terms.items()}


SEPARABLE = [
    "olmo, tied",
    "llama, tied, all biases",
    "qwen3, norms of heads",
    "gpt2, tied",
    "gpt_neox, biases",
]


@pytest.mark.parametrize("kind", SEPARABLE)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_batch_gives_each_sample_its_own_gradient(make_model, make_samples, kind, checkpoint):
    model = make_model(kind)
    samples = make_samples(5, seed=3, shortest=3, longest=20)
    losses, together = captured(model, samples, checkpoint=checkpoint)
    for member, sample in enumerate(samples):
        loss, alone = captured(model, [sample])
        assert losses[member] == pytest.approx(loss[0], rel=1e-12)
        found = {layer: values for (m, layer), values in together.items() if m == member}
        assert found.keys() == {layer for _, layer in alone}
        for layer, values in found.items():
            torch.testing.assert_close(values, alone[0, layer], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", SEPARABLE)
def test_the_check_finds_that_samples_can_run_together(make_model, make_samples, kind):
    model = make_model(kind, torch.float32)
    assert probe(model, encoded(model, make_samples(3, 1))).separable


def test_models_that_mix_samples_run_one_at_a_time(make_model, make_samples, oracle):
    """A head whose rows depend on other samples of the batch: no error, and exact all the same."""
    model = make_model("llama, untied")
    model.model.norm.register_forward_hook(
        lambda module, arguments, output: output - output.mean(dim=0) * (len(output) > 1)
    )
    queries, originals = make_samples(3, 1), make_samples(3, 2)
    assert not probe(model, encoded(model, queries)).separable
    result = compare(model, queries, originals, "all", precision="float64")
    assert result.plan.cost.batches == result.passes == 6
    expected = oracle(model, queries, originals)
    assert (np.abs(result.dots.reshape(expected.dots.shape) - expected.dots) <= 1e-10 * expected.scale).all()


def test_losses_are_means_over_each_sample_s_labels(make_model, make_samples):
    model = make_model()
    samples = encoded(model, make_samples(4, seed=5))
    batch = Batch.of(samples, torch.device("cpu"))
    scored = batch.scored(model(input_ids=batch.tokens).logits)
    losses, gradient = batch.losses_and_gradient(scored, torch.float64)
    expected = []
    for row, sample in zip(scored, samples, strict=True):
        labels = sample.positions - (batch.shape[1] - batch.kept)
        expected.append(nn.functional.cross_entropy(row[labels], torch.from_numpy(sample.targets)))
    assert losses.tolist() == pytest.approx([float(loss.detach()) for loss in expected], rel=1e-12)
    (by_autograd,) = torch.autograd.grad(torch.stack(expected).sum(), scored)
    torch.testing.assert_close(gradient, by_autograd, rtol=1e-12, atol=1e-15)


def test_a_large_vocabulary_does_not_scale_the_gradient(make_model, make_samples):
    """Where one logit dominates, torch.log_softmax is off by 1.5e-5 in float32 on a CPU, in one direction."""
    (sample,) = encoded(make_model(), make_samples(1, seed=5))
    batch = Batch.of([sample], torch.device("cpu"))
    logits = torch.randn(1, batch.kept, 50_000, generator=torch.Generator().manual_seed(0))
    logits[..., 7] += 20
    loss, gradient = batch.losses_and_gradient(logits, torch.float32)
    exact_loss, exact = batch.losses_and_gradient(logits.double(), torch.float64)
    assert loss.tolist() == pytest.approx(exact_loss.tolist(), rel=1e-6)
    assert float(gradient.double().norm() / exact.norm()) == pytest.approx(1, abs=2e-7)
    assert float((gradient - exact).norm() / exact.norm()) < 1e-6


def test_an_impossible_label_has_an_infinite_loss_and_a_masked_one_none(make_model, make_samples):
    """Logits of minus infinity, as models give for ids that are no tokens."""
    (sample,) = encoded(make_model(), make_samples(1, seed=5))
    batch = Batch.of([sample], torch.device("cpu"))
    logits = torch.zeros(1, batch.kept, 600)
    logits[0, (batch.targets[0] == MASKED).nonzero().squeeze(1), 0] = -torch.inf
    losses, gradient = batch.losses_and_gradient(logits, torch.float32)
    assert float(losses[0]) == pytest.approx(np.log(600), rel=1e-2)
    assert not gradient[batch.targets == MASKED].any()
    place = int((batch.targets[0] != MASKED).nonzero()[-1])
    logits[0, place, batch.targets[0, place]] = -torch.inf
    losses, _ = batch.losses_and_gradient(logits, torch.float32)
    assert losses.tolist() == [torch.inf]


def test_a_prompt_is_left_out_behind_the_last_attention(make_model, make_sample):
    """Nothing that a prompt's positions compute there reaches the loss; in all other places it does."""
    model = make_model("llama, untied")
    prompt, lengths = 8, (20, 24)
    samples = [
        make_sample(str(length), list(range(length)), [MASKED] * prompt + list(range(prompt, length)))
        for length in lengths
    ]
    rows: dict[tuple[int, str], int] = {}

    def take(layer, member, term):
        if isinstance(term, Outer):
            rows[member, capture.layers[layer]] = len(term.rows)

    with GradientCapture(model) as capture:
        capture.run(encoded(model, samples), take)
    for member, length in enumerate(lengths):
        scored = length - (prompt - 1)  # a position predicts the next one's label
        assert rows[member, "model.layers.1.mlp.down_proj.weight"] == scored
        assert rows[member, "model.layers.1.self_attn.o_proj.weight"] == scored
        assert rows[member, "model.layers.1.self_attn.k_proj.weight"] == length
        assert rows[member, "model.layers.0.mlp.down_proj.weight"] == length


def test_checkpointed_blocks_run_twice_and_come_back_as_they_were(make_model, make_samples):
    model = make_model("llama, untied")
    block = model.model.layers[0]
    runs: list[None] = []
    block.mlp.register_forward_hook(lambda *_: runs.append(None))
    captured(model, make_samples(1, 1), checkpoint=True)
    assert len(runs) == 2
    assert "forward" not in vars(block)
    with checkpointed_blocks(model, enabled=True):
        assert "forward" in vars(block)
    assert "forward" not in vars(block)


def test_short_memory_checkpoints_long_samples(make_model, make_samples, oracle):
    model = make_model("llama, untied", torch.float32)
    queries, originals = make_samples(2, 1, 400, 500), make_samples(2, 2, 400, 500)
    longest = max(len(sample.input_ids) for sample in queries + originals)
    assert not compare(model, queries, originals, "all").plan.checkpoint
    scarce = probe(model, encoded(model, queries)).profile.nbytes(1, longest)
    result = compare(model, queries, originals, "all", memory_budget=scarce)
    assert result.plan.checkpoint
    assert result.plan.working_bytes + result.peak_bytes <= scarce
    expected = oracle(model, queries, originals)
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-5 * expected.scale).all()


@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", 3e-2), ("bfloat16", 1e-1)])
def test_short_formats_are_near(make_model, make_samples, oracle, precision, tolerance):
    model = make_model(dtype=torch.float32)
    queries, originals = make_samples(3, 1), make_samples(3, 2)
    result = compare(model, queries, originals, "all", precision=precision)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = oracle(model, queries, originals)
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= tolerance * expected.scale).all()
    if precision == "bfloat16":
        assert (error > 1e-5 * expected.scale).any()


class RunsOut:
    """Raises at some of the backward passes as a device does whose memory is gone."""

    def __init__(self, monkeypatch, at, error):
        self.passes = 0
        run = GradientCapture.run

        def failing(capture, samples, take, *, checkpoint=False):
            if take.__qualname__.startswith("ComparisonTiles"):
                self.passes += 1
                if self.passes in at:
                    raise error
            return run(capture, samples, take, checkpoint=checkpoint)

        monkeypatch.setattr(GradientCapture, "run", failing)


@pytest.mark.parametrize("at", [{1}, {2}, {3}, {2, 4}])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_goes_on_with_half(make_model, make_samples, monkeypatch, at, error):
    model = make_model(dtype=torch.float32)
    queries, originals = make_samples(6, 1, 5, 40), make_samples(6, 2, 5, 40)
    expected = compare(model, queries, originals, "all", memory_budget=10**8)
    RunsOut(monkeypatch, at, error)
    result = compare(model, queries, originals, "all", memory_budget=10**8)
    assert result.memory_retries == len(at)
    assert expected.memory_retries == 0
    scale = np.sqrt(expected.query_self_dots[:, None] * expected.original_self_dots[None]).reshape(36, -1)
    assert (np.abs(result.dots - expected.dots) <= 1e-5 * scale).all()
    assert np.isfinite(result.query_self_dots).all()
    assert np.isfinite(result.original_self_dots).all()


def test_out_of_memory_for_good_says_what_would_do(make_model, make_samples, monkeypatch):
    from gradsim.errors import GradientError

    model = make_model(dtype=torch.float32)
    samples = make_samples(2, 1)
    RunsOut(monkeypatch, set(range(100)), torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(GradientError, match="set memory_budget to at least"):
        compare(model, samples, samples, "all")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_other_errors_are_not_taken_for_want_of_memory(make_model, make_samples, monkeypatch):
    model = make_model(dtype=torch.float32)
    RunsOut(monkeypatch, {1}, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        compare(model, make_samples(2, 1), make_samples(2, 2), "all")


def test_a_pass_that_broke_off_leaves_nothing_for_the_next(make_model, make_samples):
    """Autograd adds to what it finds: the gradients of layers without a rule must not be those of two passes."""
    model = make_model("mamba, convolutions and states")
    [sample] = make_samples(1, seed=7)
    _, expected = captured(model, [sample])

    taken = []

    def breaks_at_the_embedding(layer, member, term):
        taken.append(layer)
        if taken.count(0) == 2:  # tied: the head's term comes first, the embedding's last
            raise torch.OutOfMemoryError("CUDA out of memory")

    terms: dict[int, list[Term]] = {}
    with GradientCapture(model) as capture:
        assert capture.without_rule
        with pytest.raises(torch.OutOfMemoryError):
            capture.run(encoded(model, [sample]), breaks_at_the_embedding)
        capture.run(encoded(model, [sample]), lambda layer, member, term: terms.setdefault(layer, []).append(term))
    for (_, layer), values in expected.items():
        torch.testing.assert_close(gradient(terms[layer]), values, rtol=1e-12, atol=1e-12)
