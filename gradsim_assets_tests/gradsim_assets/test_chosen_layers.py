"""A study that compares some layers only: its numbers are those of a study of all layers."""

import numpy as np
import polars as pl
import pytest

from gradsim.tables import State
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

UP = {
    "include": ["model.layers.*.mlp.*", "model.layers.*.self_attn.?_proj.weight"],
    "exclude": ["*.v_proj.*", "*gate*"],
}
CHOSEN = [
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
]


def test_a_study_of_chosen_layers(workplace: Workplace) -> None:
    projections = [{"kind": "sjlt", "share": 0.1, "store_projected": True}]
    workplace.write_study(projections=projections)
    workplace.gradsim("run", "tiny", "--computation", "dot-product")
    before = workplace.store()
    dots = before.read(before.lineage.key("dot_products", "word_dropout"))

    workplace.write_study(projections=projections, layers=UP)
    assert "5 of 8 layers compared" in workplace.gradsim("plan", "tiny")
    output = workplace.gradsim("run", "tiny")

    # Texts do not depend on the layers, so none is made again.
    assert "tiny/word_dropout/queries" not in output
    store = workplace.store()
    assert store.layers.categories.to_list() == CHOSEN
    found = store.read(store.lineage.key("dot_products", "word_dropout", "results"))
    names = ("query_id", "original_id", "layer", "dot")
    expected = dots.select(names).with_columns(pl.col("layer").cast(pl.String)).filter(pl.col("layer").is_in(CHOSEN))
    both = found.select(names).with_columns(pl.col("layer").cast(pl.String)).join(expected, on=names[:3])
    assert both.height == found.height == expected.height
    dot, other = (both[name].to_numpy() for name in ("dot", "dot_right"))
    np.testing.assert_allclose(dot, other, rtol=1e-4, atol=1e-6 * np.abs(dot).max())
    audit = store.read(store.lineage.key("gradient_audit", "word_dropout", "analysis"))
    assert audit["layer"].cast(pl.String).unique(maintain_order=True).to_list() == CHOSEN
    sizes = store.read(store.lineage.key("parameters_per_layer", room="analysis"))
    assert sizes["layer"].cast(pl.String).to_list() == CHOSEN
    assert store.state(store.lineage.key("report")) is State.FRESH
    report = store.path(store.lineage.key("report")).read_text(encoding="utf-8")
    assert "5 of 8, with" in report
    user, assistant = workplace.rows(20)[7]["messages"]
    assert "s07" in workplace.gradsim("query", "tiny", user["content"], "--answer", assistant["content"], "--top", "1")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"include": ["model.layers.9.*"]}, "layers.include: 'model.layers.9.*' matches none of the model's 8 layers"),
        ({"exclude": ["lm_hed*"]}, "layers.exclude: 'lm_hed*' matches none of the model's 8 layers"),
        ({"exclude": ["*"]}, "layers.exclude: leaves no layer; exclude fewer"),
    ],
)
def test_patterns_that_choose_nothing(workplace: Workplace, layers: dict[str, list[str]], message: str) -> None:
    workplace.write_study(layers=layers)
    assert message in workplace.gradsim("plan", "tiny", fails=True)
