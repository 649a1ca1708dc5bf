"""What is known of a study before it runs: the shapes of its model and the lengths of its originals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradsim import chat, models
from gradsim.dataset.token_estimate import estimated_tokens
from gradsim.errors import ModelError, StudyError
from gradsim.gradients.capture.encoding import Encoded, Limits, encode, model_limits
from gradsim.partition_job.inputs import sequences
from gradsim.study import HubModel, ModelConfiguration, ReferenceModel
from gradsim.tables import State, Store


@dataclass(frozen=True)
class Originals:
    """All originals of a study, the excluded ones left out where it is known which.

    Attributes:
        ids: in dataset order.
        samples: of those ids; with stand-ins' lengths, and no more, where they are not tokenized yet.
        estimated: whether they are stand-ins.
    """

    ids: list[str]
    samples: list[Encoded]
    estimated: bool

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Where each id stands."""
        return {identifier: place for place, identifier in enumerate(self.ids)}


@dataclass(frozen=True)
class Sources:
    """A study, its tables, and how to load what is not stored yet.

    Attributes:
        store: the study's tables.
        load_originals: loads the study's dataset.
    """

    store: Store
    load_originals: Callable[[], pl.DataFrame]

    def fresh(self, table: str, setting: str | None = None, partition: str | None = None) -> bool:
        """Whether a table, or one of its partitions, can be read."""
        return self.store.state(self.store.lineage.key(table, setting), partition) is State.FRESH

    @cached_property
    def model_source(self) -> tuple[str, str | None] | None:
        """Folder or Hub name of the model, and its revision; None for a model that is not trained yet.

        Raises:
            StudyError: the study has no model.
        """
        study, key = self.store.study, self.store.lineage.key("model")
        revision = self.store.provenance(key).revision if self.fresh("model") else None
        match study.model:
            case HubModel(name=name):
                return name, revision or study.model.revision
            case ReferenceModel():
                return (str(self.store.model_folder), revision) if revision else None
            case _:
                raise StudyError(f"study '{study.name}' has no model: its tables were imported, nothing is computed")

    def model_configuration(self, device: str) -> ModelConfiguration:
        """What to load to run the study's model.

        Raises:
            ModelError: it is not trained yet.
        """
        study = self.store.study
        if self.model_source is None:
            raise ModelError(
                f"study '{study.name}': its model is trained in its first run, so there is nothing to measure yet; "
                f"run a partition first: gradsim run {study.name} --partition {study.partitions[0].key}"
            )
        name, revision = self.model_source
        return ModelConfiguration(
            name=name,
            revision=revision,
            device=device,
            precision=study.model.precision,
            attention=study.model.attention,
        )

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model's modules and shapes, without weights.

        Raises:
            ModelError: its configuration cannot be had.
        """
        study = self.store.study
        if self.model_source:
            name = self.model_source[0]
            configuration = models.read_configuration(*self.model_source)
        else:
            assert isinstance(study.model, ReferenceModel)
            name, plan = study.name, study.model.reference
            configuration = models.reference_configuration(
                len(self.tokenizer) if self.tokenizer else plan.vocabulary,
                layers=plan.layers,
                hidden_size=plan.hidden_size,
                heads=plan.heads,
                positions=plan.positions,
            )
        return models.build_without_weights(
            configuration, name, precision=study.model.precision, attention=study.model.attention
        )

    @cached_property
    def limits(self) -> Limits:
        """What the model can read and predict."""
        return model_limits(self.model)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's; None where it is still to be trained.

        Raises:
            ModelError: it cannot be had.
        """
        if self.model_source:
            return models.load_tokenizer(*self.model_source)
        study = self.store.study
        assert isinstance(study.model, ReferenceModel)
        folder = study.model.reference.tokenizer
        return models.load_tokenizer(str(folder)) if folder else None

    @cached_property
    def samples(self) -> pl.DataFrame:
        """All originals, as texts.

        Raises:
            SampleError: the dataset cannot be had.
        """
        if self.fresh("samples"):
            return self.store.read(self.store.lineage.key("samples")).with_columns(pl.col("id").cast(pl.String))
        return self.load_originals()

    @cached_property
    def tokenized(self) -> pl.DataFrame | None:
        """The originals as token ids, read or made; None without a tokenizer.

        Raises:
            SampleError: a sample that the study does not allow.
        """
        if self.fresh("tokenized"):
            return self.store.read(self.store.lineage.key("tokenized"))
        if self.tokenizer is None:
            return None
        study = self.store.study
        return chat.tokenize_table(
            self.samples,
            self.tokenizer,
            context=models.longest_input(self.model),
            rotary_positions=models.has_rotary_positions(self.model.config),
            vocabulary=models.vocabulary_size(self.model),
            on_long_sample=study.on_long_sample,
            on_bad_sample=study.on_bad_sample,
        ).frame

    @cached_property
    def originals(self) -> Originals:
        """The originals' lengths.

        Raises:
            GradsimError: dataset, model or tokenizer cannot be had or used.
        """
        if self.tokenized is not None:
            samples = encoded(self.tokenized, self.limits)
            return Originals([sample.id for sample in samples], samples, estimated=False)
        samples = [_stand_in(identifier, messages) for identifier, messages in self.samples.iter_rows()]
        return Originals([sample.id for sample in samples], samples, estimated=True)


def encoded(tokenized: pl.DataFrame, limits: Limits) -> list[Encoded]:
    """The rows of a `tokenized` table as the engine takes them.

    Raises:
        GradientError: a sample that the model cannot read.
    """
    return [encode(sample, limits) for sample in sequences(tokenized)]


def _stand_in(identifier: str, messages: Sequence[Mapping[str, str]]) -> Encoded:
    """A sample of about the length that these messages will have."""
    prompt = estimated_tokens(chat.render(messages[:-1], "", cue=True))
    labels = estimated_tokens(messages[-1]["content"]) + 1  # the end token
    return blank(identifier, prompt + labels, labels)


def blank(identifier: str, tokens: int, labels: int, token: int = 0) -> Encoded:
    """A sample of one token again and again: only its length, and its last labels, mean anything."""
    positions = np.arange(tokens - labels - 1, tokens - 1)
    return Encoded(identifier, np.full(tokens, token, dtype=np.int64), positions, np.zeros(labels, dtype=np.int64))
