"""Datasets that the library `datasets` reads: from the Hugging Face Hub, from local folders, and saved ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import polars as pl

from gradsim.dataset.files import Rows
from gradsim.dataset.samples import LoadedSamples, samples_of
from gradsim.errors import SampleError, first_line
from gradsim.study import HubDataset, LossOn


def load_hub(section: HubDataset, loss_on: LossOn = "last_answer") -> LoadedSamples:
    """Return the samples of a dataset on the Hub or in a local dataset folder.

    Args:
        section: Name of the dataset or path of a folder; subset, split, revision and rows to use; format and columns.
        loss_on: Messages that the loss covers; others may have weight 0.

    Returns:
        Samples in the order of the dataset. Without an `id` column, ids consist of the last part of the name and the
        row number in the full split.

    Raises:
        SampleError: The dataset, subset, split or column does not exist, a row cannot hold samples, or no row matches
            `where`.
    """
    name = section.hub
    try:
        dataset = datasets.load_dataset(name, section.subset, split=section.split, revision=section.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _not_loaded(section, error) from error
    rows = _rows(dataset, f"dataset {name}", _matching_rows(dataset, section))
    return samples_of(rows, section, name.rstrip("/").rsplit("/", maxsplit=1)[-1], loss_on)


def read_saved(folder: Path) -> Rows:
    """Return the rows of a folder that `Dataset.save_to_disk` wrote.

    Raises:
        SampleError: It is another folder, or contains several splits.
    """
    try:
        dataset = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise SampleError(
            f"{folder}: not a folder that `save_to_disk` wrote ({first_line(error)}); name a file, "
            "or a folder of files as `dataset.hub`"
        ) from error
    if isinstance(dataset, datasets.DatasetDict):
        splits = ", ".join(dataset)
        raise SampleError(f"{folder}: contains the splits {splits}; name one, such as {folder / next(iter(dataset))}")
    return _rows(dataset, str(folder), range(dataset.num_rows))


def _not_loaded(section: HubDataset, error: Exception) -> SampleError:
    """Return an error that says why a dataset cannot be loaded and what to do about it."""
    name, reason = section.hub, first_line(error)
    fix = "check its name, subset, split and revision in the study file, the network, and HF_TOKEN if it is gated"
    if isinstance(error, OSError) and _in_cache(error.filename):
        reason = f"{error.filename}: {error.strerror}"
        fix = "set HF_HOME to a folder that you can write"
    elif isinstance(error, datasets.exceptions.DatasetGenerationError):
        reason = " ".join(str(error.__cause__ or error).split())
        fix = "correct its files, or convert them to Parquet files of the same columns"
    elif "Dataset scripts are no longer supported" in str(error):
        reason = "it is a script, which would run code"
        fix = "set `revision: refs/convert/parquet` if the Hub has a copy without it, or download its data"
    elif "Config name is missing" in str(error):
        subsets = datasets.get_dataset_config_names(name, revision=section.revision)
        reason = f"it has the subsets {', '.join(subsets)}"
        fix = "set `dataset.subset` in the study file to one of them"
    return SampleError(f"dataset {name}: cannot be loaded ({reason}); {fix}")


def _in_cache(path: str | None) -> bool:
    """Return whether a path is in the cache of `datasets`, or above it."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    return path is not None and (Path(path).is_relative_to(cache) or cache.is_relative_to(path))


def _rows(dataset: Any, source: str, numbers: Sequence[int]) -> Rows:
    """Return the rows of a `datasets.Dataset` with these numbers."""
    dataset = dataset.with_format(None)  # saved with another format, its rows would be tensors
    table = dataset.data
    return Rows(
        source,
        dataset.column_names,
        frozenset(name for name in dataset.column_names if table.column(name).null_count < table.num_rows),
        numbers,
        lambda columns: dataset.select(numbers).select_columns(columns),
    )


def _matching_rows(dataset: Any, section: HubDataset) -> Sequence[int]:
    """Return the row numbers of a `datasets.Dataset` that match `where`, reading only the columns involved."""
    source, where = f"dataset {section.hub}", section.where
    if not where:
        return range(dataset.num_rows)
    for column in where:
        if column not in dataset.column_names:
            present = ", ".join(dataset.column_names)
            raise SampleError(f"{source}: has no column {column!r}, only {present}; fix the study file")
    frame: pl.DataFrame = dataset.select_columns(list(where)).to_polars()
    conditions = []
    for column, value in where.items():
        kind = frame.schema[column]
        if not _comparable(kind, value):
            raise SampleError(
                f"{source}: column {column!r} holds {kind}, which cannot be {value!r}; fix `where` in the study file"
            )
        text = isinstance(value, str)
        conditions.append((pl.col(column).cast(pl.String) if text else pl.col(column)) == value)
    rows = frame.select(pl.all_horizontal(conditions)).to_series().arg_true().to_list()
    if not rows:
        condition = " and ".join(f"{column} == {value!r}" for column, value in where.items())
        raise SampleError(f"{source}: no row has {condition}; fix `where` in the study file")
    return rows


def _comparable(kind: pl.DataType, value: str | bool | int | float) -> bool:
    """Return whether a column can hold a value; text compares with how numbers and dates are written."""
    if isinstance(value, bool):
        return kind == pl.Boolean
    if isinstance(value, str):
        return not kind.is_nested() and kind != pl.Binary
    return kind.is_numeric()
