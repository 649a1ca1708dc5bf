"""The candidates of a query, of an imported study; computed ones are in `gradsim_assets/test_notebooks.py`."""

import numpy as np
import polars as pl
import pytest

from gradsim.errors import StudyError
from gradsim.notebook import OpenedStudy
from gradsim_assets_tests.gradsim.published.tiny import DIMENSIONS, LAYERS, LISTS, Layout


def test_numbers_are_those_of_the_tables(study: OpenedStudy, layout: Layout) -> None:
    given = layout.settings["paraphrased"]
    frame = study["paraphrased"].candidates("s1")
    assert frame["query_id"].to_list() == ["s1"] * 3
    assert frame["original_id"].to_list() == LISTS["s1"]
    assert frame["rank"].to_list() == [0, 1, 2]
    assert frame["is_source"].to_list() == [True, False, False]
    assert frame["similarity"].to_list() == [given["gradient_similarity"]["s1"][name] for name in LISTS["s1"]]
    projected = [name for name in frame.columns if name.rpartition("-")[2] in DIMENSIONS]
    assert {name.rpartition("-")[2] for name in projected} == set(DIMENSIONS)
    for name in projected:
        stored = given["projections"][name.rpartition("-")[2]]["s1"]
        assert frame[name].to_list() == [stored[original] for original in LISTS["s1"]]
    assert frame["query"].null_count() == frame["original"].null_count() == 3
    assert frame.columns[-3:] == ["query", "original", "contributions"]


def test_contributions_are_of_the_whole_gradients(study: OpenedStudy, layout: Layout) -> None:
    given = layout.settings["model_generated"]
    for row in study["model-generated"].candidates("s3").iter_rows(named=True):
        dots, query, original = (
            np.array([layers[layer] for layer in LAYERS])
            for layers in (
                given["dot_products"]["s3"][row["original_id"]],
                given["query_self"]["s3"],
                given["original_self"][row["original_id"]],
            )
        )
        assert [each["layer"] for each in row["contributions"]] == list(LAYERS)
        expected = dots / np.sqrt(query.sum() * original.sum())
        np.testing.assert_allclose([each["contribution"] for each in row["contributions"]], expected, rtol=1e-12)


def test_frames_of_several_queries_are_one(study: OpenedStudy) -> None:
    setting = study["paraphrased"]
    assert pl.concat(setting.candidates(query) for query in LISTS).height == sum(map(len, LISTS.values()))


def test_unknown_queries_are_refused_with_those_that_are_close(study: OpenedStudy) -> None:
    with pytest.raises(StudyError) as caught:
        study["paraphrased"].candidates("s11")
    assert str(caught.value) == ("setting 'paraphrased' has no query 's11' among 4; there are, for example, 's1'")
    with pytest.raises(StudyError, match="no query 'elephant' among 4; there are, for example, 's0', 's1', 's2'"):
        study["paraphrased"].candidates("elephant")


def test_an_excluded_query_is_named(study: OpenedStudy) -> None:
    store = study.store
    for table in ("gradient_similarity", "candidates"):
        key = store.lineage.key(table, "paraphrased", "results")
        store.write(key, store.read(key).filter(pl.col("query_id") != "s2"))
    with pytest.raises(StudyError, match="has no candidates of query 's2', which was excluded; the report says why"):
        study["paraphrased"].candidates("s2")
