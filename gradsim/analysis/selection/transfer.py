"""Evaluation of one setting's layer selection in another setting."""

from collections.abc import Mapping
from itertools import permutations

import polars as pl

from gradsim.analysis.evaluation import Criterion
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Column, Schema, column_types, interval
from gradsim.analysis.selection.curves import value_of_selection

SELECTION_TRANSFER: Schema = {
    "criterion": Column(pl.String, "selection criterion: accuracy, or similarity to the full gradient"),
    "source_setting": Column(pl.String, "setting that the layers were chosen in"),
    "target_setting": Column(pl.String, "setting that the layers are evaluated in"),
    "step": Column(pl.Int32, "number of layers chosen so far"),
    "value": Column(pl.Float64, "value of these layers in the target"),
    **interval("interval: Wilson for accuracy, bootstrap for similarity"),
    "own": Column(pl.Float64, "held-out value in the target of the same number of layers, chosen in the target itself"),
}


def selection_transfer(
    layer_dots: Mapping[str, LayerDots],
    selections: Mapping[str, Mapping[Criterion, pl.DataFrame]],
    held_out: Mapping[str, pl.DataFrame],
    *,
    seed: int,
) -> pl.DataFrame:
    """Evaluate every setting's selections in every other setting; no rows if there is only one setting.

    Layers that hold only rounding error in the target are skipped.

    Settings may belong to different studies, as long as the target has the source's layers. Settings of one study share
    their true sources: their queries are different texts of the same samples.

    Args:
        layer_dots: setting -> its dot products.
        selections: setting -> criterion -> table `greedy_by_accuracy` or `greedy_by_similarity`.
        held_out: setting -> table `held_out_selection`.
        seed: seed of the bootstrap.

    Raises:
        TableError: a target lacks one of the source's layers.
    """
    frames = []
    for criterion in Criterion:
        for source, target in permutations(layer_dots, 2):
            chosen = selections[source][criterion]["layer"]
            noise = set(layer_dots[target].noise)
            layers = [layer for layer in chosen if layer not in noise]
            own = held_out[target].filter(criterion=str(criterion)).select("step", own="held_out")
            frames.append(
                value_of_selection(layer_dots[target], layers, criterion, seed=seed)
                .join(own, on="step", how="left", maintain_order="left")
                .select(
                    pl.lit(str(criterion)).alias("criterion"),
                    pl.lit(source).alias("source_setting"),
                    pl.lit(target).alias("target_setting"),
                    *("step", "value", "low", "high", "own"),
                )
            )
    return pl.concat([pl.DataFrame(schema=column_types(SELECTION_TRANSFER)), *frames])
