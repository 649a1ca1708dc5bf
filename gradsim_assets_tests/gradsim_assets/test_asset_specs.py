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


@pytest.mark.parametrize(
    ("asset", "missing", "options"),
    [
        ("word_dropout/candidates", "tokenized", ""),
        ("word_dropout/dot_products", "model", ""),
        ("word_dropout/results/query_self", "word_dropout/query_self 0000-0006", " --setting word_dropout{}"),
        ("word_dropout/analysis/accuracy", "word_dropout/results/candidates", " --setting word_dropout"),
        ("word_dropout/analysis/gradient_audit", "model", ""),
        ("report", "word_dropout/analysis/accuracy", " --setting word_dropout"),
    ],
)
def test_a_step_whose_input_is_missing_says_first_what_to_run(
    workplace: Workplace, asset: str, missing: str, options: str
) -> None:
    definitions = build_definitions([workplace.study()], workplace.environment)
    partition = "0000-0006"
    with dg.DagsterInstance.ephemeral() as instance:
        run = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[dg.AssetKey(["tiny", *asset.split("/")])],
            partition_key=partition if asset.count("/") == 1 else None,
            instance=instance,
            raise_on_error=False,
        )
    (failure,) = (event.step_failure_data for event in run.all_events if event.is_step_failure)
    assert failure.user_failure_data is not None, failure.error
    assert failure.user_failure_data.description == (
        f"tiny/{missing} is missing in {workplace.data}; materialize it, or run "
        f"`gradsim run tiny{options.format(f' --partition {partition}')}`"
    )
