"""Parts of a table: gaps, overlaps and malformed ranges in their names."""

import shutil

import pytest

from gradsim.errors import TableError
from gradsim.published import find_published
from gradsim_assets_tests.gradsim.published.tiny import Layout


@pytest.mark.parametrize("table", ["dot_products", "query_self", "original_self", "gradient_similarity", "projections"])
class TestParts:
    def test_a_gap(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 3, 4)
        part = single.part(table, 1, 3)
        part.unlink()
        with pytest.raises(TableError, match=rf"{part.name} is missing before .*_part_3_4.json; add it, or parts"):
            find_published(single.root)

    def test_no_beginning(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 3, 4)
        single.part(table, 0, 1).unlink()
        with pytest.raises(TableError, match=r"_part_0_1.json is missing before .*_part_1_3.json"):
            find_published(single.root)

    def test_an_overlap(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 3, 4)
        shutil.copyfile(single.part(table, 1, 3), single.part(table, 2, 4))
        with pytest.raises(TableError, match=r"_part_2_4.json: starts at query 2, but .* extend to 3; remove"):
            find_published(single.root)

    def test_an_end_before_the_beginning(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 4)
        single.part(table, 1, 4).rename(single.part(table, 1, 1))
        with pytest.raises(TableError, match=r"_part_1_1.json: the range in the file name is empty; correct"):
            find_published(single.root)

    @pytest.mark.parametrize("end", [2**63, 999999999999999999999])
    def test_an_end_beyond_every_table(self, single: Layout, table: str, end: int) -> None:
        single.write()
        single.write_parts(table, 4)
        single.part(table, 0, 4).rename(single.part(table, 0, end))
        with pytest.raises(TableError, match=rf"_part_0_{end}.json.* (its name says|and ends at) {end}"):
            single.read()
