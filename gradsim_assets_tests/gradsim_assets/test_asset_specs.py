"""What all table assets have in common."""

import dagster as dg
import pytest

from gradsim_assets.assets import dataset
from gradsim_assets.build import build_definitions
from gradsim_assets_tests.workplace import Workplace


def test_a_file_that_changes_while_it_is_read_fails_the_step(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the rows of the old file would be stored under the fingerprint of the new one."""
    load = dataset.load_originals

    def load_and_replace(*arguments: object) -> object:
        loaded = load(*arguments)  # type: ignore[arg-type]
        workplace.write_rows("originals.jsonl", workplace.rows(20, question="Why {verb} a {thing}?"))
        return loaded

    monkeypatch.setattr(dataset, "load_originals", load_and_replace)
    definitions = build_definitions([workplace.study()], workplace.environment)
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.get_implicit_global_asset_job_def()
        run = job.execute_in_process(
            asset_selection=[dg.AssetKey(["tiny", "samples"])], instance=instance, raise_on_error=False
        )
    assert not run.success
    (failure,) = (event for event in run.all_events if event.is_step_failure)
    assert "tiny/samples: a file that the study names changed while this table was made; run it again" in str(
        failure.step_failure_data.error
    )
    assert not workplace.data.exists() or not list(workplace.data.rglob("samples.parquet"))
