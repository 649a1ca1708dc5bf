"""Access to the tables, analyses and figures of a study from notebooks and scripts."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from gradsim import analysis, plots
from gradsim.analysis import QUESTIONS, Criterion, LayerDots
from gradsim.analysis.questions import DOTS, SIZES
from gradsim.analysis.selection import with_parameters
from gradsim.environment import read_environment
from gradsim.errors import StudyError, TableError
from gradsim.study import Study, load_study
from gradsim.tables import SCHEMAS, State, Store, TableKey
from gradsim.tables.files import scan_table

if TYPE_CHECKING:  # importing takes a second, and not every caller plots
    from matplotlib.figure import Figure


class OpenedStudy:
    """Stored tables of a study. Nothing that requires the model is ever computed.

    Attributes:
        store: Tables with their provenance.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._settings: dict[str, OpenedSetting] = {}

    @property
    def definition(self) -> Study:
        """Definition of the study."""
        return self.store.study

    @property
    def settings(self) -> list[str]:
        """Names of the settings."""
        return list(self.definition.settings)

    def __getitem__(self, setting: str) -> "OpenedSetting":
        """Return a setting by name; hyphens and underscores are equivalent.

        Raises:
            StudyError: The study has no such setting.
        """
        name = setting.replace("-", "_")
        if name not in self.definition.settings:
            raise StudyError(
                f"study '{self.definition.name}' has no setting '{setting}'; it has: {', '.join(self.settings)}"
            )
        return self._settings.setdefault(name, OpenedSetting(self, name))

    @property
    def tables(self) -> pl.DataFrame:
        """Frame of all tables of the study: `table`, `setting`, `room`, `description`, `state` and `path`."""
        store = self.store
        rows = [
            (
                key.name,
                key.setting,
                key.room,
                SCHEMAS[key.name].description if key.name in SCHEMAS else "all findings of the study on one page",
                _state(store, key),
                str(store.path(key)),
            )
            for key in store.lineage.nodes
        ]
        return pl.DataFrame(rows, schema=["table", "setting", "room", "description", "state", "path"], orient="row")

    def scan(self, table: str) -> pl.LazyFrame:
        """Scan a table of the study itself, such as `samples` or `parameters_per_layer`.

        Raises:
            TableError: The table does not exist or has not been computed.
        """
        return _scan(self.store, table, None)

    @cached_property
    def sizes(self) -> pl.DataFrame:
        """Component, block and size of each layer: the stored table if it is fresh, otherwise computed on access.

        Raises:
            TableError: The table `model` has not been computed.
        """
        key = self.store.lineage.key(SIZES, room="analysis")
        if self.store.state(key) is State.FRESH:
            return self.store.read(key)
        return analysis.parameters_per_layer(self.scan(self.store.lineage.layers_key.name).collect())

    def transfer(self) -> pl.DataFrame:
        """Evaluate the layer selections of every setting on every other setting."""
        return selection_transfer({name: self[name] for name in self.settings})


