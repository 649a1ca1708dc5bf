"""What defines a study: its file, its sections, its partitions."""

from gradsim.study.definition import (
    FileDataset,
    FileSetting,
    GenerateSetting,
    HubDataset,
    HubModel,
    ImportedDataset,
    ImportedModel,
    ImportedSetting,
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
    "ImportedDataset",
    "ImportedModel",
    "ImportedSetting",
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
