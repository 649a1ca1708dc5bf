"""What notebooks show of a study that was computed, against plain autograd in float64."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from gradsim.gradients.reference import reference_gradient
from gradsim.models import load_model
from gradsim.notebook import OpenedStudy
from gradsim.partition_job.inputs import sequences
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow


@pytest.fixture
def study(finished: Workplace) -> OpenedStudy:
    return OpenedStudy(finished.store())


@pytest.mark.parametrize("setting", ["paraphrased", "model_generated"])
def test_contributions_of_layers(study: OpenedStudy, setting: str) -> None:
    store = study.store
    frame = study[setting].candidates("s04")
    assert frame.height == 3
    model = load_model(replace(store.model_configuration("cpu"), precision="float64"))
    assert model.dtype == torch.float64

    def gradients(of: str | None, sample: str) -> dict[str, torch.Tensor]:
        rows = store.read(store.lineage.key("tokenized", of)).filter(pl.col("id") == sample)
        return reference_gradient(model, sequences(rows)[0])

    query = gradients(setting, "s04")
    norm_of_query = np.sqrt(sum(float((each**2).sum()) for each in query.values()))
    for row in frame.iter_rows(named=True):
        original = gradients(None, row["original_id"])
        norms = norm_of_query * np.sqrt(sum(float((each**2).sum()) for each in original.values()))
        expected = [float((query[layer] * original[layer]).sum()) / norms for layer in query]
        assert [each["layer"] for each in row["contributions"]] == list(query)
        np.testing.assert_allclose([each["contribution"] for each in row["contributions"]], expected, atol=1e-6)
        assert row["similarity"] == pytest.approx(sum(expected), abs=1e-6)
        assert sum(each["contribution"] for each in row["contributions"]) == pytest.approx(row["similarity"], abs=1e-12)


def test_texts_scores_and_projections(study: OpenedStudy, finished: Workplace) -> None:
    frame = study["word_dropout"].candidates("s04")
    originals = {
        sample["id"]: "\n\n".join(f"{message['role']}: {message['content']}" for message in sample["messages"])
        for sample in finished.rows(20)
    }
    assert frame["original"].to_list() == [originals[name] for name in frame["original_id"]]
    (query,) = frame["query"].unique()
    assert query.startswith("user: ")
    assert query not in originals.values()
    candidates = study["word_dropout"].scan("candidates").filter(pl.col("query_id") == "s04").collect()
    assert frame["score"].to_list() == candidates["score"].to_list()
    assert frame["forced"].to_list() == candidates["forced"].to_list()
    (projection,) = [name for name in frame.columns if name.startswith("sjlt-")]
    stored = study["word_dropout"].scan("projected_similarity").filter(pl.col("query_id") == "s04").collect()
    assert frame[projection].to_list() == stored.sort("rank")["similarity"].to_list()


def test_partitions_need_not_be_combined(computed: Workplace) -> None:
    """The partitions repeat originals, which count once."""
    combined = OpenedStudy(computed.store())["word_dropout"].candidates("s04")
    computed.delete("tiny/word_dropout/results/*")
    rows = OpenedStudy(computed.store())["word_dropout"].candidates("s04")
    others = pl.exclude("contributions")
    assert rows.select(others).equals(combined.select(others))
    for found, expected in zip(rows["contributions"], combined["contributions"], strict=True):
        values = pl.Series(found).struct.field("contribution"), pl.Series(expected).struct.field("contribution")
        np.testing.assert_allclose(*values, atol=1e-7)
