"""How far studies are.

Files are not verified until a study seems finished, so that an overview stays fast for studies of many partitions.
"""

import os

import polars as pl

from gradsim.environment import Environment
from gradsim.errors import GradsimError
from gradsim.study import HubModel, ImportedModel, Study, load_studies
from gradsim.tables.freshness import transitive_states
from gradsim.tables.keys import State, TableKey
from gradsim.tables.store import Store

INVALID = "invalid"
"""State of a study whose definition is not valid."""

_COLUMNS = pl.Schema(
    {
        "study": pl.String(),
        "state": pl.String(),
        "settings": pl.List(pl.String()),
        "samples": pl.Int64(),
        "model": pl.String(),
        "description": pl.String(),
        "error": pl.String(),
    }
)


def studies_overview(environment: Environment) -> pl.DataFrame:
    """Return all studies of the studies folder, then all imported ones, then those whose definition is not valid.

    Returns:
        `study`, `state` (see `progress`; `unknown` beside a damaged file, `invalid` beside an invalid definition),
        `settings`, `samples`, `model`, `description` and `error` (null if there is none).

    Raises:
        StudyError: There is no studies folder.
    """
    studies, faults = load_studies(environment)
    rows: list[dict[str, object]] = []
    for study in studies:
        state, error = "unknown", None
        try:
            state = progress(Store(environment.data_root, study))
        except GradsimError as caught:
            error = str(caught)
        rows.append(
            {
                "study": study.name,
                "state": state,
                "settings": list(study.settings),
                "samples": study.size,
                "model": model_name(study),
                "description": study.description,
                "error": error,
            }
        )
    rows += [{"study": name, "state": INVALID, "error": str(fault)} for name, fault in faults.items()]
    return pl.DataFrame(rows, schema=_COLUMNS)


def model_name(study: Study) -> str:
    """Return the name of a study's model, or what it is."""
    match study.model:
        case HubModel(name=name) | ImportedModel(imported=name):
            return name
    return "a model trained on the samples"


def progress(store: Store) -> str:
    """Return how far a study is: `not begun`, `12 of 40 partitions`, `finished`, or what is wrong with its report.

    Raises:
        GradsimError: A file is damaged, or the study names one that cannot be read.
    """
    partitioned = [node.key for node in store.lineage if node.partitioned]
    stored = {key: _stored(store, key) for key in partitioned}
    whole = (store.path(node.key) for node in store.lineage if not node.partitioned)
    if not any(stored.values()) and not any(path.exists() for path in whole):
        return "not begun"
    total = len(store.study.settings) * len(store.study.partitions) if partitioned else 0
    done = sum(
        len(set.intersection(*(set(stored[key]) for key in partitioned if key.setting in {name, None})))
        for name in (store.study.settings if partitioned else ())
    )
    counted = f"{done:,} of {total:,} partitions"
    if done < total:
        return counted
    report = store.lineage.key("report")
    newest = max((time for of_table in stored.values() for time in of_table.values()), default=0)
    state = store.state(report)
    if state is State.FRESH and newest >= store.path(report).stat().st_mtime_ns:
        state = transitive_states(store)[report][None]
    if state is State.FRESH:
        return "finished"
    return f"{counted}, report {state}" if total else f"report {state}"


def _stored(store: Store, key: TableKey) -> dict[str, int]:
    """Return the times of a table's stored partitions, in ns; none if one of them has another definition."""
    wanted = {partition.key for partition in store.study.partitions}
    folder, suffix = store.path(key).with_suffix(""), store.path(key).suffix
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as files:
        found = {
            each.name.removesuffix(suffix): each.stat().st_mtime_ns
            for each in files
            if each.name.endswith(suffix) and each.name.removesuffix(suffix) in wanted
        }
    if found and store.provenance(key, min(found)).fingerprint != store.lineage.fingerprint(key):
        return {}
    return found
