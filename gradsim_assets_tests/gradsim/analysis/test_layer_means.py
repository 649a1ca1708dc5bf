import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim import analysis
from gradsim.analysis import LayerDots
from gradsim.analysis.layer_means import ATTENTION_AGAINST_MLP, LAYER_MEANS, attention_against_mlp, layer_means
from gradsim.analysis.schema import column_types
from gradsim.errors import TableError

# Names of the small studies' layers, `layer.4` first.
COMPONENTS = ("attention q", "attention k", "MLP up", "embedding", "norm")


def draw_parameters(data: st.DataObject, layers: list[str]) -> pl.DataFrame:
    """Components and blocks of the layers; sizes are unknown."""
    n = len(layers)
    return pl.DataFrame(
        {
            "layer": layers,
            "component": data.draw(st.lists(st.sampled_from(COMPONENTS), min_size=n, max_size=n), "components"),
            "block": data.draw(st.lists(st.none() | st.integers(0, 12), min_size=n, max_size=n), "blocks"),
            "parameters": [None] * n,
            "share": [None] * n,
        },
        schema_overrides={"block": pl.Int32, "parameters": pl.Int64, "share": pl.Float64},
    )


def resampled(layer_dots: LayerDots, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and similarity to the full gradient of every layer, (resamples, layers), of the queries drawn."""
    similarities, full = layer_dots.layer_similarities(), layer_dots.similarity()
    credit, query = layer_dots.lists.credit(similarities), layer_dots.lists.query
    n = len(credit)
    drawn = np.random.default_rng(seed).integers(n, size=(1000, n))

    def total(of_pairs: np.ndarray) -> np.ndarray:
        of_queries = np.array([of_pairs[query == each].sum(axis=0) for each in range(n)])
        return of_queries[drawn].sum(axis=1)

    dots = total(similarities * full[:, None])
    norms = np.sqrt(total(similarities**2)) * np.sqrt(total(full**2))[:, None]
    return credit[drawn].mean(axis=1), np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)


def close(values) -> list:
    return [pytest.approx(value, abs=1e-9) for value in values]


@given(data=st.data())
def test_means_over_the_layers_of_a_group(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    layers = layer_dots.layers.to_list()
    parameters = draw_parameters(data, layers)
    table = layer_means(layer_dots, parameters.sample(fraction=1, shuffle=True, seed=1), seed=9)
    assert table.schema == pl.Schema(column_types(LAYER_MEANS))

    members: dict[tuple[str, str], list[int]] = {}
    described = list(enumerate(parameters.select("component", "block").iter_rows()))
    for at, (component, _) in described:
        members.setdefault(("component", component), []).append(at)
    for at, (component, _) in described:
        members.setdefault(("part", component.split()[0]), []).append(at)
    for number in sorted({block for _, (_, block) in described if block is not None}):
        members["block", str(number)] = [at for at, (_, block) in described if block == number]
    assert table.select("grouping", "group").rows() == list(members)
    assert table["layers"].to_list() == [len(each) for each in members.values()]

    accuracy = analysis.accuracy_per_layer(layer_dots)["accuracy"].to_numpy()
    similarity = analysis.similarity_to_full_gradient(layer_dots, seed=0)["similarity"].to_numpy()
    for name, values, draws in zip(
        ("accuracy", "similarity"), (accuracy, similarity), resampled(layer_dots, 9), strict=True
    ):
        assert table[name].to_list() == close(values[each].mean() for each in members.values())
        for end, share in ((f"{name}_low", 0.025), (f"{name}_high", 0.975)):
            expected = [np.quantile(draws[:, each].mean(axis=1), share) for each in members.values()]
            assert table[end].to_list() == close(expected)


@given(data=st.data())
def test_attention_less_mlp(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    parameters = draw_parameters(data, layer_dots.layers.to_list())
    table = attention_against_mlp(layer_dots, parameters, seed=9)
    assert table.schema == pl.Schema(column_types(ATTENTION_AGAINST_MLP))

    blocks = {None: list(range(len(parameters)))}
    for number in sorted(parameters["block"].drop_nulls().unique()):
        blocks[number] = [at for at, block in enumerate(parameters["block"]) if block == number]
    sides = {
        block: [[at for at in each if parameters["component"][at].startswith(part)] for part in ("attention", "MLP")]
        for block, each in blocks.items()
    }
    both = {block: each for block, each in sides.items() if all(each)}
    assert table["block"].to_list() == list(both)

    accuracy = analysis.accuracy_per_layer(layer_dots)["accuracy"].to_numpy()
    similarity = analysis.similarity_to_full_gradient(layer_dots, seed=0)["similarity"].to_numpy()
    for name, values, draws in zip(
        ("accuracy", "similarity"), (accuracy, similarity), resampled(layer_dots, 9), strict=True
    ):
        expected = [values[attention].mean() - values[mlp].mean() for attention, mlp in both.values()]
        assert table[f"{name}_difference"].to_list() == close(expected)
        for end, share in ((f"{name}_low", 0.025), (f"{name}_high", 0.975)):
            expected = [
                np.quantile(draws[:, attention].mean(axis=1) - draws[:, mlp].mean(axis=1), share)
                for attention, mlp in both.values()
            ]
            assert table[end].to_list() == close(expected)


def parameters_of(**components: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"layer": list(components), "component": list(components.values()), "block": None},
        schema_overrides={"block": pl.Int32},
    ).with_columns(pl.col("layer").str.replace("_", "."))


def test_a_model_without_attention(study) -> None:
    layer_dots = LayerDots.from_tables(*study.tables)
    parameters = parameters_of(layer_2="MLP up", layer_1="norm")
    table = attention_against_mlp(layer_dots, parameters, seed=0)
    assert table.is_empty()
    assert table.schema == pl.Schema(column_types(ATTENTION_AGAINST_MLP))
    means = layer_means(layer_dots, parameters, seed=0)
    assert means.select("grouping", "group").rows() == [
        ("component", "MLP up"), ("component", "norm"), ("part", "MLP"), ("part", "norm"),
    ]  # fmt: skip


def test_layers_that_no_gradient_was_taken_of_are_ignored(study) -> None:
    layer_dots = LayerDots.from_tables(*study.tables)
    parameters = parameters_of(frozen="MLP down", layer_2="MLP up", layer_1="norm")
    assert layer_means(layer_dots, parameters, seed=0)["group"].to_list() == ["MLP up", "norm", "MLP", "norm"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (parameters_of(layer_1="norm"), "layer 'layer.2' is not in parameters_per_layer: materialize it again"),
        (
            pl.concat([parameters_of(layer_2="norm", layer_1="norm")] * 2),
            "layer 'layer.2' is listed twice in parameters_per_layer: materialize it again",
        ),
    ],
)
@pytest.mark.parametrize("table", [layer_means, attention_against_mlp])
def test_every_layer_must_be_described_once(study, table, parameters: pl.DataFrame, message: str) -> None:
    with pytest.raises(TableError) as error:
        table(LayerDots.from_tables(*study.tables), parameters, seed=0)
    assert str(error.value) == message
