"""Checks of rewritten texts: faults are counted by partition, warn, and become what the study chooses."""

import re

import dagster as dg
import polars as pl
import pytest

from gradsim.queries.quality import FAULTS
from gradsim_assets.checks.quality_checks import check_name
from gradsim_assets.keys import asset_key

pytestmark = pytest.mark.slow

REFUSAL = "I'm sorry, but I can't assist with that request."
PARTITIONS = ["0000-0004", "0005-0009"]


@pytest.fixture
def place(workplace):
    """Ten queries: one is refused, one is as it was, one is far too short."""
    originals = workplace.rows(10)
    queries = workplace.rows(10, question="What is the best way to {verb} my {thing}?")
    for query in queries:
        query["messages"][1]["content"] = query["messages"][1]["content"].replace("begin with", "first take some")
    queries[1]["messages"][0]["content"] = REFUSAL
    queries[2]["messages"] = originals[2]["messages"]
    queries[7]["messages"][1]["content"] = "Wa | sh."
    workplace.write_rows("originals.jsonl", originals)
    workplace.write_rows("queries.jsonl", queries)
    return workplace


def prepare(place, variants="paraphrased", **keys):
    settings = {
        "paraphrased": {"method": "file", "path": "queries.jsonl", **keys},
        "model_generated": {"method": "generate", "prompts": "paraphrased", "max_new_tokens": 4},
    }
    place.write_study(settings=settings, partition_size=5)
    return place.gradsim("prepare", "tiny", variants)


def evaluations(place):
    """(fault, partition) -> evaluation."""
    key = asset_key(place.store().lineage.key("queries", "paraphrased"))
    found = {}
    with place.instance() as instance:
        for fault, name in ((fault, check_name(fault)) for fault in FAULTS):
            history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, name), limit=9)
            for record in history:
                if record.partition:
                    found[fault, record.partition] = record.evaluation
    return found


def said(found):
    return {place: evaluation.description for place, evaluation in found.items() if not evaluation.passed}


def test_faults_are_counted_and_shown_and_nothing_is_blocked(place):
    assert "✓ tiny/paraphrased/queries" in prepare(place)
    found = evaluations(place)
    assert found.keys() == {(fault, partition) for fault in FAULTS for partition in PARTITIONS}
    assert said(found) == {
        ("refused", "0000-0004"): "1 of 5 queries",
        ("unchanged", "0000-0004"): "1 of 5 queries",
        ("length", "0005-0009"): "1 of 5 queries",
    }
    assert {evaluation.severity for evaluation in found.values()} == {dg.AssetCheckSeverity.WARN}
    assert not any(evaluation.blocking for evaluation in found.values())
    texts = found["refused", "0000-0004"].metadata["texts"].value
    assert "| s01 | user | How should I repair a bicycle chain at home? | I'm sorry, but I can't assist" in texts
    assert "Wa \\| sh." in found["length", "0005-0009"].metadata["texts"].value
    queries = place.store().read(place.store().lineage.key("queries", "paraphrased"))
    assert queries.filter(pl.col("faults").list.eval(pl.element().list.len() > 0).list.any())["id"].to_list() == [
        "s01",
        "s02",
        "s07",
    ]


def test_what_the_study_excludes_is_left_out_and_listed(place):
    output = prepare(place, quality={"refused": "exclude", "length": "exclude", "shortest": 0.4})
    assert "✓ tiny/paraphrased/queries  8 rows" in output
    assert "excludes s01 (its prompt: declined instead of rewritten), and 1 more" in output
    assert re.search(r"! tiny/paraphrased/queries texts_changed +0000-0004: 1 of 4 queries", output)
    store = place.store()
    key = store.lineage.key("queries", "paraphrased")
    assert "s01" not in store.read(key)["id"].cast(pl.String).to_list()
    assert {**store.provenance(key, PARTITIONS[0]).excluded, **store.provenance(key, PARTITIONS[1]).excluded} == {
        "s01": "its prompt: declined instead of rewritten",
        "s07": "its answer: much shorter or much longer than before",
    }
    assert said(evaluations(place)) == {
        ("refused", "0000-0004"): "1 sample excluded",
        ("unchanged", "0000-0004"): "1 of 4 queries",
        ("length", "0005-0009"): "1 sample excluded",
    }


def test_what_is_excluded_is_not_answered_either(place):
    output = prepare(place, "both", quality={"refused": "exclude"})
    assert "✓ tiny/model_generated/queries  9 rows" in output
    assert "! tiny/model_generated/queries texts_not_truncated" in output
