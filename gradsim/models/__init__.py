"""Models: fetching and loading them, and the tiny reference model."""

from gradsim.models.fetching import Fetched, fetch, load_tokenizer, read_configuration
from gradsim.models.loading import (
    context_length,
    has_rotary_positions,
    load_model,
    parameter_shapes,
    resolve_device,
)
from gradsim.models.reference import TrainedModel, train_reference_model

__all__ = [
    "Fetched",
    "TrainedModel",
    "context_length",
    "fetch",
    "has_rotary_positions",
    "load_model",
    "load_tokenizer",
    "parameter_shapes",
    "read_configuration",
    "resolve_device",
    "train_reference_model",
]
