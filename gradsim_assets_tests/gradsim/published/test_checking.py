"""Inconsistencies between files: queries, pairs, samples, candidates, and impossible values."""

from typing import Any

import pytest

from gradsim.errors import TableError
from gradsim.published import find_published, read_published
from gradsim_assets_tests.gradsim.published.layout import write_json
from gradsim_assets_tests.gradsim.published.tiny import LISTS, Layout, tables_of

TABLES_OF_QUERIES = ["dot_products", "query_self", "gradient_similarity", "projections"]


def lists_of(layout: Layout, table: str) -> dict[str, Any]:
    """Return the part of a table that is keyed by query."""
    return layout.tables[table]["8"] if table == "projections" else layout.tables[table]


@pytest.mark.parametrize("table", TABLES_OF_QUERIES)
class TestQueries:
    def test_that_one_table_lacks(self, single: Layout, table: str) -> None:
        for query in ("s1", "s2"):
            del lists_of(single, table)[query]
        single.write()
        with pytest.raises(
            TableError,
            match=r"json.*: lacks 2 of 4 queries found in .*json.*: positions 1 to 2 \('s1' to 's2'\); add the missing",
        ):
            single.read()

    def test_that_one_table_has_alone(self, single: Layout, table: str) -> None:
        lists = lists_of(single, table)
        lists["s9"] = lists["s2"]
        single.write()
        with pytest.raises(TableError, match=r"lacks 1 of 5 queries found in .*: position 4 \('s9'\)"):
            single.read()

    def test_that_the_last_part_would_have(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 3, 4)
        single.part(table, 3, 4).unlink()
        with pytest.raises(TableError, match=r"and the parts after it: lacks 1 of 4 queries.*: position 3 \('s3'\)"):
            single.read()

    def test_that_the_whole_file_lacks_beside_its_parts(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 2, 4, keep_whole=True)
        del lists_of(single, table)["s1"]
        single.write()
        with pytest.raises(TableError, match=rf"{single.whole(table).name}.*: lacks 1 of 4 queries"):
            single.read()

    def test_of_a_part_that_are_fewer_than_its_name_says(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 4)
        single.part(table, 1, 4).rename(single.part(table, 1, 5))
        with pytest.raises(
            TableError, match=r"_part_1_5.*: contains 3 queries, but its name says 4 \(1 up to, but not including, 5\)"
        ):
            single.read()

    def test_that_two_parts_have(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 2, 4)
        first = single.tables[table]
        nested = first if table == "projections" else {"": first}
        second = {name: {query: lists[query] for query in ("s1", "s2")} for name, lists in nested.items()}
        write_json(single.part(table, 2, 4), second.get("", second))
        with pytest.raises(
            TableError, match=r"_part_0_2.* and .*_part_2_4.* both contain query 's1' \(queries in both: 1\)"
        ):
            single.read()


def test_many_ranges_of_missing_queries_are_cut(single: Layout) -> None:
    lists = {f"s{number}": [f"s{number}"] for number in range(20)}
    single.settings["paraphrased"] = tables_of(0, lists)
    for number in range(0, 20, 2):
        del single.tables["gradient_similarity"][f"s{number}"]
    single.write()
    with pytest.raises(TableError, match=r"lacks 10 of 20 .* position 4 \('s4'\), 7 more ranges; add"):
        single.read()


@pytest.mark.parametrize("setting", ["paraphrased", "model_generated"])
def test_settings_of_other_queries(layout: Layout, setting: str) -> None:
    layout.settings[setting] = tables_of(0, {query: [query] for query in ("s0", "s3")})
    layout.write()
    with pytest.raises(
        TableError, match=rf"/{setting}/.*: lacks 2 of 4 queries found in .*: positions 1 to 2 \('s1' to 's2'\)"
    ):
        layout.read()


@pytest.mark.parametrize("size", ["3", "5"])
def test_another_number_than_the_sample_size(single: Layout, size: str) -> None:
    single.size = size
    single.write()
    with pytest.raises(TableError, match=f"contains 4 queries, but its folder says sample size {size}"):
        single.read()


def test_the_number_of_the_sample_size(single: Layout) -> None:
    single.size = "4"
    single.write()
    published = read_published(find_published(single.root, sample_size="4"))
    assert (published.sample_size, len(published.ids)) == ("4", 4)


@pytest.mark.parametrize(
    ("end", "message"),
    [(3, "ends at 3, .* 4 queries; add parts from 3 to 4"), (5, "ends at 5, .* 4 queries; correct its name")],
)
def test_parts_of_originals_end_with_the_queries(single: Layout, end: int, message: str) -> None:
    single.write()
    single.write_parts("original_self", 2, 4)
    single.part("original_self", 2, 4).rename(single.part("original_self", 2, end))
    with pytest.raises(TableError, match=message):
        single.read()


