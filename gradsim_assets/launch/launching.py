"""Execution of launches in this process, in sequence, recorded in the persistent instance."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from gradsim.environment import Environment
from gradsim.errors import GradsimError
from gradsim.study import Study
from gradsim.tables import Store, TableKey
from gradsim_assets.abandoned import fail_abandoned_runs, process_tags
from gradsim_assets.asset_specs import run_tags
from gradsim_assets.build import build_definitions
from gradsim_assets.checks.stored_check import without_stored
from gradsim_assets.keys import asset_key, job_op, query_ranges, table_key
from gradsim_assets.launch.display import LOGGER_KEY, run_display
from gradsim_assets.launch.instance import open_instance
from gradsim_assets.launch.targets import Launch, describe
from resources.local import job_server

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


# The user sees the command fail, so a daemon that is running beside it must not retry the run.
NOT_RETRIED = {"dagster/max_retries": "0"}


class RunError(GradsimError):
    """Error raised if a run fails; names the step and the reason."""


def run_launches(study: Study, launches: Sequence[Launch], environment: Environment, *, force: bool = False) -> None:
    """Materialize launches in order; stop at the first failure, and keep what was finished.

    Raises:
        RunError: A step or a blocking check failed.
    """
    if environment.compute == "local" and needs_job(study, launches):
        job_server()  # imports torch while Dagster loads
    with open_instance(environment) as instance, run_display() as (console, logger):
        fail_abandoned_runs(instance)
        definitions = build_definitions([study], environment)
        definitions = dg.Definitions.merge(definitions, dg.Definitions(loggers={LOGGER_KEY: logger}))
        job = definitions.resolve_implicit_global_asset_job_def()
        graph = definitions.resolve_asset_graph()
        for number, launch in enumerate(launches, start=1):
            console.print(f"[bold]run {number} of {len(launches)}[/]  {describe(launch)}")
            assets = {asset_key(key) for key in launch.keys}
            result = job.get_subset(
                asset_selection=assets, asset_check_selection=without_stored(graph.get_check_keys_for_assets(assets))
            ).execute_in_process(
                instance=instance,
                tags={
                    **partition_tags(launch.partitions),
                    **process_tags(),
                    **NOT_RETRIED,
                    **run_tags(study),
                    "gradsim/started_by": "command line",
                },
                run_config={"loggers": {LOGGER_KEY: {}}, "ops": _forced_ops(study, launch.keys) if force else {}},
                raise_on_error=False,
            )
            if not result.success:
                raise RunError(failure_text(result, Store(environment.data_root, study)))


def needs_job(study: Study, launches: Sequence[Launch]) -> bool:
    """Return whether launches run partition jobs."""
    return any(job_op(study, key) for launch in launches for key in launch.keys)


def partition_tags(partitions: Sequence[str]) -> Mapping[str, str]:
    """Return the tags that assign partitions to a run."""
    match partitions:
        case []:
            return {}
        case [only]:
            return {"dagster/partition": only}
        case _:
            return {RANGE_START: partitions[0], RANGE_END: partitions[-1]}


def _forced_ops(study: Study, keys: Sequence[TableKey]) -> dict[str, Any]:
    """Return the run config that makes partition jobs recompute fresh partitions."""
    ops = {op for key in keys if (op := job_op(study, key))}
    return {op: {"config": {"force": True}} for op in sorted(ops)}


def failure_text(result: dg.ExecuteInProcessResult, store: Store) -> str:
    """Return the first failure: the message of the first error meant for the user, or else of the root cause."""
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.blocking and not check.passed:
                path = store.path(table_key(check.asset_key), check.partition)
                return f"{path}: {check.check_name}: {check.description}; delete it and run again"
        if event.is_step_failure and (error := event.step_failure_data.error):
            if error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
                return f"{event.step_key}: interrupted; finished work is kept, run again to continue"
            own = _names(GradsimError) | {dg.Failure.__name__}  # collected late: some are defined on first use
            while error.cause and error.cls_name not in own:
                error = error.cause
            # Dagster writes `module.Class: message`.
            return f"{event.step_key}: {error.message.strip().split(': ', 1)[-1]}"
    return f"run {result.run_id} failed; see it in the web UI (make web)"


def _names(error: type[Exception]) -> set[str]:
    return {error.__name__}.union(*(_names(each) for each in error.__subclasses__()))


def failed_partitions(
    store: Store, keys: Sequence[TableKey], environment: Environment
) -> set[tuple[TableKey, str | None]]:
    """Return the partitions of these partitioned tables whose latest materialization failed."""
    ranges = query_ranges(store.study)
    failed: set[tuple[TableKey, str | None]] = set()
    with open_instance(environment) as instance:
        for key in keys:
            statuses = instance.get_status_by_partition(asset_key(key), ranges.get_partition_keys(), ranges)
            failed |= {
                (key, partition)
                for partition, status in (statuses or {}).items()
                if status and status.value == "FAILED"
            }
    return failed
