"""No call of a model shows in a later one, and the model is left as it was."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel

from gradsim.models.fresh_state import fresh_state

ORIGINAL = 16


def dynamic_model() -> PreTrainedModel:
    configuration = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=ORIGINAL,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
    )
    torch.manual_seed(0)
    model: PreTrainedModel = LlamaForCausalLM(configuration).eval()
    return model


def longrope_model() -> PreTrainedModel:
    configuration = Phi3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4 * ORIGINAL,
        original_max_position_embeddings=ORIGINAL,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0, 1.0, 1.01, 1.02],
            "long_factor": [1.1, 4.0, 16.0, 60.0],
            "factor": 4.0,
            "original_max_position_embeddings": ORIGINAL,
        },
    )
    torch.manual_seed(0)
    model: PreTrainedModel = Phi3ForCausalLM(configuration).eval()
    return model


def described(model: PreTrainedModel) -> dict[str, Any]:
    """Buffers by identity and contents, attributes of the rotary embedding by value."""
    rotary = model.model.rotary_emb
    return {
        "identities": {name: id(buffer) for name, buffer in model.named_buffers()},
        "contents": {name: buffer.tolist() for name, buffer in model.named_buffers()},
        "saved": sorted(model.state_dict()),
        "names": sorted(rotary.__dict__),
        "longest": rotary.max_seq_len_cached,
        "scaling": rotary.attention_scaling,
    }


def logits_of(model: PreTrainedModel, length: int) -> torch.Tensor:
    ids = torch.arange(length)[None] % 64
    logits: torch.Tensor = model(ids, use_cache=False).logits
    return logits


@pytest.fixture(params=[torch.no_grad, torch.inference_mode, torch.enable_grad, nullcontext])
def _mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


@pytest.mark.usefixtures("_mode")
@pytest.mark.parametrize("make", [dynamic_model, longrope_model])
def test_calls_in_either_order_give_the_same_bits(make: Any) -> None:
    model = make()
    before = described(model)
    lengths = [ORIGINAL - 2, ORIGINAL + 9, ORIGINAL, ORIGINAL + 1, ORIGINAL + 30]
    forwards: dict[int, torch.Tensor] = {}
    backwards: dict[int, torch.Tensor] = {}
    with fresh_state(model) as state:
        for logits, order in ((forwards, lengths), (backwards, lengths[::-1])):
            for length in order:
                logits[length] = logits_of(model, length)
                state.restore()
                assert described(model) == before
    assert described(model) == before
    assert all(torch.equal(forwards[length], backwards[length]) for length in lengths)
    # Each is what a new model says.
    assert all(torch.equal(forwards[length], logits_of(make(), length)) for length in lengths)


def test_without_it_the_order_shows() -> None:
    model, alone = dynamic_model(), dynamic_model()
    logits_of(model, ORIGINAL + 30)
    assert not torch.equal(logits_of(model, ORIGINAL + 9), logits_of(alone, ORIGINAL + 9))


def test_model_is_left_as_it_was_after_an_error() -> None:
    model = dynamic_model()
    before = described(model)
    model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), fresh_state(model), torch.inference_mode():
        logits_of(model, ORIGINAL + 9)
    assert described(model) == before


def test_what_the_caller_had_run_before_stays() -> None:
    model = dynamic_model()
    logits_of(model, ORIGINAL + 30)
    before = described(model)
    with fresh_state(model):
        logits_of(model, ORIGINAL - 3)  # resets the frequencies
        assert described(model) != before
    assert described(model) == before


class Counting(nn.Module):
    """Keeps all kinds of state."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.name, self.cached, self.history = 0, "new", None, ["kept"]
        self.plain = torch.zeros(2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.name = f"call {self.calls}"
        self.cached = (x,)  # type: ignore[assignment]
        self.plain += x.detach().sum(0)
        self.mean.add_(1)
        self.register_buffer("added", torch.ones(1), persistent=False)
        self.seen = x
        self.history.append("seen")
        return x * self.mean


@pytest.mark.parametrize("made_in", [torch.no_grad, torch.inference_mode])
def test_every_kind_of_state(made_in: Any) -> None:
    with made_in():
        model = Counting()
        x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    state_dict = {name: value.clone() for name, value in model.state_dict().items()}
    plain, mean = model.plain, model.mean
    with fresh_state(model) as state:
        for _ in range(2):
            with torch.inference_mode():
                model(x)
            state.restore()
            assert (model.calls, model.name, model.cached) == (0, "new", None)
            assert model.plain is plain
            assert model.mean is mean
            assert not plain.any()
            assert not hasattr(model, "added")
            assert not hasattr(model, "seen")
            assert model._non_persistent_buffers_set == set()
            assert list(model.state_dict()) == list(state_dict)
            assert all(torch.equal(value, state_dict[name]) for name, value in model.state_dict().items())
    assert model.history == ["kept", "seen", "seen"]  # a list is not simple


def test_unchanged_buffers_still_serve_backward() -> None:
    class Scaled(nn.Module):
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("scale", torch.tensor([2.0, 3.0]))

        def forward(self) -> torch.Tensor:
            return (self.weight * self.scale).sum()

    model = Scaled()
    with fresh_state(model) as state:
        loss = model()
        state.restore()
        loss.backward()
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [2.0, 3.0]
