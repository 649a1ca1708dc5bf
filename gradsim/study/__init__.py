"""Study definitions: files, sections and partitions."""

from gradsim.study.definition import (
    Chat,
    FileDataset,
    HubDataset,
    HubModel,
    ImportedDataset,
    ImportedModel,
    LossOn,
    Projection,
    ReferenceModel,
    Study,
    TemplateName,
)
from gradsim.study.loading import load_studies, load_study
from gradsim.study.model_configuration import ModelConfiguration

__all__ = [
    "Chat",
    "FileDataset",
    "HubDataset",
    "HubModel",
    "ImportedDataset",
    "ImportedModel",
    "LossOn",
    "ModelConfiguration",
    "Projection",
    "ReferenceModel",
    "Study",
    "TemplateName",
    "load_studies",
    "load_study",
]
