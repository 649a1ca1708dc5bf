from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.tables import TableKey
from gradsim.tables.keys import Room

PLACES = [
    (TableKey("lima", "samples"), None, "lima/samples.parquet"),
    (TableKey("lima", "parameters_per_layer", room="analysis"), None, "lima/analysis/parameters_per_layer.parquet"),
    (TableKey("lima", "dot_products", "paraphrased"), "0000-0099", "lima/paraphrased/dot_products/0000-0099.parquet"),
    (TableKey("lima", "dot_products", "paraphrased", "results"), None, "lima/paraphrased/results/dot_products.parquet"),
    (
        TableKey("lima_olmo_1b", "accuracy_per_layer", "model_generated", "analysis"),
        None,
        "lima_olmo_1b/model_generated/analysis/accuracy_per_layer.parquet",
    ),
    (TableKey("lima", "report"), None, "lima/report.html"),
]


@pytest.mark.parametrize(("key", "partition", "place"), PLACES)
def test_files_lie_where_the_design_says(key: TableKey, partition: str | None, place: str) -> None:
    assert key.file(partition) == PurePosixPath(place)
    assert str(key) == "/".join(key.parts)


name = st.from_regex(r"[A-Za-z0-9_]+", fullmatch=True).filter(lambda text: text not in {"results", "analysis"})


@given(name, name, st.none() | name, st.sampled_from([None, "results", "analysis"]))
def test_parts_lead_back_to_the_key(study: str, table: str, setting: str | None, room: Room | None) -> None:
    key = TableKey(study, table, setting, room)
    assert TableKey.from_parts(key.parts) == key
