"""Forecast the cost of a setting's missing comparisons, in one job or in one job per partition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from gradsim.errors import DeviceError, MemoryBudgetError
from gradsim.forecast.inputs import ForecastInputs, PartitionInputs, partition_inputs
from gradsim.forecast.sources import Sources
from gradsim.gradients.capture.memory import free_bytes
from gradsim.gradients.capture.precision import precision_of
from gradsim.gradients.planning.prediction import Prediction, predict, weight_bytes
from gradsim.gradients.planning.rates import Rates
from gradsim.gradients.projection import Projector
from gradsim.models import studied_layers
from gradsim.partition_job.study_projections import study_projections, study_projectors
from gradsim.study.partitions import Partition
from gradsim.tables.lineage import GRADIENT_TABLES, PROJECTED_TABLES

# Name of the combined forecast of all settings.
TOGETHER = "together"

# Bytes of a stored row, mostly its number, as names compress well; bytes of overhead per file.
_ROW_BYTES = 8
_FILE_BYTES = 4_000


@dataclass(frozen=True)
class Machine:
    """Machine that a study would run on.

    Attributes:
        device: device name, cpu or cuda:N.
        memory_budget: bytes for gradients and passes; None for the free memory next to the model, less a margin.
        rates: measured rates of the device, if known.
    """

    device: str
    memory_budget: int | None = None
    rates: Rates | None = None

    def budget(self, weights: int) -> int:
        """Return the bytes for gradients and passes.

        Args:
            weights: bytes of the model's weights, which are not loaded yet.

        Raises:
            DeviceError: The weights do not fit into the free memory.
        """
        if self.memory_budget is not None:
            return self.memory_budget
        free = free_bytes(torch.device(self.device))
        if weights >= free:
            raise DeviceError(
                f"the model takes {weights:,} bytes, but {self.device} has only {free:,} bytes free; choose another "
                "device (MT_DEVICE) or model, or plan for another machine (GRADSIM_MEMORY_BUDGET=60GiB)"
            )
        return (free - weights) * 9 // 10


@dataclass(frozen=True)
class Rows:
    """Size of the result: rows of the partitions' tables, and approximate bytes on disk with the combined tables."""

    count: int
    nbytes: int


@dataclass(frozen=True)
class SettingForecast:
    """Forecast for the gradients of one setting, or of all settings together.

    Attributes:
        setting: name of the setting.
        partitions: number of partitions.
        missing: keys of the partitions that are not computed yet.
        parts: inputs of the predicted partitions by key: of the missing ones, or of all if none is missing.
        inputs: inputs of the predicted partitions, combined.
        estimated: parts of the inputs that are estimated.
        together: prediction for a single job.
        split: predictions for one job per partition.
        rows: size of the result.
        projected: whether projected dots are computed as well.
    """

    setting: str
    partitions: int
    missing: tuple[str, ...]
    parts: Mapping[str, Sequence[PartitionInputs]]
    inputs: ForecastInputs
    estimated: frozenset[str]
    together: Prediction
    split: tuple[Prediction, ...]
    rows: Rows
    projected: bool

    @property
    def split_passes(self) -> int:
        """Samples run if each partition is a separate job."""
        return sum(prediction.plan.passes for prediction in self.split)

    @property
    def split_operations(self) -> float:
        """Operations if each partition is a separate job."""
        return sum(prediction.plan.cost.operations for prediction in self.split)

    @property
    def split_seconds(self) -> float | None:
        """Seconds if the partitions run one after another as separate jobs; None if rates are unknown."""
        seconds = [prediction.seconds for prediction in self.split if prediction.seconds is not None]
        return sum(seconds) if seconds else None


