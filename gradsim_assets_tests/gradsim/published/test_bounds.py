"""Numbers that no gradients have, though each by itself is a number."""

import pytest

from gradsim.errors import TableError
from gradsim_assets_tests.gradsim.published.tiny import Layout


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
