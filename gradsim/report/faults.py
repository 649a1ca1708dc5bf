"""Counts of possible faults in the queries' texts."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from gradsim.analysis.schema import Column, Schema
from gradsim.plots.labels import setting_label
from gradsim.queries.quality import FAULTS
from gradsim.report.data import SettingReport
from gradsim.report.downloads import Downloads
from gradsim.report.tables import Table, table_of
from gradsim.study.datasets import TEXT

_SCHEMA = pl.Schema({"setting": pl.String(), "fault": pl.String(), "prompts": pl.Int64(), "answers": pl.Int64()})

_DESCRIPTIONS: Schema = {
    "setting": Column(pl.String(), "setting of the queries"),
    "fault": Column(pl.String(), "possible fault of a text that was kept"),
    "prompts": Column(pl.Int64(), "queries with this fault in the prompt"),
    "answers": Column(pl.Int64(), "queries with this fault in the answer, or in a text without a prompt"),
}


def faults_are_known(settings: Sequence[SettingReport]) -> bool:
    """Return whether any setting's texts were checked for faults."""
    return any(setting.queries is not None and "faults" in setting.queries.columns for setting in settings)


def fault_counts(settings: Sequence[SettingReport]) -> pl.DataFrame:
    """Return the number of prompts and answers with each fault, by setting; omit faults that never occur."""
    rows = []
    for setting in settings:
        if setting.queries is None or "faults" not in setting.queries.columns:
            continue
        counts = Counter(
            (fault, message["role"])
            for messages, faults in setting.queries.select("messages", "faults").iter_rows()
            for message, found in zip(messages, faults, strict=True)
            for fault in found
        )
        for fault, meaning in FAULTS.items():
            prompts, answers = counts[fault, "user"], counts[fault, "assistant"] + counts[fault, TEXT]
            if prompts or answers:
                rows.append((setting_label(setting.setting), meaning, prompts, answers))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def faults_table(settings: Sequence[SettingReport], downloads: Downloads) -> Table | None:
    """Return the fault counts as a table, or None if there are no faults."""
    counts = fault_counts(settings)
    if counts.is_empty():
        return None
    download = downloads.add("faulty-texts", "faulty texts", counts)
    return table_of("faults", "Texts with possible faults", counts, _DESCRIPTIONS, download)
