"""Previews of analyses in the web UI: the first rows and the figure."""

import base64
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from gradsim import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW_ROWS = 12


def preview(table: pl.DataFrame, figure: "Figure | None" = None) -> dict[str, dg.MarkdownMetadataValue]:
    """Return the metadata `preview` of a table and, if there is a figure, `figure`."""
    metadata = {"preview": dg.MetadataValue.md(markdown(table.head(PREVIEW_ROWS)))}
    if figure is not None:
        image = base64.b64encode(plots.to_png(figure, dots_per_inch=110)).decode()
        metadata["figure"] = dg.MetadataValue.md(f"![{plots.title_of(figure)}](data:image/png;base64,{image})")
    return metadata


def markdown(table: pl.DataFrame) -> str:
    """Return a table as Markdown."""
    with pl.Config(
        tbl_formatting="MARKDOWN",
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_rows=-1,
        tbl_cols=-1,
        float_precision=4,
        fmt_str_lengths=60,
        tbl_width_chars=400,
    ):
        return str(table)
