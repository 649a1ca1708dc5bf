"""The command `list`: all studies with their settings, and how far each of them is.

Files are not verified, so that the command stays fast for studies of many partitions; `gradsim status` verifies them.
"""

import os

from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim.environment import read_environment
from gradsim.errors import GradsimError
from gradsim.study import HubModel, ImportedModel, Study, load_studies
from gradsim.tables import State, Store, TableKey
from gradsim.tables.freshness import transitive_states
from gradsim_assets.terminal import console


def print_studies() -> None:
    """Print a row for each study, and the error of each that is not valid.

    Raises:
        StudyError: There is no studies folder.
    """
    environment = read_environment()
    studies, faults = load_studies(environment)
    errors: dict[str, GradsimError] = dict(faults)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("study", overflow="fold", style="bold")
    table.add_column("state")
    table.add_column("settings", overflow="fold")
    table.add_column("about", overflow="fold")
    for study in studies:
        try:
            state = progress(Store(environment.data_root, study))
        except GradsimError as error:
            state, errors[study.name] = "unknown", error
        table.add_row(study.name, state, ", ".join(study.settings), escape(study.description or _model(study)))
    if studies:
        console.print(table)
    elif not errors:
        folder = escape(str(environment.studies_folder))
        console.print(f"no study in {folder}; write one: gradsim init NAME --data FILE --model NAME", soft_wrap=True)
    for name, found in sorted(errors.items()):
        console.print(f"[bold red]{escape(name)}:[/] {escape(str(found))}", soft_wrap=True)


def _model(study: Study) -> str:
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
