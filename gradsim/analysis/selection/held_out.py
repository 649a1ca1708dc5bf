"""What a selection is worth on queries that had no part in it."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.selection.curves import evaluate_prefixes
from gradsim.analysis.selection.greedy import greedy_order
from gradsim.analysis.selection.sizes import sizes_of
from gradsim.analysis.statistics import Bootstrap

Positions = NDArray[np.int64]

SPLITS = 10

HELD_OUT_SELECTION: Schema = {
    "criterion": (pl.String, "accuracy, or similarity to the full gradient: what layers are selected by"),
    "step": (pl.Int32, "number of layers chosen so far"),
    "in_sample": (pl.Float64, "value on the half of the queries that chose the layers, mean of all halves"),
    "held_out": (pl.Float64, "value on the other half; each query is held out once a split"),
    "low": (pl.Float64, "lower end of the 95 % interval of held_out, a bootstrap over queries"),
    "high": (pl.Float64, "the interval's upper end"),
    "parameter_share": (pl.Float64, "share of the model's parameters, mean of all halves; null if sizes are unknown"),
}


def held_out_selection(layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Greedy selections by either criterion on one half of the queries, judged on the other, for repeated splits.

    A query's share in `held_out` is its mean over the splits, so that the interval says what other queries would
    change, not what other splits would.

    Args:
        layer_dots: of all queries; of fewer than two, there is no row.
        parameters_per_layer: the table of that name.
        seed: of the splits and the bootstrap.
    """
    sizes = sizes_of(layer_dots.layers, parameters_per_layer)
    n_queries, n_layers = layer_dots.query_self_dots.shape
    frames = [pl.DataFrame(schema=column_types(HELD_OUT_SELECTION))]
    for criterion in Criterion if n_queries > 1 else ():
        held_out, in_sample, shares = Evaluation.empty(n_queries, n_layers), np.zeros(n_layers), np.zeros(n_layers)
        halves = [half for split in range(SPLITS) for half in split_halves(n_queries, seed=seed, split=split)]
        for chosen_on, judged_on in halves:
            training = layer_dots.of_queries(chosen_on)
            order, _ = greedy_order(training, criterion)
            held_out.add(evaluate_prefixes(layer_dots.of_queries(judged_on), order), judged_on)
            in_sample += evaluate_prefixes(training, order).value(criterion) / len(halves)
            if sizes is not None:
                shares += np.cumsum(sizes[order]) / sizes.sum() / len(halves)
        low, high = held_out.interval(criterion, Bootstrap(n_queries, seed=seed))
        scale = SPLITS if criterion is Criterion.ACCURACY else 1
        frames.append(
            pl.DataFrame(
                {
                    "criterion": [str(criterion)] * n_layers,
                    "step": pl.int_range(1, n_layers + 1, dtype=pl.Int32, eager=True),
                    "in_sample": in_sample,
                    "held_out": held_out.value(criterion) / scale,
                    "low": low / scale,
                    "high": high / scale,
                    "parameter_share": shares if sizes is not None else pl.Series([None] * n_layers, dtype=pl.Float64),
                }
            )
        )
    return pl.concat(frames)


def split_halves(n_queries: int, *, seed: int, split: int = 0) -> Iterator[tuple[Positions, Positions]]:
    """Both ways to choose on one half of the queries and judge on the other; positions ascend in each half."""
    drawn = np.random.default_rng([seed, split]).permutation(n_queries)
    first, second = np.sort(drawn[: n_queries // 2]), np.sort(drawn[n_queries // 2 :])
    yield first, second
    yield second, first
