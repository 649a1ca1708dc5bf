"""All stored tables of a study: reading and writing them by key, and telling which are fresh."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path

import polars as pl

from gradsim.errors import StudyError, TableError
from gradsim.study import Study
from gradsim.tables.files import read_blocks, read_provenance, read_table
from gradsim.tables.index import IndexFile, IndexHeader, IndexWriter, index_writer, read_index_provenance
from gradsim.tables.keys import TableKey
from gradsim.tables.lineage import Lineage
from gradsim.tables.pages import read_page_provenance, write_page
from gradsim.tables.provenance import Provenance
from gradsim.tables.schemas import IDENTIFIERS, LAYERS, SCHEMAS
from gradsim.tables.writing import TableWriter, table_writer


class State(StrEnum):
    """Of a file: what a run would find."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
    CORRUPT = "corrupt"


# Suffix -> what reads a file's provenance.
_READERS = {".parquet": read_provenance, ".html": read_page_provenance, ".arrow": read_index_provenance}


class Store:
    """The tables of one study below a data root.

    Attributes:
        root: the data root.
        study: the study.
        lineage: of the study, with digests of files as it takes them.
    """

    def __init__(
        self,
        root: Path,
        study: Study,
        digests: Mapping[Path, str] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.study = study
        self.lineage = Lineage(study, digests)
        # Of inputs that were read long before anything is written: what lies there by then may be another.
        self._versions = versions or {}

    # -- places ------------------------------------------------------------------------------

    def path(self, key: TableKey, partition: str | None = None) -> Path:
        """Where a table or one of its partitions lies."""
        return self.root / key.file(partition)

    @property
    def model_folder(self) -> Path:
        """Where a reference model's weights and tokenizer lie."""
        return self.root / self.study.name / "model"

    @property
    def journals(self) -> Path:
        """Folder of what was paid for and must not be lost, of all studies."""
        return self.root / ".journals"

    def partitions(self, key: TableKey) -> list[str | None]:
        """Keys of a table's partitions in order; `[None]` for a table that has none."""
        if self.lineage[key].partitioned:
            return [partition.key for partition in self.study.partitions]
        return [None]

    # -- reading -----------------------------------------------------------------------------

    def read(self, key: TableKey, partitions: Iterable[str | None] | None = None) -> pl.DataFrame:
        """Rows of a table, of these or all partitions one after the other.

        Raises:
            TableError: a file is missing or unreadable, or files were made from different definitions, from different
                inputs, or from another definition than the study's.
        """
        return pl.concat([read_table(path) for path in self._paths(key, partitions)])

    def blocks(self, key: TableKey, partitions: Iterable[str | None] | None = None) -> Iterator[pl.DataFrame]:
        """The same rows in frames of bounded size, for tables that are larger than memory.

        Raises:
            TableError: as `read`; what the files' footers tell at once, what their rows tell while they are taken.
        """
        paths = self._paths(key, partitions)
        return (block for path in paths for block in read_blocks(path))

    def checked_path(self, key: TableKey, partition: str | None = None) -> Path:
        """Where a table or partition lies that `read` would read.

        Raises:
            TableError: as `read`, as far as the file's footer tells.
        """
        return self._paths(key, [partition])[0]

    def checked_paths(self, key: TableKey) -> list[Path]:
        """Where all partitions of a table lie that `read` would read.

        Raises:
            TableError: as `read`, as far as the files' footers tell.
        """
        return self._paths(key, None)

    def _paths(self, key: TableKey, partitions: Iterable[str | None] | None) -> list[Path]:
        wanted = list(self.partitions(key) if partitions is None else partitions)
        paths = [self.path(key, partition) for partition in wanted]
        self._refuse_mixture(key, {path: _READERS[path.suffix](path) for path in paths})
        return paths

    def index(self) -> list[Path]:
        """The files of the study's gradient index.

        Raises:
            StudyError: the study stores none.
            TableError: as `read`.
        """
        key = self.lineage.key("gradient_index")
        if key not in self.lineage:
            raise StudyError(
                f"study '{self.study.name}' stores no projected gradients; set store_projected: true on one of its "
                "projections, and run it"
            )
        return self._paths(key, None)

    def provenance(self, key: TableKey, partition: str | None = None) -> Provenance:
        """How a file came to be."""
        path = self.path(key, partition)
        return _READERS[path.suffix](path)

    def rows(self, key: TableKey, partition: str | None = None) -> int:
        """How many rows a file has; they are not read."""
        path = self.path(key, partition)
        if path.suffix == ".arrow":
            with IndexFile(path) as file:
                return file.rows
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())

    def _refuse_mixture(self, key: TableKey, files: Mapping[Path, Provenance]) -> None:
        (first_path, first), *others = files.items()
        for path, provenance in others:
            if provenance.fingerprint != first.fingerprint:
                raise TableError(
                    f"{path} has fingerprint {provenance.fingerprint}, {first_path} has {first.fingerprint}: "
                    "they were made from different definitions of the study; run the stale one again"
                )
            # Partitioned inputs bear the partition in their names, so what both name is an input of all partitions.
            for source in provenance.inputs.keys() & first.inputs.keys():
                if provenance.inputs[source] != first.inputs[source]:
                    raise TableError(
                        f"{path} was made from version {provenance.inputs[source]} of {source}, "
                        f"{first_path} from {first.inputs[source]}; run the stale one again"
                    )
        if first.fingerprint != (expected := self.lineage.fingerprint(key)):
            raise TableError(
                f"{first_path} has fingerprint {first.fingerprint}, the study's definition gives {expected}: "
                "it was made from another definition; run it again"
            )

    @cached_property
    def ids(self) -> pl.Enum:
        """Ids of all loaded samples in dataset order, as a data type."""
        dtype = self.read(self.lineage.key("samples")).schema["id"]
        assert isinstance(dtype, pl.Enum)
        return dtype

    @cached_property
    def layers(self) -> pl.Enum:
        """Names of the model's layers in model order, as a data type."""
        dtype = self.read(self.lineage.key("model")).schema["layer"]
        assert isinstance(dtype, pl.Enum)
        return dtype

    # -- writing -----------------------------------------------------------------------------

    def write(
        self,
        key: TableKey,
        frame: pl.DataFrame,
        partition: str | None = None,
        provenance: Provenance | None = None,
    ) -> Provenance:
        """Write a table, or one of its partitions, with its fingerprint and the versions of its inputs.

        Args:
            key: the table.
            frame: its rows, with the columns of its schema.
            partition: the partition that the rows are of.
            provenance: what is known beyond fingerprint and inputs (device, exclusions, cost).

        Raises:
            TableError: the rows do not fit the schema, an input is gone, or the data root cannot be written.
        """
        with self.writer(key, partition, provenance) as writer:
            writer.add(frame)
        return writer.provenance

    @contextmanager
    def writer(
        self, key: TableKey, partition: str | None = None, provenance: Provenance | None = None
    ) -> Iterator[TableWriter]:
        """The same for rows that come in pieces: takes frames while the block lasts; whole or not at all.

        A table that brings its own identifiers (`samples`, `model`) comes in one piece.
        """
        self._refuse_other_sizes(key)
        specific = self._specific(key, partition, provenance)
        with table_writer(self.path(key, partition), specific, partial(self._conformed, key)) as writer:
            yield writer
            if not writer.has_columns:
                writer.add(SCHEMAS[key.name].empty())

    @contextmanager
    def index_writer(self, partition: str, header: IndexHeader, provenance: Provenance) -> Iterator[IndexWriter]:
        """A writer of a partition of the gradient index, whole or not at all.

        Raises:
            TableError: an input is gone, or the data root cannot be written.
        """
        key = self.lineage.key("gradient_index")
        self._refuse_other_sizes(key)
        with index_writer(self.path(key, partition), header, self._specific(key, partition, provenance)) as writer:
            yield writer

    def _refuse_other_sizes(self, key: TableKey) -> None:
        """A reader of the whole folder would take the rows of two partition sizes for those of one."""
        folder = self.path(key).with_suffix("")
        names = {self.path(key, partition).name for partition in self.partitions(key)}
        others = sorted(path for suffix in _READERS for path in folder.glob(f"[!.]*{suffix}") if path.name not in names)
        if others and self.lineage[key].partitioned:
            raise TableError(
                f"{others[0]}: a partition of another size than the study's {self.study.partition_size}; "
                f"move or delete such files of {self.root / self.study.name}, or set partition_size back"
            )

    def write_report(self, page: str) -> Path:
        """Write the study's report.

        Raises:
            TableError: an input is gone, or the data root cannot be written.
        """
        key = self.lineage.key("report")
        write_page(page, self.path(key), self._specific(key))
        return self.path(key)

    def _specific(
        self, key: TableKey, partition: str | None = None, provenance: Provenance | None = None
    ) -> Provenance:
        return (provenance or Provenance()).model_copy(
            update={
                "fingerprint": self.lineage.fingerprint(key),
                "inputs": {
                    name: self._versions.get(name, version)
                    for name, version in self.input_versions(key, partition).items()
                },
            }
        )

    def _conformed(self, key: TableKey, frame: pl.DataFrame) -> pl.DataFrame:
        return SCHEMAS[key.name].conform(self._encoded(frame, key), str(key))

    def _encoded(self, frame: pl.DataFrame, key: TableKey) -> pl.DataFrame:
        """Identifiers given as texts, in the study's own order of samples and layers."""
        texts = [name for name in frame.columns if name in IDENTIFIERS and frame.schema[name] == pl.String]
        if key.name in {"samples", "model"}:
            return frame.with_columns(pl.col(name).cast(pl.Enum(frame[name])) for name in texts)
        return frame.with_columns(pl.col(name).cast(self.layers if name in LAYERS else self.ids) for name in texts)

    def ids_of(self, partition: str) -> list[str]:
        """Ids of the samples at a partition's positions."""
        first, last = (int(position) for position in partition.split("-"))
        return self.ids.categories[first : last + 1].to_list()

    # -- freshness ---------------------------------------------------------------------------

    def inputs(self, key: TableKey, partition: str | None) -> Iterator[tuple[TableKey, str | None]]:
        """What a table or partition is made from: tables without partitions, the same partition, or all of them."""
        for source in self.lineage[key].inputs:
            aligned = partition is not None and self.lineage[source].partitioned
            for each in [partition] if aligned else self.partitions(source):
                yield source, each

    def input_versions(self, key: TableKey, partition: str | None) -> dict[str, str]:
        """Data versions of what a table or partition is made from, as they are stored now."""
        return {
            f"{source}/{each}" if each else str(source): self.provenance(source, each).data_version
            for source, each in self.inputs(key, partition)
        }

    def state(self, key: TableKey, partition: str | None = None, path: Path | None = None) -> State:
        """Whether a file is there, whole, and made from what is there now; `path`: a file that is to take its place."""
        place = self.path(key, partition)
        path = path or place
        if not path.exists():
            return State.MISSING
        try:
            provenance = _READERS[place.suffix](path)
        except TableError:
            return State.CORRUPT
        try:
            fresh = provenance.fingerprint == self.lineage.fingerprint(
                key
            ) and provenance.inputs == self.input_versions(key, partition)
        except TableError:
            return State.STALE
        return State.FRESH if fresh else State.STALE
