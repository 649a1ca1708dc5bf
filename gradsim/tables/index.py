"""Files of projected gradients in memory-mapped Arrow IPC format.

One row per sample: its id, its vector, and for each layer the scale that its part of the vector was divided by (the
exponent range of float16 is too small for gradients) and the squared norm of that part. The header is schema metadata;
the provenance is metadata of a final batch without rows.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from gradsim.gradients.projection.vector_layout import VectorLayout
from gradsim.tables.files import METADATA_KEY, reading, shortened, writing_to, written_in_pieces
from gradsim.tables.provenance import Provenance
from gradsim.tables.seal import verify, with_seal

Format = Literal["float16", "float32"]

_HEADER_KEY = "gradsim_index"

# Bytes of vectors per record batch.
_BATCH_BYTES = 1 << 24

_UNREADABLE = (pa.ArrowException, OSError, KeyError, TypeError, ValueError)

_TYPES = {"float16": pa.float16(), "float32": pa.float32()}


class IndexHeader(BaseModel):
    """Description of the vectors in a file.

    Attributes:
        projection: name of the study's projection.
        dimensions: dimensions by layer, in the order of the vectors' parts.
        stored_format: format of the vectors' elements.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    projection: str
    dimensions: dict[str, int]
    stored_format: Format

    @property
    def layout(self) -> VectorLayout:
        """Position of each layer in a vector."""
        return VectorLayout.of(self.dimensions)


@dataclass(frozen=True, eq=False)
class StoredVectors:
    """A batch of B rows.

    Attributes:
        ids: B sample ids.
        vectors: (B, width), each layer's part divided by its scale.
        scales: (B, layers).
        self_dots: (B, layers), squared norms of the unscaled parts.
    """

    ids: list[str]
    vectors: NDArray[np.float16] | NDArray[np.float32]
    scales: NDArray[np.float32]
    self_dots: NDArray[np.float64]


class IndexWriter:
    """Incremental writer of an index file.

    Attributes:
        provenance: provenance to write; may be replaced until `finish`, which adds the data version.
    """

    def __init__(self, path: Path, header: IndexHeader, provenance: Provenance) -> None:
        self.provenance = provenance
        self._path = path
        self._header = header
        self._schema = _schema(header)
        self._file = pa.ipc.new_file(path, self._schema)
        self._digest = hashlib.sha256((provenance.revision or "").encode())
        self._waiting: list[tuple[str, _Row]] = []

    def add(self, sample: str, vector: NDArray[np.floating]) -> None:
        """Add a sample and its projected gradient, (width,)."""
        row = _stored(vector, self._header)
        self._waiting.append((sample, row))
        for part in (sample.encode(), row.vector.tobytes(), row.scale.tobytes(), row.self_dot.tobytes()):
            self._digest.update(part)
        if len(self._waiting) * row.vector.nbytes >= _BATCH_BYTES:
            self._write()

    def _write(self) -> None:
        rows = [row for _, row in self._waiting]
        columns = [pa.array([sample for sample, _ in self._waiting], pa.string())]
        for field, values in zip(list(self._schema)[1:], zip(*rows, strict=True), strict=True):
            flat = pa.array(np.concatenate(values), field.type.value_type)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        with writing_to(self._path):
            self._file.write_batch(pa.record_batch(columns, schema=self._schema))
        self._waiting.clear()

    def finish(self) -> None:
        """Write the remaining rows, then the provenance as metadata of a final batch without rows."""
        if self._waiting:
            self._write()
        self.provenance = self.provenance.model_copy(update={"data_version": shortened(self._digest.hexdigest())})
        end = pa.record_batch([pa.array([], field.type) for field in self._schema], schema=self._schema)
        self._file.write_batch(end, custom_metadata={METADATA_KEY: with_seal(self.provenance.model_dump_json())})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def index_writer(path: Path, header: IndexHeader, provenance: Provenance) -> AbstractContextManager[IndexWriter]:
    """Return a context manager that yields a writer and replaces `path` on success.

    Raises:
        TableError: the folder is not writable, or the disk is full.
    """
    return written_in_pieces(path, lambda partial: IndexWriter(partial, header, provenance))


class IndexFile:
    """A memory-mapped index file; use it in a `with` block.

    Attributes:
        header: description of the vectors.
        provenance: provenance of the file.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            TableError: the file is missing or damaged.
        """
        with reading(path, _UNREADABLE), ExitStack() as opened:
            verify(path)
            self._source = opened.enter_context(pa.memory_map(str(path)))
            self._file = pa.ipc.open_file(self._source)
            self._last = self._file.num_record_batches - 1
            metadata = self._file.get_batch_with_custom_metadata(self._last).custom_metadata
            self.provenance = Provenance.model_validate_json(metadata[METADATA_KEY], context=path)
            self.header = IndexHeader.model_validate_json(self._file.schema.metadata[_HEADER_KEY.encode()])
            opened.pop_all()  # __exit__ closes it

    def __enter__(self) -> "IndexFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.close()

    @property
    def rows(self) -> int:
        """Number of samples."""
        return sum(self._file.get_batch(place).num_rows for place in range(self._last))

    def batches(self) -> Iterator[StoredVectors]:
        """Yield all rows in batches; the arrays are views of the mapped file."""
        for place in range(self._last):
            batch = self._file.get_batch(place)
            vectors, scales, self_dots = (
                batch.column(name).flatten().to_numpy(zero_copy_only=True).reshape(batch.num_rows, -1)
                for name in ("vector", "scale", "self_dot")
            )
            yield StoredVectors(batch.column("id").to_pylist(), vectors, scales, self_dots)


def read_index_provenance(path: Path) -> Provenance:
    """Return the provenance at the end of a file.

    Raises:
        TableError: the file is missing, damaged, or not written by gradsim.
    """
    with IndexFile(path) as file:
        return file.provenance


def scan_ids(path: Path) -> pl.LazyFrame:
    """Return the sample ids of a file in a column `id`.

    Raises:
        TableError: the file is missing or damaged.
    """
    with IndexFile(path) as file:
        ids = [sample for batch in file.batches() for sample in batch.ids]
    return pl.LazyFrame({"id": ids}, schema={"id": pl.String})


class _Row(NamedTuple):
    vector: NDArray[np.float16] | NDArray[np.float32]
    scale: NDArray[np.float32]
    self_dot: NDArray[np.float64]


def _stored(vector: NDArray[np.floating], header: IndexHeader) -> _Row:
    """Return a row to store; float16 parts are divided by their largest element, so that they keep 11 bits."""
    stored = np.empty(header.layout.width, dtype=header.stored_format)
    scale = np.ones(len(header.dimensions), dtype=np.float32)
    self_dot = np.empty(len(header.dimensions))
    for layer, place in enumerate(header.layout.slices):
        if header.stored_format == "float16":
            scale[layer] = max(np.abs(vector[place]).max(), np.finfo(np.float32).tiny)
        stored[place] = vector[place] / scale[layer]
        # Computed from the stored values, so that no cosine exceeds 1.
        part = stored[place].astype(np.float64) * scale[layer]
        self_dot[layer] = part @ part
    return _Row(stored, scale, self_dot)


def _schema(header: IndexHeader) -> pa.Schema:
    layers = len(header.dimensions)
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("vector", pa.list_(_TYPES[header.stored_format], header.layout.width)),
            pa.field("scale", pa.list_(pa.float32(), layers)),
            pa.field("self_dot", pa.list_(pa.float64(), layers)),
        ],
        metadata={_HEADER_KEY: header.model_dump_json()},
    )
