"""Formats of the job file and the result file, the only communication between sender and job."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gradsim.errors import TableError
from gradsim.partition_job.code import check_code, code_version
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import Provenance, State, Store, TableKey
from gradsim.tables.lineage import AUDIT, GRADIENT_TABLES, INDEX, MODEL

Work: TypeAlias = Mapping[Any, Sequence[TableKey]]
"""Tables to compute, by partition."""

# Pseudo-table of jobs that measure rates and write no table.
RATES = "rates"

# Key of a job's custom message through Dagster Pipes that contains a `WorkDone`.
PROGRESS = "progress"

# Kind of a job; each kind has a module in this package.
Kind = Literal["training", "queries", "gradients", "audit", "index", "rates"]

KINDS: Mapping[str, Kind] = {
    MODEL: "training",
    "queries": "queries",
    AUDIT: "audit",
    INDEX: "index",
    RATES: "rates",
    **dict.fromkeys(GRADIENT_TABLES, "gradients"),
}


class PartitionJob(BaseModel):
    """Specification of a job.

    Partitions are keys as returned by `Store.partitions`: an unpartitioned table has the single partition None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: Study
    keys: tuple[TableKey, ...] = Field(description="tables of one kind; gradients may be of several settings")
    partitions: tuple[str | None, ...] = Field(description="partitions of each table")
    fingerprints: dict[str, str] = Field(description="expected fingerprint by table")
    versions: dict[str, str] = Field({}, description="expected data version by input")
    digests: dict[Path, str] = Field({}, description="digests of the files that the study names, absent on a node")
    root: Path
    model: ModelConfiguration
    memory_budget: int | None = None
    force: bool = False
    code: str = Field(default_factory=code_version, description="code version of the sender")

    @property
    def identity(self) -> str:
        """Digest that is equal for identical jobs, whenever they are sent."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def kind(self) -> Kind:
        """Kind of the job, which all its tables share."""
        (kind,) = {KINDS[key.name] for key in self.keys}
        return kind

    @property
    def settings(self) -> list[str]:
        """Distinct settings of the tables, in order."""
        return list(dict.fromkeys(key.setting for key in self.keys if key.setting))

    @property
    def only_key(self) -> TableKey:
        """The table of a job with a single table."""
        (key,) = self.keys
        return key

    def store(self) -> Store:
        """Return the store that the job reads and writes."""
        return Store(self.root, self.study, self.digests, self.versions)

    def inputs(self, store: Store) -> set[tuple[TableKey, str | None]]:
        """Return the tables and partitions that the job reads."""
        always = ("samples",) if self.kind in ("training", "queries") else ("samples", "model", "tokenized")
        inputs: set[tuple[TableKey, str | None]] = {(store.lineage.key(name), None) for name in always}
        return inputs.union(*(store.inputs(key, partition) for key, partition in self.outputs))

    @property
    def outputs(self) -> list[tuple[TableKey, str | None]]:
        """Tables and partitions of the job, including fresh ones."""
        if self.kind == RATES:
            return []
        return [(key, partition) for key in self.keys for partition in self.partitions]

    def work(self, store: Store) -> dict[str | None, list[TableKey]]:
        """Return the tables to compute by partition: all with `force`, otherwise those that are not fresh."""
        if self.kind == RATES:
            return {None: list(self.keys)}
        work = {
            partition: [key for key in self.keys if self.force or store.state(key, partition) is not State.FRESH]
            for partition in self.partitions
        }
        return {partition: keys for partition, keys in work.items() if keys}

    def of_what_is_stored(self, store: Store) -> Self:
        """Return the job with `versions` set to the currently stored data versions of its inputs.

        Raises:
            TableError: an input is missing.
        """
        return self.model_copy(update={"versions": self._found_versions(store)})

    def _found_versions(self, store: Store) -> dict[str, str]:
        """Return the stored data versions of the inputs of the job's tables."""
        versions: dict[str, str] = {}
        for key, partition in self.outputs:
            versions |= store.input_versions(key, partition)
        return versions

    def check(self, store: Store) -> None:
        """Check that code, fingerprints and input data are those of the sender.

        Raises:
            TableError: they differ, or an input is missing.
        """
        check_code(self.code)
        found = {str(key): store.lineage.fingerprint(key) for key in self.keys if str(key) in self.fingerprints}
        for name, expected in self.fingerprints.items():
            if found.get(name) != expected:
                raise TableError(
                    f"{name}: the job was sent for fingerprint {expected}, but here it is {found.get(name)}; "
                    "synchronize the project and its files"
                )
        found_versions = self._found_versions(store) if self.versions else {}
        for name, version in self.versions.items():
            if (found_version := found_versions.get(name)) != version:
                raise TableError(
                    f"{name}: the job was sent for version {version}, but here it is {found_version}; "
                    "the table was recomputed, or this is another data root: run it again"
                )


class JobResult(BaseModel):
    """Outcome of a job; repeats partitions and fingerprints so that the sender can detect a mismatch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partitions: tuple[str | None, ...]
    fingerprints: dict[str, str]
    computed: dict[str, list[str | None]] = Field({}, description="computed partitions by table")
    measured: dict[str, Any] = {}
    error: str | None = Field(None, description="message of an error that the user can fix")
    traceback: str | None = Field(None, description="traceback of an unexpected error")


def result_path(job_path: Path) -> Path:
    """Return the path of a job's result file."""
    return job_path.with_suffix(".result.json")


def model_provenance(job: PartitionJob, store: Store, device: str) -> Provenance:
    """Return a provenance with model, revision, precision and device."""
    model = store.provenance(store.lineage.key("model"))
    return Provenance(model=model.model, revision=model.revision, device=device, precision=job.model.precision)
