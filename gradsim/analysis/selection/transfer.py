"""One setting's selection of layers, judged in another."""

from collections.abc import Mapping

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
    "low": (pl.Float64, "lower end of its 95 % interval, a bootstrap over the target's queries"),
    "high": (pl.Float64, "the interval's upper end"),
    "own": (pl.Float64, "what as many layers are worth that the target's queries chose themselves"),
}


def selection_transfer(
    layer_dots: Mapping[str, LayerDots],
    selections: Mapping[str, Mapping[Criterion, pl.DataFrame]],
    parameters_per_layer: pl.DataFrame,
    *,
    seed: int,
) -> pl.DataFrame:
    """Every setting's selections in every other; no rows where there is but one setting.

    Settings may be of several studies, as long as their layers have the same names.

    Args:
        layer_dots: setting -> its dots.
        selections: setting -> criterion -> table `greedy_by_accuracy` or `greedy_by_similarity`.
        parameters_per_layer: the table of that name.
        seed: of the bootstrap.

    Raises:
        TableError: a setting lacks another's layers.
    """
    frames = [
        value_of_selection(
            layer_dots[target],
            selection["layer"].cast(pl.String).to_list(),
            parameters_per_layer,
            criterion,
            seed=seed,
        ).select(
            pl.lit(str(criterion)).alias("criterion"),
            pl.lit(source).alias("source_setting"),
            pl.lit(target).alias("target_setting"),
            "step",
            "value",
            "low",
            "high",
            selections[target][criterion]["value"].alias("own"),
        )
        for criterion in Criterion
        for source, of_source in selections.items()
        for target in layer_dots
        if target != source
        for selection in [of_source[criterion]]
    ]
    return pl.concat([pl.DataFrame(schema=column_types(SELECTION_TRANSFER)), *frames])
