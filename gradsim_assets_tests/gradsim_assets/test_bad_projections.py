"""Projections that do not fit the model: one line that says so before any gradient, and nothing is lost."""

from typing import Any

import pytest

from gradsim.tables import State

pytestmark = pytest.mark.slow

LAYERS = [
    "model.embed_tokens.weight",
    *(f"model.layers.0.self_attn.{name}_proj.weight" for name in "qkvo"),
    *(f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
]

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "more dimensions than parameters": (
        {"total": 10**9},
        "projector 'sjlt_total_1000000000' has an invalid total: 1,000,000,000 dimensions cannot be distributed over "
        "8 layers with 8,896 parameters: choose a total from 8 to 8,896",
    ),
    "a layer's dimension above its size": (
        {"dimensions": dict.fromkeys(LAYERS, 257)},
        "projector 'sjlt_by_layer_9fb6fa6c' assigns 257 dimensions to layer "
        "model.layers.0.self_attn.q_proj.weight, which has 256 elements: set at most that number",
    ),
    "a size that a small model does not tell apart": (
        {"share": 0.01},
        "projections: sjlt_10pct and sjlt_1pct both have 3072 dimensions for this model; remove one",
    ),
}


@pytest.mark.parametrize(("projection", "complaint"), WRONG.values(), ids=WRONG.keys())
def test_projections_that_do_not_fit_the_model(computed, projection: dict[str, Any], complaint: str) -> None:
    """No table changes; with the definition that was there before, everything is fresh again."""
    before, study = computed.digests(), computed.study()
    settings = {name: setting.model_dump(mode="json") for name, setting in study.settings.items()}
    computed.write_study(settings=settings, projections=[{"share": 0.1}, projection])
    output = computed.gradsim("run", "tiny", fails=True, COLUMNS="400")
    assert f"error: tiny__projections: {complaint}" in output
    assert computed.digests() == before
    computed.write_study(settings=settings, projections=[{"share": 0.1, "store_projected": True}])
    store = computed.store()
    states = {store.state(node.key, each) for node in store.lineage for each in store.partitions(node.key)}
    assert states == {State.FRESH}
