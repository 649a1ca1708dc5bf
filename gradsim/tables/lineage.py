"""Lineage of a study's tables: their inputs, parameters and fingerprints."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gradsim.analysis.questions import DOTS, QUESTIONS, SIZES, TOKENS
from gradsim.study import Chat, FileDataset, HubDataset, HubModel, ReferenceModel, Study
from gradsim.study.named_files import content_digest, named_file
from gradsim.study.settings import QueryMethod
from gradsim.tables.keys import TableKey

# Increment when a table's rows or columns change for the same definition and inputs; stored tables become stale.
CODE_VERSIONS: Mapping[str, int] = {
    "accuracy_per_layer": 2,
    "projection_audit": 2,
    "query_self": 2,  # loss, noise
    "original_self": 2,
}

PROJECTED_DOT_TABLES = ("projected_dots", "projected_query_self", "projected_original_self")
PROJECTED_TABLES = ("projected_similarity", *PROJECTED_DOT_TABLES)
GRADIENT_TABLES = ("dot_products", "query_self", "original_self", "gradient_similarity", *PROJECTED_TABLES)
COMBINED_TABLES = ("candidates", *GRADIENT_TABLES)
DOT_TABLES = DOTS

# The layers of the studied model; a partition job makes it if the study trains the model.
MODEL = "model"

# The originals' projected gradients.
INDEX = "gradient_index"

# The only analysis that runs the model, hence in a partition job.
AUDIT = "gradient_audit"

# Analysis of a setting -> its inputs: combined tables of the setting, other analyses, and the tables that
# `analysis_inputs` maps to other keys.
ANALYSES: Mapping[str, tuple[str, ...]] = {
    **{name: question.inputs for name, question in QUESTIONS.items()},
    AUDIT: (*DOT_TABLES, "original_tokens", "query_tokens", "model"),
}

# Analyses that use the study's seed.
SEEDED = frozenset({*(name for name, question in QUESTIONS.items() if question.draws), AUDIT})

# The analysis of all settings together.
TRANSFER = "selection_transfer"

# Tables of a setting that published results contain; the others are derived from them.
IMPORTED_TABLES = ("candidates", *DOT_TABLES, "gradient_similarity", "projected_similarity")


@dataclass(frozen=True)
class Node:
    """A table with its inputs and the parameters that affect it directly.

    Attributes:
        key: the table.
        inputs: tables that it is computed from; none for an imported table.
        partitioned: whether it has one file per partition.
        parameters: parts of the study that enter its fingerprint.
        imported: whether the table was imported and cannot be computed.
    """

    key: TableKey
    inputs: tuple[TableKey, ...] = ()
    partitioned: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    imported: bool = False


class Lineage:
    """All tables of a study in dependency order.

    Attributes:
        study: the study.
        digests: known digests of files that the study names; other files are read. Jobs receive all digests, so that
            compute nodes do not need the files.
    """

    def __init__(self, study: Study, digests: Mapping[Path, str] | None = None) -> None:
        self.study = study
        self.digests = digests or {}

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, key: TableKey) -> Node:
        return self.nodes[key]

    def __contains__(self, key: TableKey) -> bool:
        return key in self.nodes

    @cached_property
    def nodes(self) -> dict[TableKey, Node]:
        """Key -> node, in dependency order."""
        imported = self.study.imported
        nodes = list(self._imported_study_nodes() if imported else self._study_nodes())
        nodes.append(Node(self.key(SIZES, room="analysis"), inputs=(self.layers_key,)))
        for name, setting in self.study.ordered_settings():
            nodes += self._imported_setting_nodes(name) if imported else self._setting_nodes(name, setting)
            nodes += self._analysis_nodes(name)
        nodes += [self._transfer_node(), self._report_node()]
        return {node.key: node for node in nodes}

    def fingerprint(self, key: TableKey) -> str:
        """Return the digest of everything in the study's definition, including named files, that affects a table.

        Raises:
            StudyError: a file that the study names cannot be read.
        """
        return self._fingerprint(key, {})

    def fingerprints(self) -> dict[TableKey, str]:
        """Return the fingerprints of all tables.

        Raises:
            StudyError: a file that the study names cannot be read.
        """
        known: dict[TableKey, str] = {}
        for key in self.nodes:
            self._fingerprint(key, known)
        return known

    def _fingerprint(self, key: TableKey, known: dict[TableKey, str]) -> str:
        if key not in known:
            node = self[key]
            content = {
                "table": key.parts[1:],
                "code": CODE_VERSIONS.get(key.name, 1),
                "parameters": {name: self._plain(value) for name, value in node.parameters.items()},
                "inputs": [self._fingerprint(source, known) for source in node.inputs],
            }
            text = json.dumps(content, sort_keys=True)
            known[key] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return known[key]

    def key(self, name: str, setting: str | None = None, room: Any = None) -> TableKey:
        """Return the key of one of this study's tables."""
        return TableKey(self.study.name, name, setting, room)

    @property
    def layers_key(self) -> TableKey:
        """The table of the layers that are compared: `layers` if the study chooses some, otherwise `model`."""
        return self.key("layers" if self.study.layers else "model")

    @property
    def _chosen_layers(self) -> tuple[TableKey, ...]:
        """The table `layers`, if the study has one."""
        return (self.key("layers"),) if self.study.layers else ()

    def named_files(self, key: TableKey | None = None) -> dict[Path, str]:
        """Return the digest of each file that the study names, or of those that one of its tables is read from.

        Raises:
            StudyError: a file cannot be read.
        """
        return {path: self._digest(path) for path in self.named_paths(key)}

    def named_paths(self, key: TableKey | None = None) -> list[Path]:
        """Return the files and folders that the study names, or those that one of its tables is read from."""
        study = self.study
        all_sections = (study.dataset, study.model, study.chat, *study.settings.values())
        sections = self[key].parameters.values() if key else all_sections
        files = (named_file(section) for section in sections if isinstance(section, BaseModel))
        return [path for path in files if path]

    def _plain(self, value: Any) -> Any:
        """Return a JSON-compatible parameter without keys that do not affect rows; files are replaced by digests."""
        if isinstance(value, tuple):
            return [self._plain(item) for item in value]
        if not isinstance(value, BaseModel):
            return value
        named = named_file(value)
        content = self._digest(named) if named else None
        match value:
            case Chat(loss_on=loss_on):
                plain: dict[str, Any] = {"template": content or "model", "loss_on": loss_on}
            case FileDataset():
                layout = value.model_dump(exclude={"path"}, exclude_defaults=True)
                plain = {**layout, "content": content}
            case HubDataset():
                always = value.model_dump(include={"hub", "split", "revision", "where"})
                plain = {**always, **value.model_dump(exclude={"single_turn"}, exclude_defaults=True)}
                if not value.single_turn:  # it was once the only choice
                    plain["single_turn"] = False
            case QueryMethod():
                plain = {**value.model_dump(mode="json", exclude={"path", *value.without_effect}), "content": content}
            case HubModel():
                kept = {"name", "revision", "gguf", "quantization", "adapter", "adapter_revision", "finetune"}
                plain = value.model_dump(mode="json", include=kept)
            case ReferenceModel(reference=architecture):
                plain = {**architecture.model_dump(exclude={"tokenizer"}), "tokenizer": content}
            case _:
                plain = value.model_dump(mode="json", exclude={"store_projected", "stored_format"})
        return plain

    def _digest(self, path: Path) -> str:
        return self.digests.get(path) or content_digest(path)

    def _imported_study_nodes(self) -> Iterator[Node]:
        for name in ("samples", "model", "projections"):
            yield self._imported_node(self.key(name))

    def _imported_setting_nodes(self, setting: str) -> Iterator[Node]:
        for name in IMPORTED_TABLES:
            yield self._imported_node(self.key(name, setting, "results"))

    def _imported_node(self, key: TableKey) -> Node:
        return Node(key, parameters={"imported": self.study.dataset}, imported=True)

    def _study_nodes(self) -> Iterator[Node]:
        study = self.study
        samples, model = self.key("samples"), self.key(MODEL)
        yield Node(
            samples, parameters={"dataset": study.dataset, "samples": study.samples, "first": study.first_samples}
        )
        yield Node(
            model,
            inputs=(samples,) if study.model.training else (),
            parameters={"model": study.model, **self._training},
        )
        yield Node(
            self.key("tokenized"),
            inputs=(samples, model),
            parameters=self._tokenization,
        )
        for layers in self._chosen_layers:
            yield Node(layers, inputs=(model,), parameters={"layers": study.layers})
        yield Node(self.key("projections"), inputs=(self.layers_key,), parameters={"projections": study.projections})
        if stored := study.stored_projection:
            yield Node(
                self.key(INDEX),
                inputs=(model, self.key("tokenized"), *self._chosen_layers),
                partitioned=True,
                parameters={
                    "running": self._running,
                    "projection": stored.model_copy(update={"scaling": "unbiased"}),
                    "stored_format": stored.stored_format,
                    "seed": study.seed,
                    **self._loss,
                },
            )

    def _setting_nodes(self, name: str, setting: QueryMethod) -> Iterator[Node]:
        study = self.study
        samples, model, tokenized = (self.key(table) for table in ("samples", "model", "tokenized"))
        queries, query_tokens, candidates = (self.key(table, name) for table in ("queries", "tokenized", "candidates"))
        sources = (self.key("queries", setting.source),) if setting.source else ()
        yield Node(
            queries,
            inputs=(samples, *sources, *((model,) if setting.studies_model else ())),
            partitioned=True,
            parameters={
                "setting": setting,
                "seed": study.seed if setting.seeded else None,
                "running": self._running if setting.studies_model else None,
                **(self._chat if setting.studies_model else {}),
            },
        )
        yield Node(
            query_tokens,
            inputs=(queries, tokenized, model),
            partitioned=True,
            parameters=self._tokenization,
        )
        yield Node(
            candidates,
            inputs=(samples, tokenized, queries, query_tokens),
            partitioned=True,
            parameters={"top_k": study.top_k, **study.model_dump(include={"bm25_part"}, exclude_defaults=True)},
        )
        for table in GRADIENT_TABLES:
            projections = study.projections if table == "projected_similarity" else study.projected
            yield Node(
                self.key(table, name),
                inputs=(model, tokenized, query_tokens, candidates, *self._chosen_layers),
                partitioned=True,
                parameters={
                    "running": self._running,
                    "projections": projections if table in PROJECTED_TABLES else None,
                    **self._memorised,
                    **self._loss,
                    "seed": study.seed if table in PROJECTED_TABLES else None,
                },
            )
        for table in COMBINED_TABLES:
            yield Node(self.key(table, name, "results"), inputs=(self.key(table, name),))

    def _analysis_nodes(self, setting: str) -> Iterator[Node]:
        for name in self.analyses:
            inputs = tuple(self.analysis_inputs(name, setting).values())
            seed = self.study.seed if name in SEEDED else None
            yield Node(self.key(name, setting, "analysis"), inputs, parameters={"seed": seed})

    @property
    def _training(self) -> dict[str, Any]:
        """What affects the weights of a model that the study trains."""
        study = self.study
        if not study.model.training:
            return {"seed": None, "on_long_sample": None}
        if isinstance(study.model, ReferenceModel):
            return {"seed": study.seed, "on_long_sample": study.on_long_sample, **study.length_limit}
        return {"seed": study.seed, **self._tokenization, **self._running}

    @property
    def _running(self) -> dict[str, str]:
        """Precision and attention of the model: they affect computed values, not the `model` table."""
        return {"precision": self.study.model.precision, "attention": self.study.model.attention}

    @property
    def _tokenization(self) -> dict[str, Any]:
        """What affects the tokens of samples."""
        study = self.study
        handling = {"on_long_sample": study.on_long_sample, "on_bad_sample": study.on_bad_sample}
        return {**handling, **study.length_limit, **self._chat}

    @property
    def _chat(self) -> dict[str, Chat]:
        """Chat template and mask, unless they are those of studies before there was a choice."""
        return {} if self.study.template == "tulu" else {"chat": self.study.chat}

    @property
    def _loss(self) -> dict[str, str]:
        """How token losses make one, unless it is their mean."""
        return {"loss": "sum"} if self.study.chat.loss == "sum" else {}

    @property
    def _memorised(self) -> dict[str, str]:
        """Precision of memorised samples, if the study sets one."""
        precision = self.study.model.precision_of_memorised
        return {"precision_of_memorised": precision} if precision else {}

    @property
    def analyses(self) -> tuple[str, ...]:
        """Analyses of each setting; imported studies have none that needs the model."""
        return tuple(name for name in ANALYSES if not (self.study.imported and name == AUDIT))

    def analysis_inputs(self, analysis: str, setting: str) -> dict[str, TableKey]:
        """Return the inputs of a setting's analysis by argument name; imported studies have no tokens."""
        elsewhere = {
            "model": self.key("model"),
            "projections": self.key("projections"),
            "original_tokens": self.key("tokenized"),
            "query_tokens": self.key("tokenized", setting),
            SIZES: self.key(SIZES, room="analysis"),
            **{name: self.key(name, setting, "analysis") for name in ANALYSES},
        }
        unknown = TOKENS if self.study.imported else ()
        return {
            name: elsewhere.get(name) or self.key(name, setting, "results")
            for name in ANALYSES[analysis]
            if name not in unknown
        }

    def transfer_inputs(self, setting: str) -> dict[str, TableKey]:
        """Return the inputs that the analysis of all settings reads from one setting, by argument name."""
        dots = {name: self.key(name, setting, "results") for name in DOT_TABLES}
        selections = ("greedy_by_accuracy", "greedy_by_similarity", "held_out_selection")
        return dots | {name: self.key(name, setting, "analysis") for name in selections}

    def _transfer_node(self) -> Node:
        inputs = [key for setting in self.study.settings for key in self.transfer_inputs(setting).values()]
        return Node(self.key(TRANSFER, room="analysis"), tuple(inputs), parameters={"seed": self.study.seed})

    def _report_node(self) -> Node:
        settings = self.study.settings
        keys = [self.key("samples"), self.key(SIZES, room="analysis"), self.key(TRANSFER, room="analysis")]
        keys += [self.key(name, setting, "analysis") for setting in settings for name in self.analyses]
        keys += [self.key(name, setting, "results") for setting in settings for name in DOT_TABLES]
        if not self.study.imported:
            keys += [self.key("model"), self.key("tokenized")]
            keys += [self.key(name, setting) for setting in settings for name in ("queries", "tokenized")]
        return Node(self.key("report"), tuple(keys))