def test_an_original_without_self_dots(single: Layout) -> None:
    del single.tables["original_self"]["s3"]
    single.write()
    with pytest.raises(
        TableError, match=r"lacks self dot products of original 's3', which is in .* \(1 of 4 are missing\)"
    ):
        single.read()


def test_a_query_without_its_source(single: Layout) -> None:
    single.settings["paraphrased"] = tables_of(0, {**LISTS, "s2": ["s1"]})
    single.write()
    with pytest.raises(TableError, match=r"query 's2' lacks its source, .* \(1 of 4 queries\); add its dot"):
        single.read()


@pytest.mark.parametrize(
    "candidates", [["s3", "s1", "s0"], ["s1", "s3"], ["s1", "s3", "s0", "s2"]], ids=["order", "fewer", "more"]
)
def test_candidate_lists_of_the_same_query_must_be_the_same(single: Layout, candidates: list[str]) -> None:
    single.write()
    lists = single.tables["dot_products"]
    spare = {"s2": lists["s2"]["s2"], **lists["s1"]}
    lists["s1"] = {original: spare[original] for original in candidates}
    single.write_parts("dot_products", 2, 4, keep_whole=True)
    with pytest.raises(
        TableError,
        match=r"dot_products.json and .*_part_0_2.json have different candidates for query 's1', or the same "
        r"in a different order, which defines their ranks \(1 of 2 common queries\)",
    ):
        single.read()


@pytest.mark.parametrize("table", ["gradient_similarity", "projections"])
class TestPairs:
    def test_that_cosines_lack(self, single: Layout, table: str) -> None:
        del lists_of(single, table)["s1"]["s3"]
        single.write()
        with pytest.raises(
            TableError,
            match=r"lacks the pair of query 's1' and original 's3', unlike .*dot_products.json \(such pairs: 1\)",
        ):
            single.read()

    def test_that_only_cosines_have(self, single: Layout, table: str) -> None:
        lists_of(single, table)["s2"]["s0"] = 0.5
        single.write()
        with pytest.raises(TableError, match="has the pair of query 's2' and original 's0', unlike"):
            single.read()


def product_of_norms(layout: Layout, query: str, original: str, layer: str) -> float:
    tables = layout.tables
    return float((tables["query_self"][query][layer] * tables["original_self"][original][layer]) ** 0.5)


@pytest.mark.parametrize("table", ["gradient_similarity", "projections"])
class TestCosines:
    def test_beyond_one(self, single: Layout, table: str) -> None:
        content = single.tables[table]
        lists = content["8"] if table == "projections" else content
        lists["s1"]["s3"], lists["s2"]["s2"] = 1.01, -1.5
        single.write()
        with pytest.raises(
            TableError,
            match=r"sample_size_full.json.*: query 's2', original 's2' is -1.5, but a cosine is between -1 and 1 "
            r"\(2 of 8 .* are not, this one is the farthest\)",
        ):
            single.read()

    def test_rounding(self, single: Layout, table: str) -> None:
        content = single.tables[table]
        lists = content["8"] if table == "projections" else content
        lists["s1"]["s3"], lists["s2"]["s2"] = 1.00009, -1.00009
        single.write()
        single.read()


def test_a_dot_beyond_its_norms(single: Layout) -> None:
    for original, factor in (("s3", -1.01), ("s0", 1.002)):
        single.tables["dot_products"]["s1"][original]["head"] = factor * product_of_norms(
            single, "s1", original, "head"
        )
    single.write()
    with pytest.raises(
        TableError,
        match=r"dot_products.json: query 's1', original 's3', layer 'head' is -.*, but a dot product never "
        r"exceeds the product of the norms, .* \(2 of 24 dot products do, this one the most\)",
    ):
        single.read()


def test_a_dot_of_parallel_gradients(single: Layout) -> None:
    single.tables["dot_products"]["s1"]["s3"]["head"] = 1.0009 * product_of_norms(single, "s1", "s3", "head")
    single.write()
    single.read()


@pytest.mark.parametrize(("table", "sample"), [("query_self", "s2"), ("original_self", "s2")])
def test_a_dot_beside_a_zero_self_dot(single: Layout, table: str, sample: str) -> None:
    single.tables[table][sample]["head"] = 0
    single.write()
    with pytest.raises(
        TableError, match=r"original 's2', layer 'head' is .* 0 according to .* \(1 of 24 dot products do"
    ):
        single.read()
