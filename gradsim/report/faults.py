"""What may be wrong with the queries' texts, counted."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from gradsim.analysis.schema import Schema
from gradsim.plots.labels import setting_label
from gradsim.queries.quality import FAULTS
from gradsim.report.data import SettingReport
from gradsim.report.downloads import Downloads
from gradsim.report.tables import Table, table_of

_SCHEMA = pl.Schema({"setting": pl.String(), "fault": pl.String(), "prompts": pl.Int64(), "answers": pl.Int64()})

_DESCRIPTIONS: Schema = {
    "setting": (pl.String(), "how the queries were made"),
    "fault": (pl.String(), "what may be wrong with a text that was kept"),
    "prompts": (pl.Int64(), "queries whose prompt has it"),
    "answers": (pl.Int64(), "queries whose answer has it"),
}


def faults_are_known(settings: Sequence[SettingReport]) -> bool:
    """Whether texts were looked at."""
    return any(setting.queries is not None and "faults" in setting.queries.columns for setting in settings)


def fault_counts(settings: Sequence[SettingReport]) -> pl.DataFrame:
    """How many kept texts of each setting have which fault; faults that none has are left out."""
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
            prompts, answers = counts[fault, "user"], counts[fault, "assistant"]
            if prompts or answers:
                rows.append((setting_label(setting.setting), meaning, prompts, answers))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def faults_table(settings: Sequence[SettingReport], downloads: Downloads) -> Table | None:
    """The counts as a table; None where there are none."""
    counts = fault_counts(settings)
    if counts.is_empty():
        return None
    download = downloads.add("faulty-texts", "faulty texts", counts)
    return table_of("faults", "Texts that something may be wrong with", counts, _DESCRIPTIONS, download)
