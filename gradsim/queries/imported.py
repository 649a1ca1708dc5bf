"""Queries of results that were imported."""

from typing import Literal

import polars as pl

from gradsim.queries.way import MadeQueries, Means, Way


class Imported(Way):
    """Queries of which only the ids are known."""

    method: Literal["imported"] = "imported"

    def rewrite(self, samples: pl.DataFrame, means: Means) -> MadeQueries:
        """Nobody makes them again."""
        raise ValueError(f"queries of {means.name} were imported, nothing makes them")
