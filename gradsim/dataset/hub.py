"""Samples from datasets of the Hugging Face Hub."""

from collections.abc import Mapping
from typing import Any

import datasets
import polars as pl

from gradsim.dataset.samples import conform
from gradsim.errors import SampleError


def load_hub(
    name: str, split: str = "train", revision: str | None = None, where: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Return the samples of a dataset on the Hub or in a local dataset folder.

    Args:
        name: Name of the dataset on the Hub, or path of a folder.
        split: Name of the split.
        revision: Commit, tag or branch; None selects the latest.
        where: Required value of each given column; other rows are dropped.

    Returns:
        Samples in the order of the dataset. Without an `id` column, ids consist of the last part of `name` and the row
        number in the full split.

    Raises:
        SampleError: The dataset, split or column does not exist, or no row matches `where`.
    """
    try:
        dataset = datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0]
        raise SampleError(
            f"dataset {name}: cannot be loaded ({reason}); check its name, split and revision in the study file, "
            "the network, and HF_TOKEN if it is gated"
        ) from error
    for column in ("messages", *(where or {})):
        if column not in dataset.column_names:
            present = ", ".join(dataset.column_names)
            raise SampleError(f"dataset {name}: has no column {column!r}, only {present}; fix the study file")

    rows = _matching_rows(dataset, where or {})
    if where and not rows:
        condition = " and ".join(f"{column} == {value!r}" for column, value in where.items())
        raise SampleError(f"dataset {name}: no row has {condition}; fix `where` in the study file")
    columns = [column for column in ("id", "messages") if column in dataset.column_names]
    frame: pl.DataFrame = dataset.select(rows).select_columns(columns).to_polars()
    if "id" not in columns:
        prefix = name.rstrip("/").rsplit("/", maxsplit=1)[-1]
        frame = frame.with_columns(id=pl.Series([f"{prefix}_{row}" for row in rows], dtype=pl.String))
    return conform(frame, f"dataset {name}")


def _matching_rows(dataset: Any, where: Mapping[str, str]) -> list[int]:
    """Return the row numbers of a `datasets.Dataset` that match `where`, reading only the columns involved."""
    if not where:
        return list(range(dataset.num_rows))
    columns: pl.DataFrame = dataset.select_columns(list(where)).to_polars()
    matches = columns.select(
        pl.all_horizontal(pl.col(column).cast(pl.String) == value for column, value in where.items())
    )
    return matches.to_series().arg_true().to_list()
