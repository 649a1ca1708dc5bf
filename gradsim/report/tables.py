"""Conversion of frames to sortable, downloadable HTML tables."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from gradsim.analysis.schema import Schema
from gradsim.plots.labels import (
    baseline_label,
    control_label,
    count,
    layer_label,
    method_label,
    points,
    power_of_ten,
    projection_label,
)
from gradsim.report.downloads import Download

Format = Callable[..., str]


@dataclass(frozen=True)
class Shown:
    """Display of a frame's column.

    Attributes:
        column: Name of the column.
        write: Function that formats a value.
        label: Label of the heading; None uses the column's name.
        interval: Columns with the ends of the interval, shown in one column.
    """

    column: str
    write: Format = str
    label: str | None = None
    interval: tuple[str, str] | None = None


@dataclass(frozen=True)
class Heading:
    """Heading of a table column, with a description of its content."""

    label: str
    numeric: bool
    description: str


@dataclass(frozen=True)
class Cell:
    """Table cell; `value` is the sort key."""

    text: str
    value: str


@dataclass(frozen=True)
class Table:
    """Table on the page.

    Attributes:
        name: Name, identical for all settings.
        caption: Caption above the table.
        headings: Headings of the columns.
        rows: Cells of each row, one per heading.
        download: Download of the whole frame, including columns that are not shown.
    """

    name: str
    caption: str
    headings: list[Heading]
    rows: list[list[Cell]]
    download: Download


def in_percent(share: float) -> str:
    """Format a share in percent: `0.9929` -> `99.3`."""
    return f"{100 * share:.1f}"


def in_points(difference: float) -> str:
    """Format a difference in percentage points: `-0.0121` -> `−1.2`."""
    return points(100 * difference)


def three_digits(share: float) -> str:
    """Format a possibly small share in percent with three digits: `0.0123` -> `1.23`."""
    return f"{100 * share:.3g}"


def cosine(value: float) -> str:
    """Format a cosine with four decimals."""
    return f"{value:.4f}"


def p_value(p: float) -> str:
    """Format a p-value: `0.0321` -> `0.032`, `3e-07` -> `3·10⁻⁷`."""
    return f"{p:.2g}" if p >= 0.001 else power_of_ten(p)


LAYER = Shown("layer", layer_label)
QUERIES = Shown("queries", "{:,}".format)
SIMILARITY = Shown("similarity", cosine, interval=("similarity_low", "similarity_high"))
P_HOLM = Shown("p_holm", p_value, "p (Holm)")


def share_shown(column: str, label: str, interval: tuple[str, str] | None = ("low", "high")) -> Shown:
    """Return the display of a share in percent, with its interval."""
    return Shown(column, in_percent, f"{label} (%)", interval)


COLUMNS: dict[str, Sequence[Shown]] = {
    "accuracy": (
        Shown("method", method_label), Shown("group"), share_shown("accuracy", "accuracy"), QUERIES, Shown("tied"),
    ),
    "controls": (Shown("control", control_label), share_shown("accuracy", "accuracy"), QUERIES, Shown("tied")),
    "baseline_differences": (
        Shown("baseline", baseline_label), share_shown("accuracy", "accuracy", None),
        Shown("difference", in_points, "lead of the gradient (points)", ("low", "high")),
        Shown("only_full", label="only the gradient"), Shown("only_baseline", label="only the baseline"), P_HOLM,
    ),
    "method_differences": (
        Shown("method", method_label), Shown("other", method_label, "versus"),
        Shown("difference", in_points, "difference (points)", ("low", "high")),
        Shown("only_method", label="only the first"), Shown("only_other", label="only the other"), P_HOLM,
    ),
    "best_similarity": (
        Shown("method", method_label), Shown("candidate"), Shown("mean", cosine, interval=("mean_low", "mean_high")),
        Shown("median", cosine, interval=("median_low", "median_high")),
    ),
    "retrieval": (
        Shown("method", method_label), Shown("group"), Shown("metric", lambda name: name.replace("_", " ")), Shown("k"),
        Shown("value", "{:.4f}".format, interval=("low", "high")), QUERIES,
    ),
    "layers": (
        LAYER, Shown("component"), Shown("block"), share_shown("accuracy", "accuracy"),
        Shown("only_layer", label="only the layer"), Shown("only_full", label="only the full gradient"), P_HOLM,
        Shown("similarity", cosine, "similarity to the full gradient", ("similarity_low", "similarity_high")),
        Shown("parameters", count), Shown("share", three_digits, "share (%)"),
    ),
    "layer_means": (
        Shown("grouping"), Shown("group"), Shown("layers"),
        share_shown("accuracy", "accuracy", ("accuracy_low", "accuracy_high")), SIMILARITY,
    ),
    "select_or_project": (
        Shown("projection", projection_label), Shown("dimension", count), Shown("criterion", label="selected by"),
        share_shown("selected_accuracy", "selected", None), share_shown("projected_accuracy", "projected", None),
        Shown("difference", in_points, "selected − projected (points)", ("low", "high")), P_HOLM,
        Shown("selected_similarity", "{:.3f}".format, "similarity, selected"),
        Shown("projected_similarity", "{:.3f}".format, "similarity, projected"),
        Shown("similarity_difference", "{:+.4f}".format, "selected − projected", ("similarity_low", "similarity_high")),
    ),
    "selection_under_budget": (
        Shown("criterion", label="selected by"), Shown("budget", count, "most parameters"),
        Shown("budget_share", three_digits, "of all (%)"), Shown("layers"),
        share_shown("accuracy", "accuracy", ("accuracy_low", "accuracy_high")), SIMILARITY,
    ),
    "projection_audit": (
        Shown("projection", projection_label), Shown("dimension", count), Shown("pairs", "{:,}".format),
        Shown("mean_error", power_of_ten), Shown("error_sd", power_of_ten), Shown("predicted_sd", power_of_ten),
        Shown("sd_ratio", "{:.3f}".format),
        Shown("agreement", "{:.6f}".format, interval=("agreement_low", "agreement_high")),
        Shown("agreement_without_noise", "{:.6f}".format), Shown("agreement_rightly_scaled", "{:.6f}".format),
    ),
    "exclusions": (Shown("id"), Shown("reason")),
    "truncations": (Shown("id"), Shown("kept")),
    "faults": (Shown("setting"), Shown("fault"), Shown("prompts", count), Shown("answers", count)),
}  # fmt: skip


def table_of(name: str, caption: str, frame: pl.DataFrame, schema: Schema, download: Download) -> Table:
    """Return a frame as a table.

    Args:
        name: Key of the displayed columns in `COLUMNS`; for any other name, all columns are shown.
        caption: Caption above the table.
        frame: Rows of the table; columns missing from the frame are not shown.
        schema: Descriptions of the columns.
        download: Download of the whole frame.
    """
    every = COLUMNS.get(name) or [Shown(column, _plain) for column in frame.columns]
    shown = [each for each in every if each.column in frame.columns]
    headings = [heading for each in shown for heading in _headings(each, frame.schema[each.column], schema)]
    rows = [[cell for each in shown for cell in _cells(each, row)] for row in frame.iter_rows(named=True)]
    return Table(name, caption, headings, rows, download)


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _headings(shown: Shown, dtype: pl.DataType, schema: Schema) -> Iterator[Heading]:
    _, description = schema.get(shown.column, (None, ""))
    yield Heading(shown.label or shown.column.replace("_", " "), dtype.is_numeric(), description)
    if shown.interval:
        yield Heading(
            "95 % interval", True, f"interval of the {shown.column.replace('_', ' ')}, sorted by the lower end"
        )


def _cells(shown: Shown, row: dict[str, object]) -> Iterator[Cell]:
    yield _cell(shown.write, row[shown.column])
    if shown.interval:
        low, high = (row[end] for end in shown.interval)
        start = _cell(shown.write, low)
        yield Cell("–" if low is None else f"{start.text} to {_cell(shown.write, high).text}", start.value)


def _cell(write: Format, value: object) -> Cell:
    """Return a cell with the formatted value; NaN and infinity use the notation of the page's script."""
    if value is None:
        return Cell("–", "")
    if isinstance(value, float):
        if math.isnan(value):
            return Cell("–", "")
        if math.isinf(value):
            return Cell("∞" if value > 0 else "−∞", "Infinity" if value > 0 else "-Infinity")
        return Cell(write(value).replace("-", "−"), str(value))
    return Cell(write(value), str(value))
