"""Small index files."""

from pathlib import Path

import numpy as np

from gradsim.tables import Provenance
from gradsim.tables.index import IndexHeader, index_writer

DIMENSIONS = {"embedding": 5, "head": 700}
FORMATS = ("float16", "float32")


def header(stored_format="float16"):
    return IndexHeader(projection="sjlt_1pct", dimensions=DIMENSIONS, stored_format=stored_format)


def vectors(count=7, scale=1e-9):
    """As small as gradients are: float16 alone would make zeros of them."""
    return np.random.default_rng(0).standard_normal((count, 705)).astype(np.float32) * np.float32(scale)


def write(path: Path, rows, stored_format="float16", **known) -> Provenance:
    with index_writer(path, header(stored_format), Provenance.model_validate(known)) as writer:
        for number, row in enumerate(rows):
            writer.add(f"s{number}", row)
    return writer.provenance
