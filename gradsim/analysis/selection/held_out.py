"""What a selection is worth on queries that had no part in it."""

import numpy as np
import polars as pl

from gradsim.analysis.evaluation import Criterion
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.selection.curves import evaluate_prefixes
from gradsim.analysis.selection.greedy import greedy_order
from gradsim.analysis.selection.halves import HeldOut, split_halves
from gradsim.analysis.selection.sizes import sizes_of
from gradsim.analysis.statistics import Bootstrap

HELD_OUT_SELECTION: Schema = {
    "criterion": (pl.String, "accuracy, or similarity to the full gradient: what layers are selected by"),
    "step": (pl.Int32, "number of layers chosen so far"),
    "in_sample": (pl.Float64, "value on the half of the queries that chose the layers, mean of all halves"),
    "held_out": (pl.Float64, "value on the other half, mean of all halves; each query is held out once a split"),
    "low": (
        pl.Float64,
        "lower end of its 95 % interval: Wilson's for accuracy, a bootstrap for similarity",
    ),
    "high": (pl.Float64, "the interval's upper end; that other splits would choose other layers is not in it"),
    "parameter_share": (pl.Float64, "share of the model's parameters, mean of all halves; null if sizes are unknown"),
}


def held_out_selection(layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Greedy selections by either criterion on one half of the queries, judged on the other, for repeated splits.

    Args:
        layer_dots: of all queries; of fewer than two, there is no row.
        parameters_per_layer: the table of that name.
        seed: of the splits and the bootstrap.
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
