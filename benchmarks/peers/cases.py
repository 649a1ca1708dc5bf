"""Cases of the conformance suite: tiny random models and samples, each with a structure or feature to get right."""

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import SIZES, VOCABULARY, make_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

MASKED = -100
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}


class Sample(NamedTuple):
    """Id, token ids and labels; label -100 is masked."""

    id: str
    input_ids: list[int]
    labels: list[int]


def _samples(kind: str, lengths: Sequence[int]) -> list[Sample]:
    """Return samples of random tokens, many of them repeated; the first third of each is the prompt."""
    numbers = random.Random(kind)
    tokens = [[numbers.randrange(2, VOCABULARY // 4) for _ in range(length)] for length in lengths]
    return [Sample(f"{kind} {len(row)}", row, [MASKED] * (len(row) // 3) + row[len(row) // 3 :]) for row in tokens]


# On each side, gradsim puts two samples of different lengths into one batch.
QUERIES, ORIGINALS = _samples("query", (20, 5, 18)), _samples("original", (7, 20, 19))


@dataclass(frozen=True)
class Case:
    """A model and samples of mixed lengths.

    Attributes:
        name: name in the matrix.
        model_type: model type of transformers.
        settings: values of its configuration.
        queries: samples whose pairs with all originals are compared.
        originals: the other samples.
        has_adapter: whether the layers are those of a LoRA adapter.
        padding: side on which packages that leave padding to their caller get padding.
    """

    name: str
    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    queries: list[Sample] = field(default_factory=lambda: QUERIES)
    originals: list[Sample] = field(default_factory=lambda: ORIGINALS)
    has_adapter: bool = False
    padding: Literal["right", "left"] = "right"

    def base_model(self) -> PreTrainedModel:
        """Return the random model in eval mode, the same at every call, without an adapter."""
        return make_model(self.model_type, **self.settings)

    def model(self) -> PreTrainedModel:
        """Return the model in eval mode; only its layers require a gradient."""
        base = self.base_model()
        if not self.has_adapter:
            return base
        adapted = with_adapter(base).get_base_model()
        assert isinstance(adapted, PreTrainedModel)
        return adapted


def with_adapter(model: PreTrainedModel) -> PeftModel:
    """Return the model with random LoRA weights, the same at every call, in two linear layers of each block."""
    configuration = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about calls in PEFT
        torch.manual_seed(0)
        adapted: PeftModel = get_peft_model(model, configuration).eval()
    return adapted


def _answer_of_one_token(samples: Sequence[Sample]) -> list[Sample]:
    return [sample._replace(labels=[MASKED] * (len(sample.labels) - 1) + sample.labels[-1:]) for sample in samples]


def _with_two_bos(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples after two BOS tokens, which here equal the padding token; the second one has a label."""
    bos = [SIZES["bos_token_id"]] * 2
    return [Sample(sample.id, bos + sample.input_ids, bos + sample.input_ids) for sample in samples]


def _first_without_labels(samples: Sequence[Sample]) -> list[Sample]:
    return [samples[0]._replace(labels=[MASKED] * len(samples[0].labels)), *samples[1:]]


_PLAIN = Case("OLMo, untied head", "olmo", UNTIED)
CASES = (
    Case("OLMo, tied head", "olmo", TIED),
    _PLAIN,
    Case("Qwen 2, biases in q, k and v only", "qwen2", UNTIED),
    Case("GPT-2", "gpt2", TIED),
    Case("Mixtral, fused experts", "mixtral", UNTIED),
    Case("Mistral, window shorter than samples", "mistral", UNTIED),
    Case("Llama with LoRA", "llama", UNTIED, has_adapter=True),
    replace(
        _PLAIN,
        name="OLMo, answers of one token",
        queries=_answer_of_one_token(QUERIES),
        originals=_answer_of_one_token(ORIGINALS),
    ),
    replace(_PLAIN, name="OLMo, one query without labels", queries=_first_without_labels(QUERIES)),
    replace(_PLAIN, name="OLMo, two BOS tokens", queries=_with_two_bos(QUERIES), originals=_with_two_bos(ORIGINALS)),
    replace(_PLAIN, name="OLMo, padding on the left", padding="left"),
)


def structures(model: PreTrainedModel) -> dict[str, str]:
    """Return the structure that each trainable parameter belongs to, by the parameter's name, in model order."""
    return {
        name: _structure(name, parameter, model)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _structure(name: str, parameter: nn.Parameter, model: PreTrainedModel) -> str:
    path, _, tensor = name.rpartition(".")
    owner = model.get_submodule(path)
    kind = "biases" if tensor == "bias" else "weights"
    is_input = parameter is model.get_input_embeddings().weight
    is_output = parameter is model.get_output_embeddings().weight
    descriptions = (
        (is_input and is_output, "tied embedding"),
        (is_input, "embedding"),
        (is_output, "head"),
        ("lora_A" in name, "LoRA A"),
        ("lora_B" in name, "LoRA B"),
        (isinstance(owner, nn.Embedding), "learned positions"),
        (isinstance(owner, nn.Linear), f"linear {kind}"),
        (isinstance(owner, Conv1D), f"Conv1D {kind}"),
        (parameter.ndim == 3, "fused experts"),
        (parameter.ndim == 2, "routers"),
        (True, f"norm {kind}"),
    )
    return next(structure for applies, structure in descriptions if applies)
