"""Models: fetching and loading them, and the tiny reference model."""

from gradsim.context import context_length, has_rotary_positions, longest_input, vocabulary_size
from gradsim.models.fetching import Fetched, fetch, load_tokenizer, read_configuration
from gradsim.models.loading import (
    build_without_weights,
    load_model,
    parameter_shapes,
    resolve_device,
)
from gradsim.models.reference import TrainedModel, reference_configuration, train_reference_model
from gradsim.models.running import RunningModel

__all__ = [
    "Fetched",
    "RunningModel",
    "TrainedModel",
    "build_without_weights",
    "context_length",
    "fetch",
    "has_rotary_positions",
    "load_model",
    "load_tokenizer",
    "longest_input",
    "parameter_shapes",
    "read_configuration",
    "reference_configuration",
    "resolve_device",
    "train_reference_model",
    "vocabulary_size",
]
