"""The command `list`: all studies with their settings, and how far each of them is."""

import polars as pl
from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim.environment import read_environment
from gradsim.tables.overview import INVALID, studies_overview
from gradsim_assets.terminal import console


def print_studies() -> None:
    """Print a row for each study, and the error of each that is not valid.

    Raises:
        StudyError: There is no studies folder.
    """
    environment = read_environment()
    studies = studies_overview(environment)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("study", overflow="fold", style="bold")
    table.add_column("state")
    table.add_column("settings", overflow="fold")
    table.add_column("about", overflow="fold")
    for study in studies.filter(pl.col("state") != INVALID).iter_rows(named=True):
        about = escape(study["description"] or study["model"])
        table.add_row(study["study"], study["state"], ", ".join(study["settings"]), about)
    if table.row_count:
        console.print(table)
    elif studies.is_empty():
        folder = escape(str(environment.studies_folder))
        console.print(f"no study in {folder}; write one: gradsim init NAME --data FILE --model NAME", soft_wrap=True)
    for name, error in studies.drop_nulls("error").sort("study").select("study", "error").iter_rows():
        console.print(f"[bold red]{escape(name)}:[/] {escape(error)}", soft_wrap=True)
