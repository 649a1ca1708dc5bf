"""Frames as HTML tables that can be sorted and downloaded."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from gradsim.analysis.schema import Schema
from gradsim.plots.labels import control_label, layer_label, method_label, power_of_ten

Format = Callable[..., str]


@dataclass(frozen=True)
class Column:
    """A table's column; `description` explains it to whoever points at the heading."""

    label: str
    numeric: bool
    description: str


@dataclass(frozen=True)
class Cell:
    """A table's cell; `value` is what it is sorted by."""

    text: str
    value: str


@dataclass(frozen=True)
class Table:
    """What the template needs to draw a table."""

    name: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    csv: str
    """The whole frame, unrounded, as a data URI."""


FORMATS: dict[str, Format] = {
    **dict.fromkeys(("accuracy", "low", "high"), lambda share: f"{100 * share:.1f}"),
    "share": lambda share: f"{100 * share:.3g}",
    **dict.fromkeys(
        (
            "mean", "median", "source_mean", "source_median", "similarity", "source_similarity",
            "best_other_similarity", "margin",
        ),
        lambda value: f"{value:.4f}",
    ),
    **dict.fromkeys(("stored", "reference"), lambda value: f"{value:.8g}"),
    **dict.fromkeys(("error", "mean_error", "error_sd", "predicted_sd"), power_of_ten),
    "sd_ratio": lambda ratio: f"{ratio:.3f}",
    **dict.fromkeys(
        ("agreement", "agreement_without_noise", "agreement_rightly_scaled"), lambda cosine: f"{cosine:.7f}"
    ),
    **dict.fromkeys(("parameters", "dimension"), lambda number: f"{number:,}"),
    "method": method_label,
    "control": control_label,
    "layer": layer_label,
}  # fmt: skip

UNITS = {"accuracy": " (%)", "low": " (%)", "high": " (%)", "share": " (%)"}


def table_of(name: str, caption: str, frame: pl.DataFrame, schema: Schema) -> Table:
    """A frame as a table.

    Args:
        name: of the file to download, without ending.
        caption: said above the table.
        frame: one row a row.
        schema: descriptions of its columns; one that is not in it has none.
    """
    columns = [
        Column(
            label=column.replace("_", " ") + UNITS.get(column, ""),
            numeric=dtype.is_numeric(),
            description=schema[column][1] if column in schema else "",
        )
        for column, dtype in frame.schema.items()
    ]
    rows = [[_cell(column, value) for column, value in row.items()] for row in frame.iter_rows(named=True)]
    csv = base64.b64encode(frame.write_csv().encode()).decode()
    return Table(name, caption, columns, rows, f"data:text/csv;charset=utf-8;base64,{csv}")


def _cell(column: str, value: object) -> Cell:
    if value is None:
        return Cell("–", "")
    return Cell(FORMATS.get(column, str)(value), str(value))


def texts_by_id(samples: pl.DataFrame | None) -> Mapping[str, list[tuple[str, str]]]:
    """The messages of each sample as pairs of role and text; empty if there are none at hand."""
    if samples is None:
        return {}
    return {
        str(sample): [(message["role"], message["content"]) for message in messages]
        for sample, messages in samples.select("id", "messages").iter_rows()
    }
