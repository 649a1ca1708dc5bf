"""A study as notebooks and scripts see it: lazy frames of its tables, its answers, its figures."""

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

if TYPE_CHECKING:  # takes a second to load, and not everybody draws
    from matplotlib.figure import Figure


class OpenedStudy:
    """The stored tables of one study; nothing is computed that needs its model.

    Attributes:
        store: the tables, with their provenance.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._settings: dict[str, OpenedSetting] = {}

    @property
    def definition(self) -> Study:
        """What defines the study."""
        return self.store.study

    @property
    def settings(self) -> list[str]:
        """Names of the settings."""
        return list(self.definition.settings)

    def __getitem__(self, setting: str) -> "OpenedSetting":
        """A setting by its name.

        Raises:
            StudyError: the study has no such setting.
        """
        name = setting.replace("-", "_")
        if name not in self.definition.settings:
            raise StudyError(
                f"study '{self.definition.name}' has no setting '{setting}'; it has: {', '.join(self.settings)}"
            )
        return self._settings.setdefault(name, OpenedSetting(self, name))

    @property
    def tables(self) -> pl.DataFrame:
        """`table`, `setting`, `room` (`results`, `analysis`), `description`, `state` and `path` of all there may be."""
        store = self.store
        rows = [
            (
                key.name,
                key.setting,
                key.room,
                SCHEMAS[key.name].description if key.name in SCHEMAS else "everything the study found, in one page",
                _state(store, key),
                str(store.path(key)),
            )
            for key in store.lineage.nodes
        ]
        return pl.DataFrame(rows, schema=["table", "setting", "room", "description", "state", "path"], orient="row")

    def scan(self, table: str) -> pl.LazyFrame:
        """A table of the study itself, such as `samples` or `parameters_per_layer`.

        Raises:
            TableError: it was not computed.
        """
        return _scan(self.store, table, None)

    @cached_property
    def sizes(self) -> pl.DataFrame:
        """Component, block and size of each layer: as stored where it is fresh, otherwise computed now.

        Raises:
            TableError: the model's layers are not known yet.
        """
        key = self.store.lineage.key(SIZES, room="analysis")
        if self.store.state(key) is State.FRESH:
            return self.store.read(key)
        return analysis.parameters_per_layer(self.scan("model").collect())

    def transfer(self) -> pl.DataFrame:
        """Every setting's selections of layers in every other."""
        return selection_transfer({name: self[name] for name in self.settings})


class OpenedSetting:
    """The tables of one setting, and what can be asked of them.

    Attributes:
        study: the study.
        name: of the setting.
    """

    def __init__(self, study: OpenedStudy, name: str) -> None:
        self.study = study
        self.name = name
        self._answers: dict[str, pl.DataFrame] = {}

    def scan(self, table: str) -> pl.LazyFrame:
        """An analysis, a combined table, or all partitions of one that is not combined.

        Raises:
            TableError: it was not computed.
        """
        return _scan(self.study.store, table, self.name)

    @cached_property
    def layer_dots(self) -> LayerDots:
        """Dots of every pair and layer as arrays, from which any selection's similarity can be had."""
        return LayerDots.from_tables(*(self.scan(name).collect() for name in DOTS))

    @property
    def questions(self) -> pl.DataFrame:
        """`question` and `description` of what `answer` can answer."""
        return pl.DataFrame(
            [(name, question.description) for name, question in QUESTIONS.items()],
            schema=["question", "description"],
            orient="row",
        )

    def answer(self, question: str) -> pl.DataFrame:
        """The analysis of that name: as stored where it is fresh, otherwise computed now.

        Warns where it is computed from tables that are not fresh.

        Raises:
            StudyError: there is no such question.
            TableError: a table that it is answered from was not computed.
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
        """The picture of an answer; None where there is nothing to draw.

        Raises:
            StudyError: there is no such question.
            TableError: a table that it is answered from was not computed.
        """
        answer = self.answer(question)
        return plots.figure_of(question, {**self._inputs(question), question: answer}, self.name)

    def value_of(self, layers: Sequence[str], criterion: Criterion | str) -> pl.DataFrame:
        """What the first, the first two, ... of these layers are worth here, wherever they were selected.

        Args:
            layers: names, in the order of the selection.
            criterion: `accuracy`, or `similarity` to the full gradient.

        Raises:
            StudyError: another criterion.
            TableError: this setting's model has no such layer, or none is named.
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
            # Where only combined tables were brought here, all of them are so.
            warnings.warn(f"{key} is older than what it was made from, or that is not here", stacklevel=4)
        return self.study.store.read(key)


def open_study(name: str) -> OpenedStudy:
    """The stored tables of a study, computed or imported.

    Args:
        name: as `gradsim run` takes it; the data root is `GRADSIM_DATA`'s.

    Raises:
        StudyError: there is no such study.
    """
    environment = read_environment()
    return OpenedStudy(Store(environment.data_root, load_study(name, environment)))


def selection_transfer(settings: Mapping[str, OpenedSetting]) -> pl.DataFrame:
    """Every setting's selections in every other, also between studies whose models have the same layers.

    Args:
        settings: what to call each -> the setting; the seed is the first one's.

    Raises:
        TableError: a model lacks another's layers.
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
    """Of all partitions, if they agree."""
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
    return pl.concat([scan_table(path) for path in store.checked_paths(key)])
