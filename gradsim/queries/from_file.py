"""Queries that someone else made."""

from pathlib import Path
from typing import Literal

import polars as pl

from gradsim import samples as loading
from gradsim.errors import SampleError
from gradsim.queries.way import MadeQueries, Means, Way, rewritten
from gradsim.section import StudyPath


class QueryFile(Way):
    """Queries from a Parquet or JSONL file that holds every original's id, in any order."""

    method: Literal["file"] = "file"
    path: StudyPath

    @property
    def file(self) -> Path:
        """See `Way.file`."""
        return self.path

    def rewrite(self, samples: pl.DataFrame, means: Means) -> MadeQueries:
        """See `Way.rewrite`.

        Raises:
            SampleError: a query without an original, an original without a query, or a sample that no study can use.
        """
        queries = loading.validate(loading.load_file(self.path), None, str(self.path))
        originals, found = dict.fromkeys(means.ids), dict.fromkeys(queries["id"])
        if not means.trial and (unknown := next((each for each in found if each not in originals), None)):
            raise SampleError(
                f"{self.path}: query {unknown!r} has no original; "
                "remove it or give it the id of the original it was made from"
            )
        if missing := next((each for each in originals if each not in found), None):
            raise SampleError(f"{self.path}: original {missing!r} has no query; add one of that id")
        wanted = samples.select("id").join(queries, on="id", how="left", maintain_order="left")
        return MadeQueries(rewritten(wanted, wanted["messages"].to_list()))
