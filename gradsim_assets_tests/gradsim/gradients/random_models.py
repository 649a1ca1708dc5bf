"""Tiny random models and samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 64


@dataclass(frozen=True)
class Sample:
    id: str
    input_ids: list[int]
    labels: list[int]


def random_model(family: str, **settings: Any) -> PreTrainedModel:
    """A model of a family in float64 and training mode; `settings` are keys of its configuration."""
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **{"vocab_size": VOCABULARY, **special, **settings})
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            # Away from the initial ones and zeros of norms and biases, which would hide mistakes.
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    if hasattr(model, "set_experts_implementation"):
        # The default, grouped products, knows no float64.
        model.set_experts_implementation("eager")
    return model.double()


def random_samples(count: int, seed: int, shortest: int = 3, longest: int = 12) -> list[Sample]:
    """Lengths, tokens (some repeated, some padding) and masks at random; at least one label after the shift."""
    random = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        length = int(random.integers(shortest, longest + 1))
        tokens = random.integers(0, VOCABULARY // 4, length).tolist()
        masked = int(random.integers(0, length - 1))
        samples.append(Sample(f"{seed}_{number}", tokens, [-100] * masked + tokens[masked:]))
    return samples
