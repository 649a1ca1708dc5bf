"""Published results in and out: the commands `import-published` and `export-published`."""

import re
import time
from pathlib import Path
from typing import Annotated

import dagster as dg
import typer
from rich.markup import escape

from gradsim.environment import Environment, read_environment
from gradsim.errors import StudyError
from gradsim.published import Imported, export_published, find_published, read_published, refuse_taken, store_published
from gradsim.study.definition import NAME
from gradsim.study.loading import study_names
from gradsim_assets.commands.session import Session
from gradsim_assets.io_manager import stored_metadata
from gradsim_assets.keys import asset_key
from gradsim_assets.launch.console import console
from gradsim_assets.launch.instance import open_instance
from gradsim_assets.units import bytes_text, seconds_text

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds dot_products/, or its parent.")]


def import_command(
    folder: Folder,
    study: Annotated[str, typer.Option("--study", metavar="NAME", help="What to call it here.")],
    model: Annotated[str | None, typer.Option(help="The model, where the folder has several.")] = None,
    sample_size: Annotated[str | None, typer.Option(help="full or N, where the folder has several.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="Only this setting; may be given several times.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier import of this name.")] = False,
) -> None:
    """Read the original study's JSON results as a study without a model.

    Dot products are read whole or in _part_A_B files. What is missing, malformed or contradictory is refused by name;
    what was noticed and resolved is listed. `gradsim run NAME` then makes the analyses and the report.
    """
    began = time.perf_counter()
    environment = read_environment()
    _refuse_name(study, environment)
    refuse_taken(environment.data_root, study, force=force)
    with open_instance(environment):  # refused now, not when the tables are written
        pass
    with console.status("reading"):
        published = read_published(
            find_published(folder, model=model, sample_size=sample_size, settings=setting or None)
        )
    with console.status("writing"):
        imported = store_published(published, environment.data_root, study, force=force)
    for finding in imported.findings:
        console.print(f"  {escape(finding)}", soft_wrap=True)
    _tell_dagster(imported, environment)
    _print_size(imported, time.perf_counter() - began)
    console.print(f"next: [bold]gradsim run {study}[/]")


def export_command(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study whose combined tables are there.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder; gets data/ and results/.")],
) -> None:
    """Write a study's combined tables as the original study's JSON files, byte for byte in its layout."""
    session = Session.open(study)
    with console.status("writing"):
        paths, left_out = export_published(session.store, folder)
    for each in left_out:
        console.print(f"  not written, {escape(each)}", soft_wrap=True)
    for path in paths:
        console.print(f"  {escape(str(path))}  {bytes_text(path.stat().st_size)}", soft_wrap=True)


def _refuse_name(name: str, environment: Environment) -> None:
    if not re.fullmatch(NAME, name):
        raise StudyError(f"'{name}' cannot be a study's name; use letters, digits and underscores")
    if name in study_names(environment):
        raise StudyError(f"there is a study file for '{name}'; choose another name for the import")


def _tell_dagster(imported: Imported, environment: Environment) -> None:
    """The web UI then shows where the tables came from, though no run made them."""
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
