"""All studies at a glance, and their accuracies side by side."""

from collections.abc import Sequence

import polars as pl

from gradsim.environment import read_environment
from gradsim.errors import StudyError
from gradsim.notebook.opened import OpenedSetting, OpenedStudy, open_study
from gradsim.tables.overview import studies_overview


def studies() -> pl.DataFrame:
    """Return a row for each study, with how far it is, as `gradsim list` shows.

    No model is loaded, and files are not verified until a study seems finished.

    Returns:
        `study`, `state`, `settings`, `samples`, `model`, `description` and `error`; the last one is null unless the
        study's definition is not valid or a file is damaged.

    Raises:
        StudyError: There is no studies folder.
    """
    return studies_overview(read_environment())


def compare_studies(of: Sequence[str | OpenedStudy | OpenedSetting]) -> pl.DataFrame:
    """Return the accuracies of several studies and settings, those of one method below each other.

    Args:
        of: Names of studies (`sample`) and settings (`sample/paraphrased`), or opened ones. A study stands for all its
            settings.

    Returns:
        `study`, `setting`, `method`, `accuracy`, `low` and `high` (the 95 % Wilson interval), `queries` and `tied`,
        over all queries of a setting. Methods are as in the analysis `accuracy`, which is read if stored and fresh,
        otherwise computed.

    Raises:
        StudyError: There is no such study or setting, or none is named.
        TableError: An input table has not been computed.
    """
    settings = {(each.study.definition.name, each.name): each for name in of for each in _settings(name)}
    if not settings:
        raise StudyError('no study is named; name some, such as compare_studies(["sample", "mine/paraphrased"])')
    accuracies = pl.concat(
        setting.answer("accuracy")
        .filter(pl.col("group") == "all")
        .select(pl.lit(study).alias("study"), pl.lit(name).alias("setting"), pl.exclude("group"))
        for (study, name), setting in settings.items()
    )
    methods = pl.Enum(accuracies["method"].unique(maintain_order=True))
    return accuracies.sort(pl.col("method").cast(methods), maintain_order=True)


def _settings(of: str | OpenedStudy | OpenedSetting) -> list[OpenedSetting]:
    if isinstance(of, OpenedSetting):
        return [of]
    study, _, setting = of.partition("/") if isinstance(of, str) else (of, "", "")
    opened = open_study(study) if isinstance(study, str) else study
    return [opened[name] for name in ([setting] if setting else opened.settings)]
