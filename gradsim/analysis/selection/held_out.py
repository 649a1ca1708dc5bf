"""Value of layer selections on held-out queries."""

import numpy as np
import polars as pl

from gradsim.analysis.evaluation import Criterion
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layers import sizes_of
from gradsim.analysis.schema import Column, Schema, column_types
from gradsim.analysis.selection.curves import evaluate_prefixes
from gradsim.analysis.selection.greedy import greedy_order
from gradsim.analysis.selection.halves import HeldOut, split_halves
from gradsim.analysis.statistics import Bootstrap

HELD_OUT_SELECTION: Schema = {
    "criterion": Column(pl.String, "selection criterion: accuracy, or similarity to the full gradient"),
    "step": Column(pl.Int32, "number of layers chosen so far"),
    "in_sample": Column(pl.Float64, "value on the half that chose the layers, averaged over all halves"),
    "held_out": Column(
        pl.Float64, "value on the other half, averaged over all halves; every split holds out each query once"
    ),
    "low": Column(pl.Float64, "lower end of the 95 % interval: Wilson for accuracy, bootstrap for similarity"),
    "high": Column(pl.Float64, "upper end of the interval, which covers variation over queries but not over splits"),
    "parameter_share": Column(
        pl.Float64, "share of the model's parameters, averaged over all halves; null if sizes are unknown"
    ),
}


def held_out_selection(layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Evaluate greedy selections by each criterion on held-out halves of the queries, over repeated splits.

    There are no rows with fewer than two queries.

    Raises:
        TableError: a layer is not in `parameters_per_layer`.
    """
    sizes = sizes_of(layer_dots.every_layer, parameters_per_layer)
    n_queries, n_layers = layer_dots.query_self_dots.shape
    halves = list(split_halves(n_queries, seed=seed)) if n_queries > 1 else []
    frames = [pl.DataFrame(schema=column_types(HELD_OUT_SELECTION))]
    for criterion in Criterion if halves else ():
        held_out, in_sample, shares = HeldOut(), np.zeros(n_layers), np.zeros(n_layers)
        for half in halves:
            training = layer_dots.of_queries(half.chosen_on)
            order = greedy_order(training, criterion).order
            held_out.add(half, evaluate_prefixes(layer_dots.of_queries(half.judged_on), order))
            in_sample += evaluate_prefixes(training, order).value(criterion) / len(halves)
            if sizes is not None:
                shares += np.cumsum(sizes[order]) / sizes.sum() / len(halves)
        low, high = held_out.interval(criterion, Bootstrap(n_queries, seed=seed))
        frames.append(
            pl.DataFrame(
                {
                    "criterion": [str(criterion)] * n_layers,
                    "step": pl.int_range(1, n_layers + 1, dtype=pl.Int32, eager=True),
                    "in_sample": in_sample,
                    "held_out": held_out.value(criterion),
                    "low": low,
                    "high": high,
                    "parameter_share": shares if sizes is not None else pl.Series([None] * n_layers, dtype=pl.Float64),
                }
            )
        )
    return pl.concat(frames)
