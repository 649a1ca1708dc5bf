"""Study definitions: files, sections and partitions."""

from gradsim.study.datasets import FileDataset, HubDataset, ImportedDataset
from gradsim.study.definition import (
    HubModel,
    ImportedModel,
    Projection,
    ReferenceModel,
    Study,
)
from gradsim.study.loading import load_studies, load_study
from gradsim.study.model_configuration import ModelConfiguration

__all__ = [
    "FileDataset",
    "HubDataset",
    "HubModel",
    "ImportedDataset",
    "ImportedModel",
    "ModelConfiguration",
    "Projection",
    "ReferenceModel",
    "Study",
    "load_studies",
    "load_study",
]
