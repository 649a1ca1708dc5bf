"""Access to the tables, analyses and figures of studies from notebooks and scripts."""

from gradsim.notebook.opened import OpenedSetting, OpenedStudy, open_study, selection_transfer
from gradsim.notebook.overview import compare_studies, studies

__all__ = ["OpenedSetting", "OpenedStudy", "compare_studies", "open_study", "selection_transfer", "studies"]
