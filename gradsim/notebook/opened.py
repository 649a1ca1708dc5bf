"""Studies and their settings as notebooks hold them."""

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
from gradsim.errors import GradsimError, StudyError, TableError
from gradsim.notebook.candidates import candidates_of
from gradsim.representation import Summarized, Summary
from gradsim.study import Study, load_study
from gradsim.tables import SCHEMAS, State, Store, TableKey
from gradsim.tables.files import scan_table
from gradsim.tables.overview import model_name, progress

if TYPE_CHECKING:  # importing takes a second, and not every caller plots
    from matplotlib.figure import Figure


class OpenedStudy(Summarized):
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

    def _summary(self) -> Summary:
        study = self.definition
        try:
            state = progress(self.store)
        except GradsimError as error:
            state = f"unknown: {error}"
        facts = {
            "about": study.description,
            "model": model_name(study),
            "samples": f"{study.size:,}",
            "settings": ", ".join(self.settings),
            "state": state,
            "tables in": str(self.store.root / study.name),
            "to use": f'study["{self.settings[0]}"], .tables, .scan(TABLE), .sizes, .transfer()',
        }
        return Summary(f"Study {study.name}", {label: fact for label, fact in facts.items() if fact})


class OpenedSetting(Summarized):
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

    def candidates(self, query_id: str) -> pl.DataFrame:
        """Return everything that is stored about the candidates of one query, in the order of their rank.

        Args:
            query_id: Id of the query, which is that of its source.

        Returns:
            `query_id`, `original_id`, `is_source`, `rank`, `score` of BM25 and `forced`; `similarity` of the full
            gradients; that of each projection, named `PROJECTION-DIMENSION`; the texts `query` and `original`, which
            are null in an imported study; and `contributions`: for each layer a struct of `layer` and `contribution`,
            its dot divided by the norms of both full gradients. Contributions sum to the similarity, but for the
            rounding of imported numbers.
            Explode and unnest them to get a row of each layer.

        Raises:
            StudyError: The study has no such sample, or the query was excluded.
            TableError: A table has not been computed.
        """
        return candidates_of(query_id, self.study.store, self.name, self.scan)

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

    def _summary(self) -> Summary:
        study = self.study.definition
        facts = {
            "method": study.settings[self.name].method,
            **({} if study.imported else {"candidates": f"{study.top_k} of each query"}),
            **self._accuracies(),
            "to use": ".candidates(ID), .questions, .answer(QUESTION), .figure(QUESTION), .scan(TABLE)",
        }
        return Summary(f"Setting {self.name} of study {study.name}", facts)

    def _accuracies(self) -> dict[str, str]:
        """Return the accuracy of each method if it was computed, otherwise how to compute it."""
        store = self.study.store
        key = store.lineage.key("accuracy", self.name, "analysis")
        try:
            if "accuracy" not in self._answers and store.state(key) is not State.FRESH:
                return {"accuracy": f"not computed; {store.remedy(key)}"}
            answer = self.answer("accuracy").filter(group="all")
        except GradsimError as error:
            return {"accuracy": f"unknown: {error}"}
        return {
            f"accuracy of {name}": f"{value:.4f}, 95 % interval {low:.4f} to {high:.4f}"
            for name, value, low, high in answer.select("method", "accuracy", "low", "high").iter_rows()
        }

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
