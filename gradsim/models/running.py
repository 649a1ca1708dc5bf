"""Lazily loaded model with its tokenizer."""

import re
from collections.abc import Callable
from functools import cached_property, partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradsim.models.adapter import fetch_adapter
from gradsim.models.fetching import Fetched, fetch, load_tokenizer
from gradsim.models.loading import load_model, resolve_device
from gradsim.study import ModelConfiguration
from gradsim.study.model_configuration import ADAPTED

# A commit or a file digest; other revisions, such as branches, can change over time.
_DIGEST = re.compile(r"[0-9a-f]{40,64}")


class RunningModel:
    """A model on its device, with its tokenizer; each loads once, on first access.

    Attributes:
        configuration: model to run, with its device, precision and attention implementation.
    """

    def __init__(self, configuration: ModelConfiguration) -> None:
        self.configuration = configuration

    @cached_property
    def model(self) -> PreTrainedModel:
        """Model in eval mode.

        Raises:
            DeviceError: The device is not available.
            ModelError: The model is not available or cannot be loaded.
        """
        return load_model(self.configuration)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Tokenizer of the model.

        Raises:
            ModelError: The tokenizer is not available or cannot be loaded.
        """
        model = self.configuration
        return load_tokenizer(model.name, model.revision, model.chat_template, gguf=model.gguf)

    @cached_property
    def revision(self) -> str:
        """Identity of the weights, independent of their location: commit on the Hub, or digest of a local folder.

        Raises:
            ModelError: The model is not available.
        """
        model = self.configuration
        base = _identity(model.revision, partial(fetch, model.name, model.revision, gguf=model.gguf))
        if model.adapter is None:
            return base
        adapter = _identity(model.adapter_revision, partial(fetch_adapter, model.adapter, model.adapter_revision))
        return base + ADAPTED + adapter

    @cached_property
    def device(self) -> str:
        """Device of the model, cpu or cuda:N.

        Raises:
            DeviceError: The device is not available.
        """
        return resolve_device(self.configuration.device)


def _identity(revision: str | None, fetched: Callable[[], Fetched]) -> str:
    """Return a revision that cannot change: itself, or that of the files."""
    return revision if revision and _DIGEST.fullmatch(revision) else fetched().revision
