"""Read and write a study's stored tables by key, and determine their freshness."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path

import polars as pl

from gradsim.environment import code_commit
from gradsim.errors import StudyError, TableError
from gradsim.study import ModelConfiguration, Study
from gradsim.tables.files import read_blocks, read_provenance, read_table
from gradsim.tables.index import IndexFile, IndexHeader, IndexWriter, index_writer, read_index_provenance
from gradsim.tables.keys import State, TableKey
from gradsim.tables.lineage import INDEX, Lineage
from gradsim.tables.pages import read_page_provenance, write_page
from gradsim.tables.provenance import Provenance
from gradsim.tables.schemas import IDENTIFIERS, LAYERS, SCHEMAS
from gradsim.tables.seal import verify_digest
from gradsim.tables.writing import TableWriter, table_writer

# Suffix -> function that reads a file's provenance.
_READERS = {".parquet": read_provenance, ".html": read_page_provenance, ".arrow": read_index_provenance}


class Store:
    """The tables of one study below a data root.

    Args:
        root: data root.
        study: the study.
        digests: known digests of files that the study names, see `Lineage`.
        versions: data versions of inputs to record in provenance, by name; None: the versions stored at writing time.

    Attributes:
        root: data root.
        study: the study.
        lineage: lineage of the study.
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
        # A job reads its inputs long before it writes; the stored files can change in between.
        self._versions = versions or {}

    # -- places ------------------------------------------------------------------------------

    def path(self, key: TableKey, partition: str | None = None) -> Path:
        """Return the path of a table or of one of its partitions."""
        return self.root / key.file(partition)

    @property
    def model_folder(self) -> Path:
        """Folder of the model or the adapter that the study trains."""
        return self.root / self.study.name / "model"

    @property
    def checkpoint(self) -> Path:
        """File with the state of an unfinished training."""
        return self.root / self.study.name / ".model.safetensors"

    def model_configuration(self, device: str = "auto") -> ModelConfiguration:
        """Return the study's model, at the revision recorded in its `model` table.

        Raises:
            TableError: The study has no `model` table yet.
        """
        revision = self.provenance(self.lineage.key("model")).revision
        return self.study.model_configuration(revision, self.model_folder, device)

    @property
    def journals(self) -> Path:
        """Folder of the journals of all studies."""
        return self.root / ".journals"

    def partitions(self, key: TableKey) -> list[str | None]:
        """Return the keys of a table's partitions in order; `[None]` for an unpartitioned table."""
        if self.lineage[key].partitioned:
            return [partition.key for partition in self.study.partitions]
        return [None]

    # -- reading -----------------------------------------------------------------------------

    def read(self, key: TableKey, partitions: Iterable[str | None] | None = None) -> pl.DataFrame:
        """Return the rows of a table, or of some of its partitions, in order.

        Raises:
            TableError: a file is missing or unreadable, files have different fingerprints or inputs, their
                fingerprint is not the study's, or a partition's inputs have changed since.
        """
        return pl.concat([read_table(path) for path in self.paths(key, partitions)])

    def blocks(self, key: TableKey) -> Iterator[pl.DataFrame]:
        """Return all rows of a table as an iterator of frames of bounded size.

        Raises:
            TableError: as `read`; footers are checked immediately, rows during iteration.
        """
        paths = self.paths(key)
        return (block for path in paths for block in read_blocks(path))

    def paths(self, key: TableKey, partitions: Iterable[str | None] | None = None) -> list[Path]:
        """Return the paths of a table, or of some of its partitions, after checking their provenance.

        Raises:
            TableError: as `read`; only the footers are checked.
        """
        wanted = list(self.partitions(key) if partitions is None else partitions)
        provenances = {partition: self.provenance(key, partition) for partition in wanted}
        self._refuse_mixture(key, {self.path(key, each): provenance for each, provenance in provenances.items()})
        self._refuse_outdated(key, provenances)
        return [self.path(key, partition) for partition in wanted]

    def index(self) -> list[Path]:
        """Return the paths of the study's gradient index.

        Raises:
            StudyError: the study stores no projected gradients.
            TableError: as `read`.
        """
        key = self.lineage.key(INDEX)
        if key not in self.lineage:
            raise StudyError(
                f"study '{self.study.name}' stores no projected gradients; set store_projected: true on one of its "
                "projections, and run it"
            )
        return self.paths(key)

    def provenance(self, key: TableKey, partition: str | None = None) -> Provenance:
        """Return the provenance of a file.

        Raises:
            TableError: the file is missing or damaged.
        """
        if not self.path(key, partition).exists():
            name = f"{key} {partition}" if partition else key
            raise TableError(f"{name} is missing in {self.root}; {self.remedy(key, partition)}")
        return self._read_provenance(self.path(key, partition), key, partition)

    def _read_provenance(self, path: Path, key: TableKey, partition: str | None) -> Provenance:
        """Return the provenance of a file that must be a certain table or partition."""
        provenance = _READERS[self.path(key).suffix](path)
        if provenance.table and (provenance.table, provenance.partition) != (key.below_study, partition):
            found = "/".join(filter(None, (provenance.table, provenance.partition)))
            raise TableError(f"{path}: contains {found}; delete it and run again")
        return provenance

    def remedy(self, key: TableKey, partition: str | None = None) -> str:
        """Return how to make a table or partition, as the part of an error message after the semicolon."""
        if self.lineage[key].imported:
            return f"import it again: gradsim import-published DIR --study {key.study} --force"
        options = {"--setting": key.setting, "--partition": partition}
        chosen = "".join(f" {option} {value}" for option, value in options.items() if value)
        return f"materialize it, or run `gradsim run {key.study}{chosen}`"

    def rows(self, key: TableKey, partition: str | None = None) -> int:
        """Return the number of rows of a file without reading them."""
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
            # Names of partitioned inputs contain the partition, so shared names are inputs of all partitions.
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

    def _refuse_outdated(self, key: TableKey, partitions: Mapping[str | None, Provenance]) -> None:
        """Raise an error if a partition was made from other versions of its inputs than those stored now.

        Inputs that are not stored are not compared: tables can be read where only they were copied to.
        """

        @cache
        def stored(source: TableKey, each: str | None) -> str | None:
            return self.provenance(source, each).data_version if self.path(source, each).exists() else None

        for partition, provenance in partitions.items():
            for source, each in self.inputs(key, partition) if partition else ():
                recorded = provenance.inputs.get(name := _input_name(source, each))
                if (version := stored(source, each)) not in {None, recorded}:
                    raise TableError(
                        f"{self.path(key, partition)} was made from version {recorded} of {name}, "
                        f"which is {version} now; run it again"
                    )

    @cached_property
    def ids(self) -> pl.Enum:
        """Data type of the ids of all loaded samples, in dataset order."""
        return self._encoding(self.lineage.key("samples"), "id")

    @cached_property
    def layers(self) -> pl.Enum:
        """Data type of the names of the layers that are compared, in model order."""
        return self._encoding(self.lineage.layers_key, "layer")

    def _encoding(self, key: TableKey, column: str) -> pl.Enum:
        dtype = self.read(key).schema[column]
        assert isinstance(dtype, pl.Enum)
        return dtype

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers that are compared, in model order."""
        return self.layers.categories.to_list()

    # -- writing -----------------------------------------------------------------------------

    def write(
        self, key: TableKey, frame: pl.DataFrame, partition: str | None = None, provenance: Provenance | None = None
    ) -> Provenance:
        """Write a table or partition with its fingerprint and the versions of its inputs.

        Args:
            key: the table.
            frame: rows with the columns of the table's schema.
            partition: key of the partition.
            provenance: provenance besides fingerprint and inputs: device, exclusions, cost.

        Returns:
            The provenance as written.

        Raises:
            TableError: the rows do not match the schema, an input is missing, or the data root is not writable.
        """
        with self.writer(key, partition, provenance) as writer:
            writer.add(frame)
        return writer.provenance

    @contextmanager
    def writer(
        self, key: TableKey, partition: str | None = None, provenance: Provenance | None = None
    ) -> Iterator[TableWriter]:
        """Yield a writer that `write`s a table or partition frame by frame; the file appears on success only.

        A table that defines identifiers (`samples`, `model`) must be added as a single frame.
        """
        self._refuse_other_sizes(key)
        specific = self._specific(key, partition, provenance)
        with table_writer(self.path(key, partition), specific, partial(self._conformed, key)) as writer:
            yield writer
            if not writer.has_columns:
                writer.add(SCHEMAS[key.name].empty())

    @contextmanager
    def index_writer(self, partition: str, header: IndexHeader, provenance: Provenance) -> Iterator[IndexWriter]:
        """Yield a writer of a partition of the gradient index; the file appears on success only.

        Raises:
            TableError: an input is missing, or the data root is not writable.
        """
        key = self.lineage.key(INDEX)
        self._refuse_other_sizes(key)
        with index_writer(self.path(key, partition), header, self._specific(key, partition, provenance)) as writer:
            yield writer

    def _refuse_other_sizes(self, key: TableKey) -> None:
        """Raise an error if the folder has partitions of another size, which readers of the folder would mix up."""
        folder = self.path(key).with_suffix("")
        names = {self.path(key, partition).name for partition in self.partitions(key)}
        others = sorted(path for suffix in _READERS for path in folder.glob(f"[!.]*{suffix}") if path.name not in names)
        if others and self.lineage[key].partitioned:
            raise TableError(
                f"{others[0]}: a partition of another size than the study's {self.study.partition_size}; "
                f"move or delete such files of {self.root / self.study.name}, or set partition_size back"
            )

    def write_report(self, page: str) -> Path:
        """Write the study's report and return its path.

        Raises:
            TableError: an input is missing, or the data root is not writable.
        """
        key = self.lineage.key("report")
        write_page(page, self.path(key), self._specific(key))
        return self.path(key)

    def _specific(
        self, key: TableKey, partition: str | None = None, provenance: Provenance | None = None
    ) -> Provenance:
        return (provenance or Provenance()).model_copy(
            update={
                "table": key.below_study,
                "partition": partition,
                "commit": code_commit(),
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
        """Encode identifiers given as strings, in the study's order of samples and layers."""
        texts = [name for name in frame.columns if name in IDENTIFIERS and frame.schema[name] == pl.String]
        if key.name in {"samples", "model", "layers"}:
            return frame.with_columns(pl.col(name).cast(pl.Enum(frame[name])) for name in texts)
        return frame.with_columns(pl.col(name).cast(self.layers if name in LAYERS else self.ids) for name in texts)

    def ids_of(self, partition: str) -> list[str]:
        """Return the ids of the samples at a partition's positions."""
        first, last = (int(position) for position in partition.split("-"))
        return self.ids.categories[first : last + 1].to_list()

    # -- freshness ---------------------------------------------------------------------------

    def inputs(self, key: TableKey, partition: str | None) -> Iterator[tuple[TableKey, str | None]]:
        """Yield the inputs of a table or partition.

        A partition depends on the same partition of a partitioned input; a table depends on all partitions.
        """
        for source in self.lineage[key].inputs:
            aligned = partition is not None and self.lineage[source].partitioned
            for each in [partition] if aligned else self.partitions(source):
                yield source, each

    def input_versions(self, key: TableKey, partition: str | None) -> dict[str, str]:
        """Return the stored data version of each input of a table or partition.

        Raises:
            TableError: an input is missing or damaged.
        """
        return {
            _input_name(source, each): self.provenance(source, each).data_version
            for source, each in self.inputs(key, partition)
        }

    def damaged_file(self, key: TableKey, partition: str | None = None) -> Path | None:
        """Return the damaged or missing one of a stored file and those written beside it; None: all are intact."""
        try:
            return self._damaged_beside(self.provenance(key, partition))
        except TableError:
            return self.path(key, partition)

    def _damaged_beside(self, provenance: Provenance) -> Path | None:
        for name, digest in provenance.files.items():
            path = self.root / self.study.name / name
            try:
                verify_digest(path, digest)
            except OSError:
                return path
        return None

    def state(self, key: TableKey, partition: str | None = None, path: Path | None = None) -> State:
        """Return the freshness of a file; `path`: another file to check as if it were stored in its place."""
        path = path or self.path(key, partition)
        if not path.exists():
            return State.MISSING
        try:
            provenance = self._read_provenance(path, key, partition)
        except TableError:
            return State.CORRUPT
        if damaged := self._damaged_beside(provenance):
            return State.CORRUPT if damaged.exists() else State.MISSING
        try:
            fresh = provenance.fingerprint == self.lineage.fingerprint(
                key
            ) and provenance.inputs == self.input_versions(key, partition)
        except TableError:
            return State.STALE
        return State.FRESH if fresh else State.STALE


def _input_name(source: TableKey, partition: str | None) -> str:
    """Return the name of an input in provenance."""
    return f"{source}/{partition}" if partition else str(source)
