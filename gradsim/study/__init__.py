"""Study definitions: files, sections and partitions."""

from gradsim.study.chat import Chat, LossOn, Reduction, TemplateName, Truncation
from gradsim.study.datasets import FileDataset, HubDataset, ImportedDataset
from gradsim.study.definition import (
    HubModel,
    ImportedModel,
    Projection,
    ReferenceModel,
    Study,
)
from gradsim.study.layers import Layers
from gradsim.study.loading import load_studies, load_study
from gradsim.study.model_configuration import ModelConfiguration

__all__ = [
    "Chat",
    "FileDataset",
    "HubDataset",
    "HubModel",
    "ImportedDataset",
    "ImportedModel",
    "Layers",
    "LossOn",
    "ModelConfiguration",
    "Projection",
    "Reduction",
    "ReferenceModel",
    "Study",
    "TemplateName",
    "Truncation",
    "load_studies",
    "load_study",
]
