import polars as pl
import pytest

from gradsim.errors import TableError
from gradsim.tables.combine import TOLERANCE, combine

IDS, LAYERS = pl.Enum(["b", "a", "c"]), pl.Enum(["z", "y"])


def original_self(*rows: tuple[str, str, float]) -> pl.DataFrame:
    schema = {"original_id": IDS, "layer": LAYERS, "self_dot": pl.Float64()}
    return pl.DataFrame(list(rows), schema=schema, orient="row").with_columns(loss=pl.lit(1.0), noise=pl.lit(False))


def test_the_lowest_partition_s_value_stands_in_dataset_and_layer_order() -> None:
    near = 2.0 * (1 + TOLERANCE / 2)
    partitions = original_self(
        ("c", "z", 2.0), ("c", "y", 0.0), ("b", "z", 4.0), ("b", "y", 5.0),
        ("c", "z", near), ("c", "y", 0.0), ("a", "z", 6.0), ("a", "y", 7.0),
    )  # fmt: skip
    for rows in (8, 4, 3, 1):
        combined = pl.concat(combine("original_self", partitions.iter_slices(rows)))
        assert combined.columns == partitions.columns
        assert combined.select("original_id", "layer", "self_dot").rows() == [
            ("b", "z", 4.0), ("b", "y", 5.0), ("a", "z", 6.0), ("a", "y", 7.0), ("c", "z", 2.0), ("c", "y", 0.0),
        ]  # fmt: skip


@pytest.mark.parametrize("rows", [4, 2, 1])
@pytest.mark.parametrize("factor", [1 + 1.1 * TOLERANCE, 1 - 1.1 * TOLERANCE])
def test_partitions_that_disagree(factor: float, rows: int) -> None:
    partitions = original_self(("a", "y", 1.0), ("c", "z", 2.0), ("a", "y", 1.0), ("c", "z", 2.0 * factor))
    low, high = sorted([2.0, 2.0 * factor])
    with pytest.raises(TableError) as caught:
        list(combine("original_self", partitions.iter_slices(rows)))
    assert str(caught.value) == (
        f"original_self: partitions disagree on c, layer z: {low:.8g} and {high:.8g}; recompute them with --force"
    )


def test_projected_self_dots_agree_in_proportion_to_the_gradients_norm() -> None:
    """Few dimensions may keep next to nothing of a layer, and rounding goes by what the layer had."""

    def rows(of_small: float, projection: str = "p") -> pl.DataFrame:
        selves = original_self(("a", "z", 1.0), ("a", "y", of_small))
        return selves.select(pl.lit(projection).alias("projection"), "original_id", "layer", "self_dot")

    near = list(combine("projected_original_self", [rows(1e-9), rows(2e-9), rows(5.0, "q")]))
    assert pl.concat(near)["self_dot"].to_list() == [1.0, 1e-9, 1.0, 5.0]
    with pytest.raises(TableError, match="projected_original_self: partitions disagree on a, layer y"):
        list(combine("projected_original_self", [rows(1e-9), rows(1e-4)]))


def test_an_expert_that_one_partition_saw_and_another_did_not() -> None:
    with pytest.raises(TableError, match="disagree on a, layer y: 0 and 1e-30"):
        list(combine("original_self", [original_self(("a", "y", 0.0), ("a", "y", 1e-30))]))


def with_loss(loss: float, self_dot: float = 1.0, *, noise: bool = False) -> pl.DataFrame:
    """Original a in two layers, y marked where `noise` says so."""
    marks = pl.Series("noise", [False, noise])
    return original_self(("a", "z", 100.0), ("a", "y", self_dot)).with_columns(marks, loss=pl.lit(loss))


@pytest.mark.parametrize("loss", [1e-4, 3.0])
def test_the_lowest_partition_s_loss_and_marks_stand(loss: float) -> None:
    near = loss + 0.9 * TOLERANCE * max(loss, 1)
    (combined,) = combine("original_self", [with_loss(loss), with_loss(near, noise=True)])
    assert combined.select("layer", "loss", "noise").rows() == [("z", loss, False), ("y", loss, False)]
    with pytest.raises(TableError) as caught:
        list(combine("original_self", [with_loss(loss), with_loss(loss + 1.1 * TOLERANCE * max(loss, 1))]))
    assert str(caught.value).startswith(f"original_self: partitions disagree on the loss of a: {loss:.8g} and ")


def test_rounding_in_a_layer_that_holds_nothing_else_may_differ() -> None:
    (combined,) = combine("original_self", [with_loss(1.0, 1e-9, noise=True), with_loss(1.0, 5e-9, noise=True)])
    assert combined["self_dot"].to_list() == [100.0, 1e-9]
    assert combined["noise"].to_list() == [False, True]
    with pytest.raises(TableError, match="disagree on a, layer y"):
        list(combine("original_self", [with_loss(1.0, 1e-9, noise=True), with_loss(1.0, 1e-2, noise=True)]))


def test_other_tables_are_put_one_after_the_other() -> None:
    frame = pl.DataFrame({"query_id": ["b", "a", "a"], "self_dot": [3.0, 1.0, 2.0]})
    assert pl.concat(combine("query_self", frame.iter_slices(2))).equals(frame)
