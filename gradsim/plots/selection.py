"""Performance of greedily selected layers compared with projections, and its transfer between settings."""

from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.analysis.selection import Criterion
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import percent, projection_label, setting_label
from gradsim.plots.marks import (
    DASHED,
    DOTTED,
    draw_columns,
    draw_steps,
    logarithmic,
    marked_steps,
    refuse_empty,
    within_hundred,
)
from gradsim.plots.style import BLUE, INK, PROJECTION_LOOKS, VERMILION, new_figure, styled

PANELS = {
    Criterion.ACCURACY: "accuracy (%), layers selected by accuracy",
    Criterion.SIMILARITY: "similarity to the full gradient, layers selected by similarity",
}

# Curves of the queries that selected the layers, and of others.
OWN: dict[str, Any] = {"color": BLUE, "marker": "o"}
OTHER: dict[str, Any] = {"color": VERMILION, "marker": "s", "linestyle": DASHED}

A_FEW = 5
"""Maximum number of layers of the selection in the title."""


@styled
def greedy_selection(
    greedy_by_accuracy: pl.DataFrame,
    greedy_by_similarity: pl.DataFrame,
    held_out_selection: pl.DataFrame,
    accuracy: pl.DataFrame,
    select_or_project: pl.DataFrame,
) -> Figure:
    """Draw the performance of selected layers over their share of the parameters, in sample and held out.

    If sizes are unknown, the x axis is the number of layers and projections are omitted.

    Args:
        greedy_by_accuracy: Table `greedy_by_accuracy`.
        greedy_by_similarity: Table `greedy_by_similarity`.
        held_out_selection: Table `held_out_selection`; if empty (one query), there is no held-out curve.
        accuracy: Table `accuracy`, for the full gradient and the projections.
        select_or_project: Table `select_or_project`, for the similarity of the projections; may be empty.

    Raises:
        TableError: A selection has no rows.
    """
    greedy = {Criterion.ACCURACY: greedy_by_accuracy, Criterion.SIMILARITY: greedy_by_similarity}
    for criterion, table in greedy.items():
        refuse_empty(table, f"greedy_by_{criterion}", "no layer was selected")
    sized = greedy_by_accuracy["parameter_share"].null_count() == 0
    every = accuracy.filter(pl.col("group") == "all")
    full = every.filter(pl.col("method") == FULL_GRADIENT).with_columns(pl.col("accuracy", "low", "high") * 100)

    figure = new_figure(_title(greedy_by_accuracy, held_out_selection, full), height=5.6)
    panels = dict(zip(Criterion, figure.subplots(2, 1, sharex=True), strict=True))
    for criterion, panel in panels.items():
        held_out = held_out_selection.filter(pl.col("criterion") == criterion)
        _draw_selection(panel, _drawn(greedy[criterion], criterion), _drawn(held_out, criterion))
        panel.set_title(PANELS[criterion])
        panel.grid()
    _draw_full_gradient(panels[Criterion.ACCURACY], full["accuracy"][0])
    _draw_full_gradient(panels[Criterion.SIMILARITY], 1)
    if sized:
        parameters = round(greedy_by_accuracy["parameters"][0] / greedy_by_accuracy["parameter_share"][0])
        _draw_projections(panels, _projections(every, select_or_project, parameters))
        label = "parameters of the layers or projection dimensions (% of the model, log scale)"
    else:
        label = "number of selected layers (log scale; layer sizes unknown)"
    panels[Criterion.SIMILARITY].set_xlabel(f"{label}\n{marked_steps(len(greedy_by_accuracy))}")
    within_hundred(panels[Criterion.ACCURACY])
    logarithmic(panels[Criterion.SIMILARITY], whole=not sized)
    handles, labels = panels[Criterion.ACCURACY].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, columnspacing=1.5)
    return figure


@styled
def transfer_of_selections(selection_transfer: pl.DataFrame) -> Figure:
    """Draw the performance of one setting's selections on another, with the other setting's own; one row per pair.

    Raises:
        TableError: There is only one setting.
    """
    refuse_empty(selection_transfer, "selection_transfer", "there is only one setting")
    pairs = selection_transfer.select("source_setting", "target_setting").unique(maintain_order=True)
    figure = new_figure(_transfer_title(selection_transfer), height=1.2 + 1.65 * len(pairs))
    grid = figure.subplots(len(pairs), 2, sharex=True, squeeze=False)
    for panels, (source, target) in zip(grid, pairs.iter_rows(), strict=True):
        rows = selection_transfer.filter(pl.col("source_setting") == source, pl.col("target_setting") == target)
        for panel, criterion in zip(panels, Criterion, strict=True):
            steps = _in_unit(rows.filter(pl.col("criterion") == criterion), criterion).sort("step")
            label = "selected on this setting (held out)"
            draw_steps(panel, steps["step"], steps, ["own"], label=label, **OWN)
            label = "selected on the other setting"
            draw_steps(panel, steps["step"], steps, ["value", "low", "high"], label=label, **OTHER)
            panel.grid()
        panels[0].set_title(f"{setting_label(source)} → {setting_label(target)}")
        panels[0].set_ylabel("accuracy (%)")
        within_hundred(panels[0])
        panels[1].set_ylabel("similarity")
    for panel in grid[-1]:
        logarithmic(panel, most=7, whole=True)
        panel.set_xlabel("number of layers (log scale)")
    figure.align_ylabels()
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2)
    return figure


