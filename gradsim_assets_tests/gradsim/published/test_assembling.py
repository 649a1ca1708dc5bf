"""Tables assembled from the files of a study, and the findings that go with them."""

from pathlib import Path
from typing import Any

import polars as pl

from gradsim.tables import SCHEMAS
from gradsim_assets_tests.gradsim.published.tiny import IDS, LAYERS, LISTS, Layout, tables_of


def test_tables_are_as_ours(layout: Layout) -> None:
    layout.write()
    published = layout.read()
    assert (published.model, published.sample_size) == ("org/model", "full")
    assert (published.ids, published.layers) == (IDS, LAYERS)
    assert published.parameters == {"embed": 30, "attention": 20, "head": 10}
    pairs = [(query, original, rank) for query in IDS for rank, original in enumerate(LISTS[query])]
    for name, setting in published.settings.items():
        content = layout.settings[name]
        for table, frame in setting.items():
            typed = {column: each.dtype for column, each in SCHEMAS[table].columns.items()}
            assert {column: dtype.base_type() for column, dtype in frame.schema.items()} == typed
            assert list(frame.columns) == list(typed)
        assert setting["dot_products"].rows() == [
            (*pair, layer, content["dot_products"][pair[0]][pair[1]][layer]) for pair in pairs for layer in LAYERS
        ]
        assert setting["candidates"].rows() == [(*pair, None, None) for pair in pairs]
        for side in ("query", "original"):
            assert setting[f"{side}_self"].rows() == [
                (each, layer, content[f"{side}_self"][each][layer], None, None) for each in IDS for layer in LAYERS
            ]
        assert setting["projected_similarity"].rows() == [
            ("rademacher_as_published", int(dimension), *pair, lists[pair[0]][pair[1]])
            for dimension, lists in content["projections"].items()
            for pair in pairs
        ]
    similarity = published.settings["paraphrased"]["gradient_similarity"]
    assert similarity is not None
    assert similarity.rows() == [(*pair, layout.tables["gradient_similarity"][pair[0]][pair[1]]) for pair in pairs]
    assert similarity["query_id"].dtype == similarity["original_id"].dtype == pl.Enum(IDS)


def test_originals_that_are_no_query_come_after_the_queries(single: Layout) -> None:
    lists = {"s2": ["s9", "s2"], "s0": ["s0", "s7", "s2"]}
    single.settings["paraphrased"] = tables_of(3, lists)
    single.tables["original_self"]["s5"] = dict.fromkeys(LAYERS, 1.0)
    single.write()
    published = single.read()
    assert published.ids == ("s2", "s0", "s9", "s7", "s5")
    assert published.settings["paraphrased"]["original_self"]["original_id"].unique(maintain_order=True).to_list() == [
        *published.ids
    ]
    assert published.findings == (
        "Setting paraphrased: kept the self dot products of 1 originals that are not compared with any query.",
    )


def test_no_other_order_of_keys_matters_than_that_of_queries_candidates_and_layers_in_dot_products(
    layout: Layout, tmp_path: Path
) -> None:
    def backwards(content: Any, levels: int) -> Any:
        if not isinstance(content, dict):
            return content
        return {key: backwards(content[key], levels - 1) for key in (reversed(content) if levels > 0 else content)}

    layout.write()
    straight = layout.read()
    turned = Layout(tmp_path / "turned", {})
    for setting, tables in layout.settings.items():
        turned.settings[setting] = {
            table: content if table == "dot_products" and setting == "paraphrased" else backwards(content, levels)
            for (table, content), levels in zip(
                tables.items(), (1, 2, 2, 2, 3) if len(tables) == 5 else (1, 2, 2, 3), strict=True
            )
        }
    turned.write()
    published = turned.read()
    assert published.ids == straight.ids
    for name, turned_setting in published.settings.items():
        original, again = dict(straight.settings[name]), dict(turned_setting)
        projections = original.pop("projected_similarity")
        assert (
            again.pop("projected_similarity")
            .sort("dimension", descending=True, maintain_order=True)
            .equals(projections)
        )
        assert all(again[table].equals(original[table]) for table in original)
    assert published.findings[:3] == (
        "Setting paraphrased: the gradient similarities were reordered to match dot_products.",
        "Setting paraphrased: the similarities of projections to 8 dimensions were reordered to match dot_products.",
        "Setting paraphrased: the similarities of projections to 64 dimensions were reordered to match dot_products.",
    )
    assert published.findings[-1] == (
        "Setting model_generated: the queries were reordered to match setting paraphrased."
    )


def test_candidates_in_alphabetical_order_are_told(single: Layout) -> None:
    single.settings["paraphrased"] = tables_of(0, {query: sorted({"s0", "s1", query}) for query in IDS})
    single.write()
    assert "the candidates of all 4 queries are in alphabetical order" in single.read().findings[0]


def test_the_digest_is_of_contents_and_not_of_the_place(layout: Layout, tmp_path: Path) -> None:
    layout.write()
    digest = layout.read().digest
    layout.root = tmp_path / "elsewhere" / "again"
    layout.write()
    assert layout.read().digest == digest
    layout.sizes["head"] = 11
    layout.write()
    assert layout.read().digest != digest


class TestParameters:
    def test_absent(self, single: Layout) -> None:
        single.sizes = {}
        single.write()
        published = single.read()
        assert published.parameters == dict.fromkeys(LAYERS)
        (finding,) = published.findings
        assert finding.startswith("The sizes of 3 of 3 layers are unknown: ")
        assert finding.endswith("values.json does not exist.")

    def test_of_other_layers(self, single: Layout) -> None:
        del single.sizes["embed"]
        single.sizes["tied"] = 30
        single.write()
        published = single.read()
        assert published.parameters == {"embed": None, "attention": 20, "head": 10}
        first, second = published.findings
        assert first.startswith("The sizes of 1 of 3 layers are unknown: ")
        assert second.startswith("Ignored 1 of the 3 layers in ")
        assert second.endswith("values.json: they have no dot products.")
