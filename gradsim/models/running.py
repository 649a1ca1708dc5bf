"""A model that is loaded when it is first needed, and once."""

from functools import cached_property

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradsim.models.fetching import fetch, load_tokenizer
from gradsim.models.loading import load_model, resolve_device
from gradsim.study import ModelConfiguration


class RunningModel:
    """A model on its device, with its tokenizer.

    Attributes:
        configuration: which model runs, and how.
    """

    def __init__(self, configuration: ModelConfiguration) -> None:
        self.configuration = configuration

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model, in eval mode.

        Raises:
            DeviceError: its device is not there.
            ModelError: it cannot be had or loaded.
        """
        return load_model(self.configuration)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer.

        Raises:
            ModelError: it cannot be had or read.
        """
        return load_tokenizer(self.configuration.name, self.configuration.revision)

    @cached_property
    def revision(self) -> str:
        """What tells its weights from others, wherever they lie.

        Raises:
            ModelError: it cannot be had.
        """
        name, revision = self.configuration.name, self.configuration.revision
        return revision or fetch(name).revision

    @cached_property
    def device(self) -> str:
        """Where it runs: cpu or cuda:N.

        Raises:
            DeviceError: it is not there.
        """
        return resolve_device(self.configuration.device)
