"""Malformed files, and the messages that report them."""

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from gradsim.errors import TableError
from gradsim.published import find_published, read_published
from gradsim_assets_tests.gradsim.published.tiny import LAYERS, Layout

EVERY_TABLE = pytest.mark.parametrize(
    "table", ["dot_products", "query_self", "original_self", "gradient_similarity", "projections"]
)
DOTS = pytest.mark.parametrize("table", ["dot_products", "query_self", "original_self"])


def inner(layout: Layout, table: str) -> dict[str, Any]:
    """Return an innermost object of a table."""
    content = layout.tables[table]["64" if table == "projections" else "s1"]
    return content["s3" if table == "dot_products" else "s1"] if table in ("dot_products", "projections") else content


@EVERY_TABLE
class TestMalformed:
    """Text that is not JSON of the expected form, in any table."""

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda text: text[: len(text) // 2], "is not valid JSON"),
            (
                lambda text: text[:-1],
                "is not valid JSON .* - the file may be truncated; copy the file from its source again",
            ),
            (lambda text: b"", "is not valid JSON .* - the file may be truncated"),
            (lambda text: b"\xef\xbb\xbf" + text, "is not valid JSON .*BOM"),
            (lambda text: text.replace(b'"s1"', b'"s\xe91"'), r"is not UTF-8 text \(byte \d+\)"),
            (lambda text: b"version https://git-lfs.github.com/spec/v1\n", "is not valid JSON"),
            (lambda text: b"[]", r"json: expected an object, found a list"),
            (lambda text: b"1.5", r"json: expected an object, found 1.5"),
            (lambda text: b"{}", r"json: the object is empty"),
            (lambda text: b'{"s0": ' * 100_000, "is nested too deeply"),
        ],
    )
    def test_text(self, single: Layout, table: str, spoil: Callable[[bytes], bytes], message: str) -> None:
        single.write()
        path = single.whole(table)
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(TableError, match=message) as caught:
            single.read()
        assert str(caught.value).startswith(str(path))

    @pytest.mark.parametrize(
        "spoilt", ["", "null", "NaN", "Infinity", "1e999", '"0.5"', "true", "[0.5]", "{}", "1" + "0" * 5000]
    )
    def test_value(self, single: Layout, table: str, spoilt: str) -> None:
        content = inner(single, table)
        key = next(iter(content))
        content[key] = "SPOIL"
        single.write()
        path = single.whole(table)
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"SPOIL"', spoilt), encoding="utf-8")
        message = (
            rf"{path.name}.*: .*'{key}' is .*, not a finite number \(1 of \d+ values are not\)"
            if spoilt
            else "is not valid JSON"
        )
        with pytest.raises(TableError, match=message):
            single.read()

    def test_level(self, single: Layout, table: str) -> None:
        content = single.tables[table]
        content[next(iter(content))] = 0.5
        single.write()
        with pytest.raises(TableError, match=r"(query|original|dimension).*: expected an object, found 0.5"):
            single.read()

    def test_too_many_levels(self, single: Layout, table: str) -> None:
        single.tables[table] = {"more": single.tables[table]}
        single.write()
        with pytest.raises(TableError, match=r"not a finite number|have other layers|dimension 'more' is not"):
            single.read()

    def test_empty(self, single: Layout, table: str) -> None:
        inner(single, table).clear()
        single.write()
        with pytest.raises(TableError, match="the object is empty"):
            single.read()

    @pytest.mark.parametrize("depth", ["outermost", "innermost"])
    def test_a_key_twice(self, single: Layout, table: str, depth: str) -> None:
        content = single.tables[table] if depth == "outermost" else inner(single, table)
        key = list(content)[-1]
        content["TWICE"] = content[key]
        single.write()
        path = single.whole(table)
        path.write_text(path.read_text(encoding="utf-8").replace("TWICE", key), encoding="utf-8")
        with pytest.raises(TableError, match=rf"key '{key}' is a duplicate \(1 duplicate keys in this object\)"):
            single.read()

    def test_half_a_character(self, single: Layout, table: str) -> None:
        content = single.tables[table]
        content["\ud800"] = content.pop(next(iter(content)))
        single.write()
        with pytest.raises(TableError, match=r"key '\\ud800' contains half a surrogate pair"):
            single.read()

    def test_unreadable(self, single: Layout, table: str) -> None:
        single.write()
        files = find_published(single.root)
        single.whole(table).unlink()
        with pytest.raises(TableError, match=r"cannot be read \(No such file or directory\)"):
            read_published(files)


