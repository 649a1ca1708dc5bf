"""The stored vectors nearest to others, against cosines of the whole matrices in float64."""

import numpy as np
import polars as pl
import pytest

from gradsim.partition_job import nearest
from gradsim.partition_job.nearest import nearest_originals
from gradsim.tables.index import IndexFile
from gradsim_assets_tests.gradsim.tables.indexes import DIMENSIONS, FORMATS, vectors, write

PARAMETERS = np.array([100, 9000])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index folder" / "0000-0001.arrow"


@pytest.fixture
def small_blocks(monkeypatch):
    """Split even small files into several blocks."""
    monkeypatch.setattr(nearest, "_AT_ONCE", 100)
    monkeypatch.setattr(nearest, "_VECTORS_AT_ONCE", 3)
    monkeypatch.setattr(nearest, "_DOTS_AT_ONCE", 13)  # two queries at a time, or one
    monkeypatch.setattr("gradsim.tables.index._BATCH_BYTES", 1500 * 2)


def search(queries, files, top=9, kind="sjlt", **keywords):
    return nearest_originals(queries, files, top, kind=kind, parameters=PARAMETERS, **keywords)


def cosines(queries, rows, weighted=False):
    weights = np.repeat(list(DIMENSIONS.values()) if weighted else [1, 1], list(DIMENSIONS.values()))
    sides = [each.astype(np.float64) * np.sqrt(weights) for each in (queries, rows)]
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    return units[0] @ units[1].T


@pytest.mark.parametrize("stored_format", FORMATS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("top", [1, 4, 99])
def test_they_are_those_of_exact_cosines(path, stored_format, weighted, top, small_blocks):
    rows = vectors(9)
    queries = np.stack([rows[3] + 0.5 * rows[5], rows[7] - rows[1], rows[0]])
    write(path, rows[:4], stored_format)
    second = path.with_name("0002-0003.arrow")
    write(second, rows[4:], stored_format)
    done = []
    with IndexFile(path) as first, IndexFile(second) as last:
        found = search(queries, [first, last], top, weighted=weighted, progress=lambda *progress: done.append(progress))
    names = np.array([*(f"s{number}" for number in range(4)), *(f"s{number}" for number in range(5))])
    for query, expected in enumerate(cosines(queries, rows, weighted)):
        order = np.argsort(-expected, kind="stable")[:top]
        of_query = found.filter(query=query)
        assert of_query["original_id"].to_list() == names[order].tolist()
        assert of_query["rank"].to_list() == list(range(min(top, 9)))
        np.testing.assert_allclose(
            of_query["similarity"], expected[order], atol=2e-4 if stored_format == "float16" else 1e-6
        )
    assert found["query"].is_sorted()
    assert found["similarity"].max() <= 1
    assert len(done) > 2
    assert done[-1] == (9, 9)


def test_many_queries_are_as_each_alone(path, small_blocks):
    rows = vectors(8)
    queries = vectors(12)[5:]
    write(path, rows)
    with IndexFile(path) as file:
        together = search(queries, [file], 3)
        for number, query in enumerate(queries):
            alone = search(query[None], [file], 3)
            of_query = together.filter(query=number)
            assert of_query["original_id"].to_list() == alone["original_id"].to_list()
            for column in ("similarity", "standard_error"):
                np.testing.assert_allclose(of_query[column], alone[column], rtol=0, atol=1e-6)


def test_ties_keep_the_stored_order(path, small_blocks):
    """Make vectors of small integers, whose sums are exact in any order."""
    rows = np.repeat(np.rint(vectors(2, scale=1)), [1, 6], axis=0)
    write(path, rows, "float32")
    with IndexFile(path) as file:
        found = search(rows[1:2], [file], 5)
    assert found["original_id"].to_list() == [f"s{number}" for number in range(1, 6)]


def test_similarities_say_how_uncertain_they_are(path):
    """For independent vectors in one layer of k dimensions about 1/√k; none where every layer is whole."""
    rows = vectors(9)
    rows[:, :5] = 0
    write(path, rows)
    with IndexFile(path) as file:
        errors = search(rows[:1], [file])["standard_error"]
        whole = nearest_originals(rows[:1], [file], 9, kind="sjlt", parameters=np.array([5, 700]))
        unknown = search(rows[:1], [file], kind="logra")
    assert errors[1:].to_list() == pytest.approx([700**-0.5] * 8, rel=0.05)
    assert errors[0] == pytest.approx(0, abs=1e-3)  # itself
    assert whole["standard_error"].to_list() == [0.0] * 9
    assert unknown["standard_error"].null_count() == 9


def test_no_rows(path):
    write(path, [])
    with IndexFile(path) as file:
        found = search(vectors(2), [file])
    assert found.is_empty()
    assert found.schema["original_id"] == pl.String