def _draw_selection(panel: Axes, greedy: pl.DataFrame, held_out: pl.DataFrame) -> None:
    label = "in sample (same queries)"
    draw_steps(panel, greedy["place"], greedy, ["value", "low", "high"], label=label, **OWN)
    if held_out.height:
        label = "held out (other queries)"
        draw_steps(panel, held_out["place"], held_out, ["held_out", "low", "high"], label=label, **OTHER)


def _draw_full_gradient(panel: Axes, value: float) -> None:
    panel.axhline(value, color=INK, linewidth=1.3, linestyle=DOTTED, zorder=1.5, label="full gradient")


def _draw_projections(panels: dict[Criterion, Axes], projections: pl.DataFrame) -> None:
    for position, ((name,), rows) in enumerate(projections.group_by("projection", maintain_order=True)):
        marker, colour = PROJECTION_LOOKS[position % len(PROJECTION_LOOKS)]
        label = f"projection {projection_label(str(name))}"
        looks: dict[str, Any] = {"color": colour, "marker": marker, "label": label}
        draw_columns(panels[Criterion.ACCURACY], rows["place"], rows, ["accuracy", "low", "high"], **looks)
        known = rows.drop_nulls("similarity")
        panels[Criterion.SIMILARITY].plot(
            known["place"], known["similarity"], linestyle="none", markersize=4.5, **looks
        )


def _drawn(selection: pl.DataFrame, criterion: Criterion) -> pl.DataFrame:
    """Return a selection in the unit of its panel, with its `place` on the x axis."""
    place = pl.coalesce(pl.col("parameter_share") * 100, pl.col("step"))
    return _in_unit(selection, criterion).with_columns(place=place).sort("step")


def _in_unit(selection: pl.DataFrame, criterion: Criterion) -> pl.DataFrame:
    """Return a selection with accuracy in percent; similarity is unchanged."""
    values = [name for name in ("value", "low", "high", "own", "in_sample", "held_out") if name in selection.columns]
    return selection.with_columns(pl.col(values) * (100 if criterion is Criterion.ACCURACY else 1))


def _projections(accuracy: pl.DataFrame, select_or_project: pl.DataFrame, parameters: int) -> pl.DataFrame:
    """Return accuracy (%) with interval, similarity if known, and `place` on the x axis of each projection."""
    name = pl.col("method").str.extract_groups(r"^(?<projection>.+)-(?<dimension>\d+)$").struct
    similarities = select_or_project.select("projection", "dimension", similarity="projected_similarity")
    return (
        accuracy.with_columns(name.field("projection"), name.field("dimension").cast(pl.Int64))
        .drop_nulls("projection")
        .join(similarities.unique(maintain_order=True), on=["projection", "dimension"], how="left")
        .with_columns(pl.col("accuracy", "low", "high") * 100, place=100 * pl.col("dimension") / parameters)
    )


def _title(greedy: pl.DataFrame, held_out: pl.DataFrame, full: pl.DataFrame) -> str:
    """Return the in-sample and held-out accuracy of the shortest selection with the highest accuracy as a sentence."""
    best = greedy.sort("value", descending=True, maintain_order=True).row(0, named=True)
    layers = "1 layer" if best["step"] == 1 else f"{best['step']} layers"
    if best["parameter_share"] is not None:
        layers += f", {percent(best['parameter_share'])} of the parameters,"
    verb = "reaches" if best["step"] == 1 else "reach"
    finding = f"{layers} {verb} {percent(best['value'])} accuracy in sample"
    others = held_out.filter(pl.col("criterion") == Criterion.ACCURACY, pl.col("step") == best["step"])["held_out"]
    for share in others:
        finding += f" and {percent(share)} held out"
    return f"{finding}; the full gradient reaches {percent(full['accuracy'][0] / 100)}"


def _transfer_title(selection_transfer: pl.DataFrame) -> str:
    """Return the pair of settings where a short transferred selection differs most from the own one, as a sentence."""
    by_accuracy = selection_transfer.filter(pl.col("criterion") == Criterion.ACCURACY).drop_nulls("own")
    few = by_accuracy.filter(pl.col("step") == pl.col("step").filter(pl.col("step") <= A_FEW).max())
    if few.is_empty():
        return "Layers selected on one setting, evaluated on another"
    number = few["step"][0]
    layers, reach, own = ("1 layer", "reaches", "layer") if number == 1 else (f"{number} layers", "reach", "layers")
    apart = few.filter(~pl.col("own").is_between("low", "high"))
    if apart.is_empty():
        return (
            f"{layers} selected on another setting {reach} the accuracy of the setting's own selection "
            "within 95\u00a0% intervals"
        )
    gap = (pl.col("own") - pl.col("value")).abs()
    widest = apart.sort(gap, descending=True, maintain_order=True).row(0, named=True)
    source, target = setting_label(widest["source_setting"]), setting_label(widest["target_setting"])
    interval = f"95\u00a0% interval {100 * widest['low']:.1f} to {100 * widest['high']:.1f}"
    return (
        f"{layers} selected on {source} queries {reach} {percent(widest['value'])} accuracy ({interval}) on {target} "
        f"queries; the {own} selected there {reach} {percent(widest['own'])}"
    )