@DOTS
class TestLayers:
    """Rows with missing or additional layers."""

    def test_missing(self, single: Layout, table: str) -> None:
        del inner(single, table)["attention"]
        single.write()
        with pytest.raises(
            TableError,
            match=r"json: .*'s1'.* lacks 1 of 3 layers, 'attention' first \(1 of \d rows have other layers\)",
        ):
            single.read()

    def test_missing_in_the_first_row(self, single: Layout, table: str) -> None:
        content = single.tables[table]["s0"]
        del (content["s1"] if table == "dot_products" else content)["embed"]
        single.write()
        with pytest.raises(TableError, match=r"'s0'.* lacks 1 of 3 layers, 'embed' first"):
            single.read()

    def test_more(self, single: Layout, table: str) -> None:
        inner(single, table)["bias"] = 1.0
        single.write()
        expected = "lacks 1 of 4 layers, 'bias'" if table == "dot_products" else "has 1 layers that dot_products lacks"
        with pytest.raises(TableError, match=expected):
            single.read()

    def test_of_another_setting(self, layout: Layout, table: str) -> None:
        content = layout.settings["model_generated"][table]
        rows = [row for lists in content.values() for row in (lists.values() if table == "dot_products" else [lists])]
        for row in rows:
            row["top"] = row.pop("head")
        layout.write()
        with pytest.raises(
            TableError,
            match=rf"model_generated.* lacks 1 of 3 layers, 'head' first \({len(rows)} of {len(rows)} rows have",
        ):
            layout.read()


@pytest.mark.parametrize("table", ["query_self", "original_self"])
def test_negative_self_dots(single: Layout, table: str) -> None:
    single.tables[table]["s2"]["head"] = -1e-9
    single.write()
    with pytest.raises(
        TableError, match=r"'s2', layer 'head' is -1e-09, but a self dot product is never negative \(1 of 12 are\)"
    ):
        single.read()


def test_zero_gradients_are_numbers(single: Layout) -> None:
    single.tables["query_self"]["s2"] = dict.fromkeys(LAYERS, 0)
    single.tables["dot_products"]["s2"]["s2"] = dict.fromkeys(LAYERS, 0)
    single.write()
    rows = single.read().settings["paraphrased"]["query_self"].filter(pl.col("query_id") == "s2")
    assert rows["self_dot"].to_list() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dimension", ["many", "0", "-8", "08", "8.0", "", "²"])
def test_dimensions_that_are_none(single: Layout, dimension: str) -> None:
    single.tables["projections"][dimension] = single.tables["projections"].pop("8")
    single.write()
    with pytest.raises(
        TableError, match=f"{json.dumps(dimension)[1:-1] if dimension != '²' else '²'}' is not a positive"
    ):
        single.read()


@pytest.mark.parametrize("dimension", [str(2**53), "1" + "0" * 5000])
def test_dimensions_that_are_too_large(single: Layout, dimension: str) -> None:
    single.tables["projections"][dimension] = single.tables["projections"].pop("8")
    single.write()
    with pytest.raises(
        TableError, match=rf"sample_size_full.json: dimension '{dimension[:16]}.* is not a positive integer below 2\^53"
    ):
        single.read()


class TestParameters:
    @pytest.mark.parametrize("value", [0, -3, 1.5, "many", True, None, {}])
    def test_that_are_no_numbers(self, single: Layout, value: object) -> None:
        single.sizes["embed"] = value
        single.write()
        with pytest.raises(TableError, match=r"values.json: the size of layer 'embed' is .*, not a positive integer"):
            single.read()

    @pytest.mark.parametrize("value", [2**53, 2**53 + 1, 10**400])
    def test_that_are_too_large(self, single: Layout, value: int) -> None:
        single.sizes["embed"] = value
        single.write()
        with pytest.raises(
            TableError, match=r"values.json: the size of layer 'embed' is .*, not a positive integer below 2\^53"
        ):
            single.read()
