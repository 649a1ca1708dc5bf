"""One setting's selection of layers, judged in another."""

from collections.abc import Mapping
from itertools import permutations

import polars as pl

from gradsim.analysis.evaluation import Criterion
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.selection.curves import value_of_selection

SELECTION_TRANSFER: Schema = {
    "criterion": (pl.String, "accuracy, or similarity to the full gradient: what layers are selected by"),
    "source_setting": (pl.String, "the setting whose queries chose the layers"),
    "target_setting": (pl.String, "the setting whose queries judge them"),
    "step": (pl.Int32, "number of layers chosen so far"),
    "value": (pl.Float64, "what these layers are worth in the target"),
    "low": (
        pl.Float64,
        "lower end of its 95 % interval: Wilson's for accuracy, a bootstrap for similarity",
    ),
    "high": (pl.Float64, "the interval's upper end"),
    "own": (pl.Float64, "what as many layers are worth that other queries of the target chose: held out, too"),
}


def selection_transfer(
    layer_dots: Mapping[str, LayerDots],
    selections: Mapping[str, Mapping[Criterion, pl.DataFrame]],
    held_out: Mapping[str, pl.DataFrame],
    *,
    seed: int,
) -> pl.DataFrame:
    """Judge every setting's selections in every other; no rows where there is but one setting.

    A selection passes over layers that hold only rounding in the target.

    Settings may be of several studies, as long as the target has the source's layers. Settings of one study share
    their sources: their queries are other texts of the same samples.

    Args:
        layer_dots: setting -> its dots.
        selections: setting -> criterion -> table `greedy_by_accuracy` or `greedy_by_similarity`.
        held_out: setting -> table `held_out_selection`.
        seed: of the bootstrap.

    Raises:
        TableError: a target lacks a source's layers.
    """
    frames = []
    for criterion in Criterion:
        for source, target in permutations(layer_dots, 2):
            chosen = selections[source][criterion]["layer"].cast(pl.String)
            layers = chosen.filter(~chosen.is_in(layer_dots[target].noise.cast(pl.String).to_list())).to_list()
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