@dataclass(frozen=True)
class Forecaster:
    """Forecaster of a study's settings on a machine."""

    sources: Sources
    machine: Machine

    def settings(self, settings: Sequence[str]) -> list[SettingForecast]:
        """Return a forecast for each setting, followed by one for all settings together if there are several.

        Settings that run together share the passes of common originals.

        Raises:
            GradsimError: The model, samples or tables are unavailable or invalid, or do not fit the device.
        """
        forecasts = [self._setting(setting) for setting in settings]
        return [*forecasts, self._together(forecasts)] if len(forecasts) > 1 else forecasts

    def _setting(self, setting: str) -> SettingForecast:
        study = self.sources.store.study
        missing = {
            partition.key: tables for partition in study.partitions if (tables := self._missing(setting, partition))
        }
        counted = [partition for partition in study.partitions if partition.key in missing or not missing]
        parts = {partition.key: [partition_inputs(self.sources, setting, partition)] for partition in counted}
        projected = not missing or not set().union(*missing.values()).isdisjoint(PROJECTED_TABLES)
        return self._forecast(setting, len(study.partitions), tuple(missing), parts, projected=projected)

    def _together(self, forecasts: Sequence[SettingForecast]) -> SettingForecast:
        """Return the joint forecast of all incomplete settings, or of all settings if none is incomplete."""
        wanted = [forecast for forecast in forecasts if forecast.missing] or forecasts
        parts: dict[str, list[PartitionInputs]] = {}
        for forecast in wanted:
            for key, inputs in forecast.parts.items():
                parts.setdefault(key, []).extend(inputs)
        partitions = sum(forecast.partitions for forecast in forecasts)
        missing = tuple(key for forecast in forecasts for key in forecast.missing)
        projected = any(forecast.projected for forecast in wanted)
        return self._forecast(TOGETHER, partitions, missing, parts, projected=projected)

    def _forecast(
        self,
        name: str,
        partitions: int,
        missing: tuple[str, ...],
        parts: Mapping[str, Sequence[PartitionInputs]],
        *,
        projected: bool,
    ) -> SettingForecast:
        study, originals = self.sources.store.study, self.sources.originals
        projectors = self.projectors if projected else []
        inputs = [each for part in parts.values() for each in part]
        together = ForecastInputs.of(inputs, originals)
        return SettingForecast(
            setting=name,
            partitions=partitions,
            missing=missing,
            parts=parts,
            inputs=together,
            estimated=frozenset().union(*(each.estimated for each in inputs)),
            together=self.predict(together, projectors),
            split=tuple(self.predict(ForecastInputs.of(part, originals), projectors) for part in parts.values()),
            rows=result_rows(inputs, len(self.layer_shapes), len(study.projections), len(study.projected)),
            projected=projected,
        )

    def predict(self, inputs: ForecastInputs, projectors: Sequence[Projector]) -> Prediction:
        """Return the prediction for one job.

        Raises:
            MemoryBudgetError: The budget is too small for a query and an original.
        """
        definition = self.sources.store.study.model
        try:
            return predict(
                self.sources.model,
                inputs.comparison(),
                device=torch.device(self.machine.device),
                precision=precision_of(definition.precision),
                memory_budget=self._budget,
                layers=self.layer_shapes,
                projectors=projectors,
                rates=self.machine.rates,
                rerun_memorised=definition.precision_of_memorised not in (None, definition.precision),
            )
        except MemoryBudgetError as error:
            raise MemoryBudgetError(
                f"{error} (GRADSIM_MEMORY_BUDGET, which may describe another machine), "
                "or choose another device (MT_DEVICE)"
            ) from error

    @cached_property
    def projectors(self) -> list[Projector]:
        """Projectors of the study.

        Raises:
            StudyError: Two projections are identical for this model.
        """
        study_projections(self.sources.store.study, self.layer_shapes)
        return study_projectors(self.sources.store.study)

    @cached_property
    def layer_shapes(self) -> Mapping[str, Sequence[int]]:
        """Shapes of the layers that the study compares.

        Raises:
            StudyError: The model lacks a layer that the study names.
        """
        layers = studied_layers(self.sources.model, self.sources.store.study.layers)
        return {layer: parameter.shape for layer, parameter in layers.items()}

    @cached_property
    def _budget(self) -> int:
        return self.machine.budget(weight_bytes(self.sources.model))

    def _missing(self, setting: str, partition: Partition) -> list[str]:
        return [table for table in GRADIENT_TABLES if not self.sources.fresh(table, setting, partition.key)]


def result_rows(partitions: Sequence[PartitionInputs], layers: int, projections: int, projectors: int) -> Rows:
    """Return the number and size of the rows that partitions of a setting will have.

    Each partition stores dots and the self dots of its queries and compared originals, exact and for each projector, as
    well as similarities of the full gradient and of each projection. The combined tables repeat all rows, with each
    original only once.
    """
    pairs = sum(len(partition.pairs) for partition in partitions)
    queries = sum(len(partition.queries) for partition in partitions)
    met = [np.unique(partition.pairs[:, 1]) for partition in partitions]
    unique = len(np.unique(np.concatenate(met)))
    dots = layers * (1 + projectors)
    of_pairs_and_queries = pairs * (dots + 1 + projections) + queries * dots
    count = of_pairs_and_queries + sum(map(len, met)) * dots
    combined = of_pairs_and_queries + unique * dots
    files = len(GRADIENT_TABLES) * (len(partitions) + 1)
    return Rows(count, (count + combined) * _ROW_BYTES + files * _FILE_BYTES)
