"""The job file and the result file: all that sender and job know of each other."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from gradsim.errors import TableError
from gradsim.partition_job.code import check_code, code_version
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import State, Store, TableKey
from gradsim.tables.lineage import AUDIT, GRADIENT_TABLES, INDEX

# No table: a job that is asked for it measures, and writes nothing.
RATES = "rates"

# What a job computes, in one word; a module of this package bears it.
Kind = Literal["queries", "gradients", "audit", "index", "rates"]

KINDS: Mapping[str, Kind] = {
    "queries": "queries",
    AUDIT: "audit",
    INDEX: "index",
    RATES: "rates",
    **dict.fromkeys(GRADIENT_TABLES, "gradients"),
}


class PartitionJob(BaseModel):
    """What a job is to compute, and on what.

    Partitions are named as by `Store.partitions`: a table that has none has the one partition None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: Study
    keys: tuple[TableKey, ...] = Field(description="the tables, of one kind; gradients of several settings go together")
    partitions: tuple[str | None, ...] = Field(description="of each table")
    fingerprints: dict[str, str] = Field(description="of the tables' definitions")
    versions: dict[str, str] = Field({}, description="of the data that the tables are made from: name -> data version")
    digests: dict[Path, str] = Field({}, description="of the files that the study names; a node has none of them")
    root: Path
    model: ModelConfiguration
    memory_budget: int | None = None
    force: bool = False
    code: str = Field(default_factory=code_version, description="the sender's")

    @property
    def identity(self) -> str:
        """The same for jobs that would do the same, whenever they are sent."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def kind(self) -> Kind:
        """What the job computes; its tables have it in common."""
        (kind,) = {KINDS[key.name] for key in self.keys}
        return kind

    @property
    def settings(self) -> list[str]:
        """The settings that the tables are of, each once, in order."""
        return list(dict.fromkeys(key.setting for key in self.keys if key.setting))

    @property
    def only_key(self) -> TableKey:
        """The table of a job that makes one."""
        (key,) = self.keys
        return key

    def store(self) -> Store:
        """The tables that the job reads and writes."""
        return Store(self.root, self.study, self.digests, self.versions)

    def inputs(self, store: Store) -> set[tuple[TableKey, str | None]]:
        """Tables and partitions that the job reads."""
        always = ("samples",) if self.kind == "queries" else ("samples", "model", "tokenized")
        inputs: set[tuple[TableKey, str | None]] = {(store.lineage.key(name), None) for name in always}
        return inputs.union(*(store.inputs(key, partition) for key, partition in self.outputs))

    @property
    def outputs(self) -> list[tuple[TableKey, str | None]]:
        """Tables and partitions that the job leaves, those that are fresh already included."""
        if self.kind == RATES:
            return []
        return [(key, partition) for key in self.keys for partition in self.partitions]

    def work(self, store: Store) -> dict[str | None, list[TableKey]]:
        """Partition -> tables to compute: all of them with `force`, else those that are not fresh."""
        if self.kind == RATES:
            return {None: list(self.keys)}
        work = {
            partition: [key for key in self.keys if self.force or store.state(key, partition) is not State.FRESH]
            for partition in self.partitions
        }
        return {partition: keys for partition, keys in work.items() if keys}

    def of_what_is_stored(self, store: Store) -> Self:
        """The same job, of the data that are stored now and of no others.

        Raises:
            TableError: what its tables are made from is missing.
        """
        return self.model_copy(update={"versions": self._found_versions(store)})

    def _found_versions(self, store: Store) -> dict[str, str]:
        """Data versions of what the job's tables are made from."""
        versions: dict[str, str] = {}
        for key, partition in self.outputs:
            versions |= store.input_versions(key, partition)
        return versions

    def check(self, store: Store) -> None:
        """Refuse to compute anything but what was asked for, from the sender's data with the sender's code.

        Raises:
            TableError: code, fingerprints or data are not the sender's, or data are missing.
        """
        check_code(self.code)
        found = {str(key): store.lineage.fingerprint(key) for key in self.keys if str(key) in self.fingerprints}
        for name, expected in self.fingerprints.items():
            if found.get(name) != expected:
                raise TableError(
                    f"{name}: the job was sent for fingerprint {expected}, here it is {found.get(name)}; "
                    "make the project and its files the same on both sides"
                )
        found_versions = self._found_versions(store) if self.versions else {}
        for name, version in self.versions.items():
            if (found_version := found_versions.get(name)) != version:
                raise TableError(
                    f"{name}: the job was sent for version {version}, here it is {found_version}; "
                    "the table was made again meanwhile, or this is another data root: run it again"
                )


class JobResult(BaseModel):
    """What a job did. Partitions and fingerprints are echoed, so that a mismatch cannot pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partitions: tuple[str | None, ...]
    fingerprints: dict[str, str]
    computed: dict[str, list[str | None]] = Field({}, description="table -> partitions that were not fresh")
    measured: dict[str, Any] = {}
    error: str | None = Field(None, description="what is wrong, where the user can mend it")
    traceback: str | None = Field(None, description="where it broke, where the user cannot")


def result_path(job_path: Path) -> Path:
    """Where a job leaves its result."""
    return job_path.with_suffix(".result.json")
