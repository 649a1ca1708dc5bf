"""A model that is loaded when it is first needed, and once."""

import re
from functools import cached_property

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradsim.models.fetching import fetch, load_tokenizer
from gradsim.models.loading import load_model, resolve_device
from gradsim.study import ModelConfiguration

# A commit, or a digest of files; other revisions may mean something else tomorrow.
_DIGEST = re.compile(r"[0-9a-f]{40,64}")


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
        return revision if revision and _DIGEST.fullmatch(revision) else fetch(name, revision).revision

    @cached_property
    def device(self) -> str:
        """Where it runs: cpu or cuda:N.

        Raises:
            DeviceError: it is not there.
        """
        return resolve_device(self.configuration.device)
