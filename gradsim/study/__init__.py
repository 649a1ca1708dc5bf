"""What defines a study: its file, its sections, its partitions."""

from gradsim.study.definition import (
    FileDataset,
    FileSetting,
    GenerateSetting,
    HubDataset,
    HubModel,
    ParaphraseSetting,
    Projection,
    ReferenceModel,
    Setting,
    Study,
    WordDropoutSetting,
)
from gradsim.study.loading import load_studies, load_study
from gradsim.study.running import ModelConfiguration

__all__ = [
    "FileDataset",
    "FileSetting",
    "GenerateSetting",
    "HubDataset",
    "HubModel",
    "ModelConfiguration",
    "ParaphraseSetting",
    "Projection",
    "ReferenceModel",
    "Setting",
    "Study",
    "WordDropoutSetting",
    "load_studies",
    "load_study",
]
