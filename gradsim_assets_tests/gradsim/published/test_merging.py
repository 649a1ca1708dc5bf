"""Values in several files: the first file takes precedence, and disagreements are refused."""

from typing import Any

import pytest

from gradsim.errors import TableError
from gradsim_assets_tests.gradsim.published.layout import write_json
from gradsim_assets_tests.gradsim.published.tiny import Layout, same_tables, tables_of

# Table, place of a value in it, and plural noun for its values.
PLACES = [
    ("dot_products", ("s1", "s3", "head"), "dot products"),
    ("query_self", ("s1", "head"), "self dot products of queries"),
    ("original_self", ("s3", "head"), "self dot products of originals"),
    ("gradient_similarity", ("s1", "s3"), "gradient similarities"),
    ("projections", ("64", "s1", "s3"), "similarities of projections to 64 dimensions"),
]
EVERY_PLACE = pytest.mark.parametrize(("table", "place", "kind"), PLACES)


def shift(content: Any, place: tuple[str, ...], difference: float) -> None:
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] += difference


def allowed(layout: Layout, table: str, place: tuple[str, ...]) -> float:
    """Return how much a repeated value may differ."""
    match table:
        case "dot_products":
            query, original, layer = place
            norms = layout.tables["query_self"][query][layer] * layout.tables["original_self"][original][layer]
            return 1e-5 * norms**0.5
        case "query_self" | "original_self":
            return 1e-5 * layout.tables[table][place[0]][place[1]]
        case _:
            return 1e-5


@EVERY_PLACE
class TestWholeAndParts:
    def test_agreeing(self, single: Layout, table: str, place: tuple[str, ...], kind: str) -> None:
        single.write()
        alone = single.read()
        shift(single.tables[table], place, 0.9 * allowed(single, table, place))
        single.write_parts(table, 1, 4, keep_whole=True)
        both = single.read()
        assert same_tables(alone.settings["paraphrased"], both.settings["paraphrased"])
        assert both.findings[0] == (
            f"Setting paraphrased: stored whole and in parts: 2 of {table}; all files were read, and the whole "
            "file takes precedence."
        )
        assert f"{kind} are in more than one file and differ by at most 9.0e-06" in both.findings[1]
        assert both.digest != alone.digest

    def test_disagreeing(self, single: Layout, table: str, place: tuple[str, ...], kind: str) -> None:
        single.write()
        shift(single.tables[table], place, 1.1 * allowed(single, table, place))
        single.write_parts(table, 1, 4, keep_whole=True)
        with pytest.raises(TableError) as caught:
            single.read()
        message = str(caught.value)
        assert str(single.whole(table)) in message
        assert str(single.part(table, 1, 4)) in message
        assert "disagree: " in message
        assert all(repr(name) in message for name in place if name != "64")
        assert "; 1 of " in message
        assert f" repeated {kind} differ by more than 1e-05" in message
        assert "The files are from different runs: remove the wrong ones" in message


def test_the_worst_is_named_and_all_are_counted(single: Layout) -> None:
    single.write()
    for query, difference in (("s1", 2e-5), ("s2", 3e-5), ("s3", 1e-6)):
        shift(single.tables["gradient_similarity"], (query, query), difference)
    single.write_parts("gradient_similarity", 2, 4, keep_whole=True)
    with pytest.raises(TableError, match=r"query 's2', original 's2' is .*; 2 of 8 repeated gradient similarities"):
        single.read()


@pytest.mark.parametrize("table", [table for table, *_ in PLACES])
def test_parts_alone_give_the_same_tables(single: Layout, table: str) -> None:
    single.write()
    alone = single.read()
    single.write_parts(table, 1, 2, 4)
    parts = single.read()
    assert same_tables(alone.settings["paraphrased"], parts.settings["paraphrased"])
    assert parts.ids == alone.ids
    assert parts.findings[0] == f"Setting paraphrased: assembled from parts: 3 of {table}."


def test_parts_are_counted_by_number_and_not_by_name(single: Layout) -> None:
    ids = [f"s{number}" for number in range(12)]
    single.settings["paraphrased"] = tables_of(0, {each: [each] for each in ids})
    single.write()
    single.write_parts("dot_products", 2, 10, 12)
    assert single.read().ids == tuple(ids)


def test_originals_are_taken_from_the_lowest_part(single: Layout) -> None:
    single.write()
    whole = single.read().settings["paraphrased"]["original_self"]
    single.write_parts("original_self", 1, 2, 3, 4)
    for start, share in ((1, 2e-6), (3, -8e-6)):  # s0 is a candidate of the queries 0, 1 and 3
        content = {**single.tables["original_self"]}
        content = {name: content[name] for name in ("s0", "s1" if start == 1 else "s3")} | (
            {"s3": content["s3"]} if start == 1 else {}
        )
        content["s0"] = {layer: value * (1 + share) for layer, value in content["s0"].items()}
        write_json(single.part("original_self", start, start + 1), content)
    published = single.read()
    assert published.settings["paraphrased"]["original_self"].equals(whole)
    assert published.findings[1] == (
        "Setting paraphrased: 12 self dot products of originals are in more than one file and differ by at most "
        "8.0e-06 of their value; the whole file takes precedence, then the parts in order."
    )


def test_originals_of_parts_that_disagree(single: Layout) -> None:
    single.write()
    single.write_parts("original_self", 1, 2, 3, 4)
    path = single.part("original_self", 3, 4)
    content = {name: single.tables["original_self"][name] for name in ("s0", "s3")}
    content["s0"] = {layer: value * (1 + 2e-5) for layer, value in content["s0"].items()}
    write_json(path, content)
    with pytest.raises(
        TableError,
        match=r"_part_0_1.json and .*_part_3_4.json disagree: sample 's0', layer .*; 3 of 12 repeated self dot "
        r"products of originals differ by more than 1e-05 of their value, this one the most",
    ):
        single.read()


def test_a_zero_self_dot_agrees_with_itself_only(single: Layout) -> None:
    single.tables["original_self"]["s1"]["head"] = 0.0
    for query in ("s0", "s1"):
        single.tables["dot_products"][query]["s1"]["head"] = 0.0
    single.write()
    single.write_parts("original_self", 2, 4, keep_whole=True)
    single.read()
    single.tables["original_self"]["s1"]["head"] = 1e-30
    single.write_parts("original_self", 2, 4, keep_whole=True)
    with pytest.raises(TableError, match=r"layer 'head' is 0\.0 in the former and 1e-30 in the latter"):
        single.read()
