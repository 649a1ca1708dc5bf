import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from gradsim import analysis, plots
from gradsim.errors import TableError
from gradsim.plots import style
from gradsim.plots.labels import count, listed, percent, power_of_ten


def similarity(n_queries: int = 30, n_candidates: int = 4, lift: float = 0.3) -> pl.DataFrame:
    """Similarities of random candidates; the sources, at rank 0, lie higher by `lift`."""
    random = np.random.default_rng(7)
    rows = [
        (f"s{query}", f"s{(query + rank) % n_queries}", rank, random.normal(0, 0.2) + lift * (rank == 0))
        for query in range(n_queries)
        for rank in range(n_candidates)
    ]
    return pl.DataFrame(rows, schema=["query_id", "original_id", "rank", "similarity"], orient="row")


def layer_names(n_blocks: int) -> list[str]:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj", "norm_1", "norm_2")
    inside = [f"model.layers.{block}.{part}.weight" for block in range(n_blocks) for part in parts]
    return ["model.embed_tokens.weight", *inside, "lm_head.weight"]


def layer_tables(n_blocks: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Accuracy, similarity to the full gradient and parameters of layers, all different."""
    names = layer_names(n_blocks)
    accuracy = np.linspace(0.2, 0.9, len(names))
    low, high = analysis.wilson_interval(accuracy * 50, 50)
    sizes = pl.DataFrame({"layer": names, "parameters": [10 + len(name) for name in names]})
    return (
        pl.DataFrame({"layer": names, "accuracy": accuracy, "low": low, "high": high}),
        pl.DataFrame({"layer": names, "similarity": accuracy**2}),
        analysis.parameters_per_layer(sizes),
    )


def audit(layers: list[str], **errors: float) -> pl.DataFrame:
    """Dots of one pair and self dots of its query; errors of layers that are not 1e-8 are given by their numbers."""
    found = [errors.get(f"at_{number}", 1e-8) for number in range(len(layers))]
    dots = pl.DataFrame({"query_id": "a", "original_id": "b", "quantity": "dot", "layer": layers, "error": found})
    return pl.concat([dots, dots.with_columns(original_id=None, quantity=pl.lit("query_self"))])


@pytest.fixture
def figures() -> dict[str, Figure]:
    """Every figure once."""
    pairs = similarity()
    accuracy, similar, parameters = layer_tables(2)
    many = layer_tables(10)
    return {
        "accuracy": plots.accuracy_of_methods(
            {"paraphrased": analysis.accuracy(pairs)}, {"paraphrased": analysis.controls(pairs)}
        ),
        "few-layers": plots.accuracy_of_layers(accuracy, parameters),
        "many-layers": plots.accuracy_of_layers(many[0], many[2]),
        "full": plots.layers_against_full_gradient(similar, parameters),
        "similarity": plots.source_against_others(analysis.decisions(pairs)),
        "parameters": plots.parameters_of_components(parameters),
        "audit": plots.errors_of_audit(audit(layer_names(2)), "float32"),
    }


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        ("model.layers.3.mlp.up_proj.weight", "3.mlp.up_proj"),
        ("transformer.h.11.attn.c_attn.bias", "11.attn.c_attn.bias"),
        ("model.layers.1.mlp.experts.down_proj", "1.mlp.experts.down_proj"),
        ("model.embed_tokens.weight", "embed_tokens"),
        ("model.decoder.final_layer_norm.bias", "final_layer_norm.bias"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_layer_labels(layer: str, label: str) -> None:
    assert plots.layer_label(layer) == label


def test_other_labels() -> None:
    assert plots.setting_label("model_generated") == "model-generated"
    assert plots.method_label("full_gradient") == "full gradient"
    assert plots.method_label("bm25") == "BM25"
    assert plots.method_label("sjlt-11778048") == "sjlt, 11.8\u00a0M dimensions"
    assert plots.control_label("bm25_rank") == "BM25's rank alone"
    assert [count(number) for number in (988, 12_000, 1_176_764_416)] == ["988", "12\u00a0k", "1.18\u00a0B"]
    assert [power_of_ten(n) for n in (0, 2.14e-7, 1e-5, 0.3, 20.0)] == ["0", "2.1·10⁻⁷", "10⁻⁵", "3·10⁻¹", "2·10¹"]
    assert [power_of_ten(number) for number in (float("nan"), float("inf"))] == ["nan", "inf"]
    assert percent(0.99291) == "99.3\u00a0%"
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_accuracy_title_states_what_is_found() -> None:
    pairs = similarity(n_queries=4, lift=9.0)
    tables = analysis.accuracy(pairs), analysis.controls(pairs)
    one = plots.accuracy_of_methods({"paraphrased": tables[0]}, {"paraphrased": tables[1]})
    assert plots.title_of(one) == (
        "The full gradient finds the source of 100.0\u00a0% of paraphrased queries; BM25 finds 100.0\u00a0%"
    )
    lost = similarity(n_queries=4, lift=-9.0)
    both = plots.accuracy_of_methods(
        {"paraphrased": tables[0], "model_generated": analysis.accuracy(lost)},
        {"paraphrased": tables[1], "model_generated": analysis.controls(lost)},
    )
    assert plots.title_of(both) == (
        "The full gradient finds the source of 100.0\u00a0% of paraphrased and 0.0\u00a0% of "
        "model-generated queries; BM25 finds 100.0\u00a0%"
    )
    assert len(both.axes) == 2


def test_accuracy_draws_methods_controls_and_chance() -> None:
    pairs = similarity()
    accuracy, controls = analysis.accuracy(pairs), analysis.controls(pairs)
    (panel,) = plots.accuracy_of_methods({"p": accuracy}, {"p": controls}).axes
    rows = [*accuracy.iter_rows(named=True), *controls.iter_rows(named=True)]
    drawn = [line.get_xdata() for line in panel.lines]
    chance = rows.pop()
    assert list(drawn.pop()) == [100 * chance["accuracy"]] * 2
    for row, interval, point in zip(rows, drawn[::2], drawn[1::2], strict=True):
        assert list(interval) == [100 * row["low"], 100 * row["high"]]
        assert list(point) == [100 * row["accuracy"]]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["full gradient", "BM25", "sources shuffled", "BM25's rank alone"]


def test_the_audit_shows_every_error_beside_the_tolerance() -> None:
    layers = layer_names(2)
    figure = plots.errors_of_audit(audit(layers, at_0=0.0, at_1=1e-9), "float32")
    assert plots.title_of(figure) == "28 numbers are those of plain autograd, to within 10⁻⁸"
    (axes,) = figure.axes
    dots, self_dots, tolerance = axes.lines
    assert list(dots.get_xdata()) == list(self_dots.get_xdata()) == [1e-16, 1e-9, *[1e-8] * 12]
    assert list(tolerance.get_xdata()) == [1e-5] * 2
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["embedding", "attention q", "attention k", "MLP up", "MLP down", "norm", "head"]
    rows = [names[round(-place)] for place in dots.get_ydata()]
    assert rows == [analysis.component_of(layer) for layer in layers]


def test_an_audit_that_fails_says_so() -> None:
    wrong = audit(layer_names(1), at_0=float("nan"), at_1=float("inf"), at_2=1e-3)
    figure = plots.errors_of_audit(wrong, "float32")
    assert plots.title_of(figure) == "Plain autograd differs from 6 of 16 numbers"
    assert len(figure.axes[0].lines[0].get_xdata()) == 6, "what is not finite has no place"


def test_few_layers_have_intervals() -> None:
    accuracy, _, parameters = layer_tables(2)
    figure = plots.accuracy_of_layers(accuracy, parameters)
    (axes,) = figure.axes
    intervals = np.array([segment[:, 0] for segment in axes.collections[0].get_segments()])
    np.testing.assert_allclose(intervals, 100 * accuracy.select("low", "high").to_numpy())
    assert plots.title_of(figure) == (
        "Alone, lm_head finds the most sources (90.0\u00a0%), embed_tokens the fewest (20.0\u00a0%)"
    )


def test_many_layers_are_a_heat_map_of_blocks_and_components() -> None:
    accuracy, _, parameters = layer_tables(10)
    axes, _ = plots.accuracy_of_layers(accuracy, parameters).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    # A block has two norms, which therefore go by their names.
    assert names == [
        "attention q", "attention k", "MLP up", "MLP down", "norm_1", "norm_2", "embed_tokens", "lm_head",
    ]  # fmt: skip
    cells = axes.collections[0].get_array().reshape(len(names), 10)
    inside = 100 * accuracy["accuracy"].to_numpy()[1:-1].reshape(10, 6).T
    np.testing.assert_allclose(cells[:6], inside)
    np.testing.assert_allclose(cells[6:, 0], 100 * accuracy["accuracy"].to_numpy()[[0, -1]])
    assert cells.mask[6:, 1:].all()


def test_layers_of_equal_accuracy_have_no_best() -> None:
    accuracy, _, parameters = layer_tables(1)
    figure = plots.accuracy_of_layers(accuracy.with_columns(accuracy=pl.lit(0.5)), parameters)
    assert plots.title_of(figure) == "Alone, every layer finds 50.0\u00a0% of the sources"


def test_every_layer_is_a_mark_at_its_similarity() -> None:
    _, similar, parameters = layer_tables(2)
    (axes,) = plots.layers_against_full_gradient(similar, parameters).axes
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    np.testing.assert_allclose(np.sort(drawn), similar["similarity"])
    for line in axes.lines:
        of_component = parameters.filter(pl.col("component") == line.get_label())
        assert len(line.get_xdata()) == len(of_component)


def test_components_of_one_size_stand_around_it() -> None:
    names = ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"]
    parameters = analysis.parameters_per_layer(pl.DataFrame({"layer": names, "parameters": [4, 4]}))
    similar = pl.DataFrame({"layer": names, "similarity": [0.1, 0.2]})
    (axes,) = plots.layers_against_full_gradient(similar, parameters).axes
    (left,), (right,) = (line.get_xdata() for line in axes.lines)
    assert left < 50 < right
    assert left * right == pytest.approx(50**2)


def test_components_are_told_apart_without_colour() -> None:
    assert len(set(style.COMPONENT_MARKERS.values())) == len(style.COMPONENT_MARKERS)


def test_parameters_of_components() -> None:
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"]
    parameters = analysis.parameters_per_layer(pl.DataFrame({"layer": names, "parameters": [2, 1, 5]}))
    figure = plots.parameters_of_components(parameters)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [25, 75]
    assert plots.title_of(figure) == "Of 8 parameters: MLP 75.0\u00a0%, embedding 25.0\u00a0%"


def test_similarity_title_counts_ties_apart() -> None:
    decisions = pl.DataFrame(
        {
            "source_similarity": [0.5, 0.1, 0.2],
            "best_other_similarity": [0.4, 0.3, 0.2],
            "credit": [1.0, 0.0, 0.5],
        }
    )
    assert plots.title_of(plots.source_against_others(decisions)) == (
        "The true source is more similar than every other candidate for 1 of 3 queries, and tied with the best for 1"
    )


def test_one_query_one_candidate_one_layer() -> None:
    pairs = similarity(n_queries=1, n_candidates=1)
    one = pl.DataFrame({"layer": ["w"], "accuracy": [1.0], "low": [0.2], "high": [1.0]})
    parameters = analysis.parameters_per_layer(pl.DataFrame({"layer": ["w"], "parameters": [3]}))
    drawn = [
        plots.accuracy_of_methods({"p": analysis.accuracy(pairs)}, {"p": analysis.controls(pairs)}),
        plots.source_against_others(analysis.decisions(pairs)),
        plots.accuracy_of_layers(one, parameters),
        plots.layers_against_full_gradient(one.select("layer", similarity="accuracy"), parameters),
        plots.parameters_of_components(parameters),
    ]
    for position, figure in enumerate(drawn):
        assert plots.to_svg(figure, f"figure{position}").startswith("<svg")


def test_a_layer_of_unknown_size_is_refused() -> None:
    accuracy, similar, parameters = layer_tables(1)
    for draw, table in (
        (plots.accuracy_of_layers, accuracy),
        (plots.layers_against_full_gradient, similar),
    ):
        with pytest.raises(TableError) as error:
            draw(table, parameters.head(2))
        assert str(error.value) == (
            "layer 'model.layers.0.self_attn.k_proj.weight' is not in parameters_per_layer: materialize it again"
        )


def test_png(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        assert plots.to_png(figure).startswith(b"\x89PNG\r\n")
    small, large = (plots.to_png(figures["full"], dots) for dots in (50, 100))
    width = [int.from_bytes(png[16:20], "big") for png in (small, large)]
    assert width == [50 * style.WIDTH, 100 * style.WIDTH]


def test_svgs_share_a_page(figures: dict[str, Figure]) -> None:
    ids = []
    for name, figure in figures.items():
        title = plots.title_of(figure)
        svg = plots.to_svg(figure, name)
        root = ET.fromstring(svg)
        own = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
        assert referred <= own
        ids += own
        # The page says the title, and its colours and fonts are the page's.
        assert plots.title_of(figure) == title
        assert title not in " ".join(root.itertext())
        assert "currentColor" in svg
        assert style.INK not in svg
        assert not re.search(r"""(?:href|src)=["'](?!#|data:)""", svg)
    assert len(set(ids)) == len(ids)


def test_svg_colours_are_variables_with_their_colour_as_default(figures: dict[str, Figure]) -> None:
    svg = plots.to_svg(figures["accuracy"], "accuracy")
    for variable, default in re.findall(r"var\(--(\w+), (#\w+)\)", svg):
        assert default == to_hex(getattr(style, variable.upper()))
    assert {"blue", "vermilion"} <= set(re.findall(r"var\(--(\w+)", svg))


def test_svg_is_reproducible(figures: dict[str, Figure]) -> None:
    accuracy, _, parameters = layer_tables(2)
    again = plots.accuracy_of_layers(accuracy, parameters)
    assert plots.to_svg(figures["few-layers"], "x") == plots.to_svg(again, "x")
    assert plots.to_svg(again, "x") == plots.to_svg(again, "x")


def test_names_are_text_not_markup_or_formulas() -> None:
    pairs = similarity(n_queries=2, n_candidates=2)
    name = "<b>$x_1$</b>"
    figure = plots.accuracy_of_methods({name: analysis.accuracy(pairs)}, {name: analysis.controls(pairs)})
    text = " ".join(ET.fromstring(plots.to_svg(figure, "x")).itertext())
    assert "<b>$x-1$</b>, 2 queries" in text


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    pairs = similarity()
    figure = plots.source_against_others(analysis.decisions(pairs))
    plots.to_svg(figure, "x")
    plots.to_png(figure)
    assert dict(mpl.rcParams) == before
    assert Gcf.get_all_fig_managers() == []
