"""A job refuses a model whose layers are not those of the study's table, in the same order."""

from pathlib import Path

import polars as pl
import pytest

from gradsim.errors import ModelError
from gradsim.partition_job.gradients import _check_layers
from gradsim.study import Study
from gradsim.tables import Store
from gradsim_assets_tests.gradsim.gradients.conftest import build_model


@pytest.mark.parametrize("change", ["none", "another order", "one less", "one more"])
def test_layers_are_those_of_the_table(tmp_path: Path, change: str) -> None:
    study = Study.model_validate(
        {
            "name": "mine",
            "dataset": {"path": tmp_path / "rows.jsonl"},
            "samples": 1,
            "model": {"name": "org/model"},
            "settings": {"word_dropout": {"method": "word_dropout"}},
        }
    )
    model = build_model("llama, untied")
    sizes = [(name, list(parameter.shape), parameter.numel()) for name, parameter in model.named_parameters()]
    stored = {"another order": sizes[::-1], "one less": sizes[1:], "one more": [*sizes, ("lost", [1], 1)]}
    store = Store(tmp_path / "data", study)
    schema = ["layer", "shape", "parameters"]
    store.write(store.lineage.key("model"), pl.DataFrame(stored.get(change, sizes), schema=schema, orient="row"))
    if change == "none":
        _check_layers(model, store)
        return
    with pytest.raises(ModelError, match="layers differ from those of the loaded model"):
        _check_layers(model, store)
