"""Load what is known about a study before it runs: its model's shapes and its originals' lengths."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradsim import chat, models
from gradsim.dataset.token_estimate import estimated_tokens
from gradsim.dataset.turns import kind_of
from gradsim.errors import ModelError, StudyError
from gradsim.gradients.capture.encoding import Encoded, Limits, encode, model_limits
from gradsim.partition_job.inputs import sequences
from gradsim.study import HubModel, ModelConfiguration, ReferenceModel
from gradsim.tables import State, Store


@dataclass(frozen=True)
class Originals:
    """Originals of a study, without excluded ones if the exclusions are known.

    Attributes:
        ids: ids of the originals, in dataset order.
        samples: encoded originals; placeholders with estimated lengths if they are not tokenized yet.
        estimated: whether `samples` are placeholders.
    """

    ids: list[str]
    samples: list[Encoded]
    estimated: bool

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Position of each id."""
        return {identifier: place for place, identifier in enumerate(self.ids)}


@dataclass(frozen=True)
class Sources:
    """Sources of a study's data: its tables, and a loader for what is not stored yet.

    Attributes:
        store: tables of the study.
        load_originals: function that loads the study's dataset.
    """

    store: Store
    load_originals: Callable[[], pl.DataFrame]

    def fresh(self, table: str, setting: str | None = None, partition: str | None = None) -> bool:
        """Return whether a table, or one of its partitions, is fresh."""
        return self.store.state(self.store.lineage.key(table, setting), partition) is State.FRESH

    @cached_property
    def model_configuration(self) -> ModelConfiguration | None:
        """The study's model, at its recorded revision if there is one; None if the model is not trained yet.

        Raises:
            StudyError: The study has no model.
        """
        study = self.store.study
        if study.imported:
            raise StudyError(
                f"study '{study.name}' has no model: its tables were imported, so there is nothing to compute"
            )
        if self.fresh("model"):
            return self.store.model_configuration()
        return None if study.model.training else self._start

    @property
    def _start(self) -> ModelConfiguration | None:
        """The pretrained model that the study starts from, at the revision of its definition; None: there is none."""
        study = self.store.study
        return study.start_configuration() if isinstance(study.model, HubModel) else None

    def loadable_model(self, device: str) -> ModelConfiguration:
        """Return the configuration to load the study's model with, on a device.

        Raises:
            ModelError: The model is not trained yet.
        """
        study = self.store.study
        if self.model_configuration is None:
            raise ModelError(
                f"study '{study.name}': the first run trains its model, so there is nothing to measure yet; "
                f"run a partition first: gradsim run {study.name} --partition {study.partitions[0].key}"
            )
        return replace(self.model_configuration, device=device)

    @cached_property
    def model(self) -> PreTrainedModel:
        """Modules and shapes of the model, without weights.

        Raises:
            ModelError: The model's configuration cannot be loaded.
        """
        study = self.store.study
        if source := self.model_configuration:
            return models.load_description(source)
        if start := self._start:
            assert isinstance(study.model, HubModel)
            assert study.model.finetune
            return models.describe_untrained(start, study.model.finetune)
        assert isinstance(study.model, ReferenceModel)
        plan = study.model.reference
        configuration = models.reference_configuration(
            len(self.tokenizer) if self.tokenizer else plan.vocabulary,
            layers=plan.layers,
            hidden_size=plan.hidden_size,
            heads=plan.heads,
            positions=plan.positions,
        )
        return models.build_without_weights(
            configuration, study.name, precision=study.model.precision, attention=study.model.attention
        )

    @cached_property
    def limits(self) -> Limits:
        """Limits of the model's inputs and predictions."""
        return model_limits(self.model)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Tokenizer of the model; None if it is still to be trained.

        Raises:
            ModelError: The tokenizer cannot be loaded.
        """
        if source := self.model_configuration or self._start:
            return models.RunningModel(source).tokenizer
        study = self.store.study
        assert isinstance(study.model, ReferenceModel)
        folder = study.model.reference.tokenizer
        return models.load_tokenizer(str(folder)) if folder else None

    @cached_property
    def samples(self) -> pl.DataFrame:
        """Dataset of all originals, as text.

        Raises:
            SampleError: The dataset cannot be loaded.
        """
        if self.fresh("samples"):
            return self.store.read(self.store.lineage.key("samples"))
        return self.load_originals()

    @cached_property
    def tokenized(self) -> pl.DataFrame | None:
        """Token ids of the originals, read or computed; None without a tokenizer.

        Raises:
            SampleError: The study does not allow a sample.
        """
        if self.fresh("tokenized"):
            return self.store.read(self.store.lineage.key("tokenized"))
        if self.tokenizer is None:
            return None
        return models.tokenize_for_study(self.samples, self.store.study, self.tokenizer, self.model).frame

    @cached_property
    def originals(self) -> Originals:
        """Originals with their lengths, estimated if there is no tokenizer.

        Raises:
            GradsimError: The dataset, model or tokenizer is unavailable or invalid.
        """
        if self.tokenized is not None:
            samples = encoded(self.tokenized, self.limits)
            return Originals([sample.id for sample in samples], samples, estimated=False)
        samples = [_stand_in(identifier, messages) for identifier, messages in self.samples.iter_rows()]
        return Originals([sample.id for sample in samples], samples, estimated=True)


def encoded(tokenized: pl.DataFrame, limits: Limits) -> list[Encoded]:
    """Return the rows of a `tokenized` table as encoded samples.

    Raises:
        GradientError: The model cannot read a sample.
    """
    return [encode(sample, limits) for sample in sequences(tokenized)]


def _stand_in(identifier: str, messages: Sequence[Mapping[str, str]]) -> Encoded:
    """Return a placeholder with about the length of these messages."""
    if kind_of(messages) == "text":
        tokens = max(2, estimated_tokens(messages[0]["content"]))
        return blank(identifier, tokens, tokens - 1)
    prompt = estimated_tokens(chat.render(messages[:-1], "", cue=True))
    labels = estimated_tokens(messages[-1]["content"]) + 1  # the end token
    return blank(identifier, prompt + labels, labels)


def blank(identifier: str, tokens: int, labels: int, token: int = 0) -> Encoded:
    """Return a placeholder sample that repeats one token; only its length and number of labels are meaningful."""
    positions = np.arange(tokens - labels - 1, tokens - 1)
    return Encoded(identifier, np.full(tokens, token, dtype=np.int64), positions, np.zeros(labels, dtype=np.int64))
