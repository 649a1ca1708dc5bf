"""The commands `import-published` and `export-published`."""

import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from rich.markup import escape

from gradsim.environment import Environment, read_environment
from gradsim.published import Imported, export_published, find_published, read_published, refuse_taken, store_published
from gradsim.study.loading import refuse_name
from gradsim_assets.commands.session import Session
from gradsim_assets.io_manager import stored_metadata
from gradsim_assets.keys import asset_key
from gradsim_assets.launch.instance import open_instance
from gradsim_assets.terminal import bytes_text, console, seconds_text


def import_study(
    folder: Path,
    name: str,
    *,
    model: str | None = None,
    sample_size: str | None = None,
    settings: Sequence[str] | None = None,
    force: bool = False,
) -> None:
    """Import the original study's JSON results as a study without a model.

    Raises:
        GradsimError: Files are missing, malformed or contradictory, or the name is taken.
    """
    began = time.perf_counter()
    environment = read_environment()
    refuse_name(name, environment)
    refuse_taken(environment.data_root, name, force=force)
    with open_instance(environment):  # fail now if it cannot be opened, not after the tables are written
        pass
    with console.status("reading"):
        published = read_published(find_published(folder, model=model, sample_size=sample_size, settings=settings))
    with console.status("writing"):
        imported = store_published(published, environment.data_root, name, force=force)
    for finding in imported.findings:
        console.print(f"  {escape(finding)}", soft_wrap=True)
    _tell_dagster(imported, environment)
    _print_size(imported, time.perf_counter() - began)
    console.print(f"next: [bold]gradsim run {name}[/]")


def export_study(name: str, folder: Path) -> None:
    """Write a study's combined tables in the original study's JSON format into an empty folder.

    Raises:
        GradsimError: Tables are missing or stale, or the folder cannot be written.
    """
    session = Session.open(name)
    with console.status("writing"):
        paths, left_out = export_published(session.store, folder)
    for each in left_out:
        console.print(f"  not written, {escape(each)}", soft_wrap=True)
    for path in paths:
        console.print(f"  {escape(str(path))}  {bytes_text(path.stat().st_size)}", soft_wrap=True)


def _tell_dagster(imported: Imported, environment: Environment) -> None:
    """Record the imported tables as materializations, so that the web UI shows them although no run made them."""
    store = imported.store
    with open_instance(environment) as instance:
        for node in store.lineage:
            if node.imported:
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(asset_key(node.key), metadata=stored_metadata(store, node.key))
                )


def _print_size(imported: Imported, seconds: float) -> None:
    store = imported.store
    size = sum(store.path(node.key).stat().st_size for node in store.lineage if node.imported)
    settings = ", ".join(store.study.settings)
    console.print(
        f"imported [bold]{store.study.name}[/] ({settings}; {store.study.size} queries) in {seconds_text(seconds)}: "
        f"{bytes_text(size)} of tables in {escape(str(store.root / store.study.name))}",
        soft_wrap=True,
    )
