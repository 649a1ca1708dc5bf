"""Distributions of the similarity of the true source and of the best other candidate."""

import numpy as np
import polars as pl
import seaborn
from matplotlib.figure import Figure

from gradsim.plots.style import BLUE, VERMILION, new_figure, styled

BINS = 40


@styled
def source_against_others(decisions: pl.DataFrame) -> Figure:
    """Draw histograms of the similarities of true sources and of the best other candidates.

    Args:
        decisions: Table `decisions`.
    """
    source = decisions["source_similarity"].to_numpy()
    other = decisions["best_other_similarity"].drop_nulls().to_numpy()
    figure = new_figure(_title(decisions), height=3.0)
    axes = figure.subplots()
    bins = np.histogram_bin_edges(np.concatenate([source, other]), BINS)
    for values, label, colour, line in (
        (other, "best other candidate", VERMILION, (0, (3, 2))),
        (source, "true source", BLUE, "solid"),
    ):
        if len(values) == 0:
            continue
        seaborn.histplot(
            x=values,
            bins=bins,
            ax=axes,
            element="step",
            color=colour,
            alpha=0.18,
            linewidth=1.6,
            linestyle=line,
            label=f"{label}, median {np.median(values):.3f}",
        )
    axes.set_xlabel("similarity to the query (cosine of the full gradients)")
    axes.set_ylabel("number of queries")
    axes.grid(axis="y")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1])
    return figure


def _title(decisions: pl.DataFrame) -> str:
    found = int((decisions["credit"] == 1).sum())
    tied = int(decisions["credit"].is_between(0, 1, closed="none").sum())
    wins = f"The true source is the most similar candidate for {found} of {len(decisions)}"
    return f"{wins} queries" + (f" and ties with others for {tied}" if tied else "")
