"""A study of data in another format than messages, from its file to its report."""

import csv
import gzip
import io

import dagster as dg
import pytest

from gradsim_assets_tests.workplace import Workplace


@pytest.mark.slow
def test_a_compressed_alpaca_file_without_ids(workplace: Workplace) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["question", "context", "output", "source"])
    for number in range(8):
        writer.writerow([f"What is {number}?", "Count, please." if number % 2 else "", f"It is {number}.", "mine"])
    (workplace.studies / "rows.csv.gz").write_bytes(gzip.compress(text.getvalue().encode()))
    workplace.write_study(
        dataset={"path": "rows.csv.gz", "columns": {"instruction": "question", "input": "context"}},
        samples=8,
        projections=[],
    )
    assert "8 samples, format alpaca" in workplace.gradsim("plan", "tiny")
    workplace.gradsim("run", "tiny")
    assert "8 samples, format alpaca" in workplace.gradsim("plan", "tiny")

    store = workplace.store()
    samples = store.lineage.key("samples")
    assert store.read(samples).head(2).rows() == [
        ("row_0", [{"role": "user", "content": "What is 0?"}, {"role": "assistant", "content": "It is 0."}]),
        (
            "row_1",
            [
                {"role": "user", "content": "What is 1?\n\nCount, please."},
                {"role": "assistant", "content": "It is 1."},
            ],
        ),
    ]
    assert store.provenance(samples).format == "alpaca"
    with workplace.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(samples.parts))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert (metadata["format"].value, metadata["not used"].value) == ("alpaca", "source")
    assert store.path(store.lineage.key("report")).is_file()
