"""The check `stored_and_fresh` of every asset: what `gradsim status` says of its files, where the web UI shows it.

Dagster's own marks compare code and data versions of what was materialized. They do not show files that were deleted,
damaged or replaced, and partitioned assets are never marked in the graph.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256

import dagster as dg

from gradsim.errors import GradsimError
from gradsim.study import Study
from gradsim.tables import Lineage, State, Store, TableKey
from gradsim.tables.freshness import transitive_states
from gradsim_assets.keys import asset_key, table_key
from resources.failing import failing_plainly
from resources.storage import StorageResource

NAME = "stored_and_fresh"
SECONDS_BETWEEN_LOOKS = 30

# Partitions that a description names.
_NAMED = 3


def stored_check(lineage: Lineage) -> dg.AssetChecksDefinition:
    """Return the check of all assets of a study; all of them are one step."""
    study = lineage.study

    @dg.multi_asset_check(
        name=stored_check_op(study),
        specs=[
            dg.AssetCheckSpec(
                NAME,
                asset=asset_key(node.key),
                description="All files are stored, intact, and made from the present definition and inputs, "
                "as in `gradsim status`.",
            )
            for node in lineage
        ],
        can_subset=True,
    )
    def stored(context: dg.AssetCheckExecutionContext, storage: StorageResource) -> Iterator[dg.AssetCheckResult]:
        wanted = {table_key(check.asset_key) for check in context.selected_asset_check_keys}
        with failing_plainly():
            states = transitive_states(storage.store(study))
        for key, of_table in states.items():
            if key in wanted:
                verdict = _evaluation(key, of_table)
                yield dg.AssetCheckResult(
                    asset_key=verdict.asset_key,
                    check_name=NAME,
                    passed=verdict.passed,
                    severity=verdict.severity,
                    description=verdict.description,
                    metadata=verdict.metadata,
                )

    return stored


def without_stored(checks: Iterable[dg.AssetCheckKey]) -> set[dg.AssetCheckKey]:
    """Return the other checks: a run that makes a part of the tables says nothing about the rest."""
    return {check for check in checks if check.name != NAME}


def stored_check_op(study: Study) -> str:
    """Return the name of the step that checks all assets of a study."""
    return f"{study.name}__{NAME}"


def stored_files_sensor(studies: Sequence[Study]) -> dg.SensorDefinition:
    """Return the sensor that records the check's result for every asset whose files or definition changed."""

    @dg.sensor(
        name="stored_files",
        description="Looks at the stored files of all studies and records the check `stored_and_fresh` of each asset "
        "whose state changed.",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def stored_files(context: dg.SensorEvaluationContext, storage: StorageResource) -> dg.SensorResult:
        before: dict[str, dict[str, str]] = json.loads(context.cursor or "{}")
        now, evaluations = {}, []
        for study in studies:
            of_study = before.get(study.name, {})
            now[study.name], changed = _changes(storage.store(study), of_study)
            evaluations += changed
        return dg.SensorResult(asset_events=evaluations, cursor=json.dumps(now))

    return stored_files


def _changes(store: Store, before: Mapping[str, str]) -> tuple[dict[str, str], list[dg.AssetCheckEvaluation]]:
    """Return the states of a study's assets as a cursor, and the evaluations of those that changed since another one.

    An asset that was never seen stored is not reported: Dagster shows that it was never materialized.
    """
    try:
        look = _look(store)
        if before.get("look") == look:
            return dict(before), []
        states = transitive_states(store)
    except GradsimError:  # the study names a file that cannot be read; its steps and `gradsim status` say so
        return dict(before), []
    evaluations = {str(key): _evaluation(key, of_table) for key, of_table in states.items()}
    missing = {str(key) for key, of_table in states.items() if set(of_table.values()) == {State.MISSING}}
    now = {
        name: evaluation.description or ""
        for name, evaluation in evaluations.items()
        if name in before or name not in missing
    }
    changed = [evaluations[name] for name, said in now.items() if before.get(name) != said]
    return {**now, "look": look}, changed


def _look(store: Store) -> str:
    """Return a digest of the definition and of the sizes and times of stored and named files, which reads none."""
    files = []
    for place in (store.root / store.study.name, *store.lineage.named_paths()):
        for path in sorted([place, *place.rglob("*")]):
            with suppress(FileNotFoundError):  # an unfinished file, which was renamed meanwhile
                status = path.stat()
                files.append((str(path), status.st_size, status.st_mtime_ns))
    return sha256(json.dumps([files, store.study.model_dump_json()]).encode()).hexdigest()


def _evaluation(key: TableKey, states: Mapping[str | None, State]) -> dg.AssetCheckEvaluation:
    """Return the result of the check for an asset: an error for damaged files, a warning for others."""
    counts = Counter(states.values())
    faults = [
        _counted(state, [str(each) for each, found in states.items() if each and found is state], len(states))
        for state in (State.CORRUPT, State.MISSING, State.STALE)
        if counts[state]
    ]
    return dg.AssetCheckEvaluation(
        asset_key(key),
        NAME,
        passed=not faults,
        severity=dg.AssetCheckSeverity.ERROR if counts[State.CORRUPT] else dg.AssetCheckSeverity.WARN,
        description="; ".join(faults) or None,
        metadata={"files": len(states), **{state.value: counts[state] for state in State if counts[state]}},
    )


def _counted(state: State, partitions: Sequence[str], total: int) -> str:
    """Return, for example, `2 of 12 partitions are stale: 0000-0099, 0100-0199`."""
    if not partitions:
        return f"the stored file is {state.value}"
    named = ", ".join(partitions[:_NAMED]) + (", …" if len(partitions) > _NAMED else "")
    return f"{len(partitions)} of {total} partitions are {state.value}: {named}"