class OpenedSetting:
    """Tables and analyses of one setting.

    Attributes:
        study: Study that contains the setting.
        name: Name of the setting.
    """

    def __init__(self, study: OpenedStudy, name: str) -> None:
        self.study = study
        self.name = name
        self._answers: dict[str, pl.DataFrame] = {}

    def scan(self, table: str) -> pl.LazyFrame:
        """Scan an analysis or a table of results, concatenating the partitions of a table that is not combined.

        Raises:
            TableError: The table does not exist or has not been computed.
        """
        return _scan(self.study.store, table, self.name)

    @cached_property
    def layer_dots(self) -> LayerDots:
        """Inner products of every pair and layer as arrays; they yield the similarity for any selection of layers."""
        return LayerDots.from_tables(*(self.scan(name).collect() for name in DOTS))

    @property
    def questions(self) -> pl.DataFrame:
        """Frame of the questions that `answer` accepts: `question`, `description`."""
        return pl.DataFrame(
            [(name, question.description) for name, question in QUESTIONS.items()],
            schema=["question", "description"],
            orient="row",
        )

    def answer(self, question: str) -> pl.DataFrame:
        """Return the analysis of the given name: the stored table if it is fresh, otherwise computed now.

        Warns if an input table is not fresh.

        Raises:
            StudyError: There is no such question.
            TableError: An input table has not been computed.
        """
        if question not in QUESTIONS:
            raise StudyError(f"no question '{question}'; there are: {', '.join(QUESTIONS)}")
        if question not in self._answers:
            store = self.study.store
            key = store.lineage.key(question, self.name, "analysis")
            if store.state(key) is State.FRESH:
                self._answers[question] = store.read(key)
            else:
                seed = self.study.definition.seed
                self._answers[question] = QUESTIONS[question].answer(self._inputs(question), seed)
        return self._answers[question]

    def figure(self, question: str) -> "Figure | None":
        """Return the figure of an analysis, or None if there is nothing to draw.

        Raises:
            StudyError: There is no such question.
            TableError: An input table has not been computed.
        """
        answer = self.answer(question)
        return plots.figure_of(question, {**self._inputs(question), question: answer}, self.name)

    def value_of(self, layers: Sequence[str], criterion: Criterion | str) -> pl.DataFrame:
        """Evaluate a sequence of layers on this setting: the first layer, the first two, and so on.

        Args:
            layers: Names of the layers in the order of their selection, from any setting.
            criterion: `accuracy`, or `similarity` to the full gradient.

        Raises:
            StudyError: The criterion is unknown.
            TableError: The model has no such layer, or `layers` is empty.
        """
        if criterion not in set(Criterion):
            raise StudyError(f"no criterion '{criterion}'; there are: {', '.join(Criterion)}")
        seed = self.study.definition.seed
        value = analysis.value_of_selection(self.layer_dots, layers, Criterion(criterion), seed=seed)
        return with_parameters(value, self.layer_dots.every_layer, self.study.sizes)

    def _inputs(self, question: str) -> Mapping[str, pl.DataFrame]:
        inputs = self.study.store.lineage.analysis_inputs(question, self.name)
        return {name: self._input(name, key) for name, key in inputs.items()}

    def _input(self, name: str, key: TableKey) -> pl.DataFrame:
        if name in QUESTIONS:
            return self.answer(name)
        if name == SIZES:
            return self.study.sizes
        if self.study.store.state(key) is not State.FRESH:
            # If only combined tables were copied here, none of them is fresh.
            warnings.warn(f"{key} is stale, or its inputs are missing", stacklevel=4)
        return self.study.store.read(key)


def open_study(name: str) -> OpenedStudy:
    """Open the stored tables of a study, computed or imported, in the data root `GRADSIM_DATA`.

    Args:
        name: Name of the study, as in `gradsim run`.

    Raises:
        StudyError: There is no such study.
    """
    environment = read_environment()
    return OpenedStudy(Store(environment.data_root, load_study(name, environment)))


def selection_transfer(settings: Mapping[str, OpenedSetting]) -> pl.DataFrame:
    """Evaluate the layer selections of every setting on every other setting.

    The settings may belong to different studies if their models have the same layers. The first setting provides the
    seed.

    Args:
        settings: Settings by the name to use in the result.

    Raises:
        TableError: A model lacks a layer of another.
    """
    return analysis.selection_transfer(
        {name: setting.layer_dots for name, setting in settings.items()},
        {
            name: {criterion: setting.answer(f"greedy_by_{criterion}") for criterion in Criterion}
            for name, setting in settings.items()
        },
        {name: setting.answer("held_out_selection") for name, setting in settings.items()},
        seed=next(iter(settings.values())).study.definition.seed,
    )


def _state(store: Store, key: TableKey) -> str:
    """Return the common state of all partitions, or "in part" if they differ."""
    states = {str(store.state(key, partition)) for partition in store.partitions(key)}
    return states.pop() if len(states) == 1 else "in part"


def _scan(store: Store, table: str, setting: str | None) -> pl.LazyFrame:
    rooms = ("analysis", "results", None)
    keys = [key for room in rooms if (key := store.lineage.key(table, setting, room)) in store.lineage]
    if not keys or table == "report":
        where = f"setting '{setting}'" if setting else f"study '{store.study.name}'"
        raise TableError(f"{where} has no table '{table}'; see `.tables` of the study")
    present = [key for key in keys if all(store.path(key, each).exists() for each in store.partitions(key))]
    key = (present or keys)[0]
    return pl.concat([scan_table(path) for path in store.paths(key)])
