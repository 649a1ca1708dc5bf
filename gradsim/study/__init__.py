"""Study definitions: files, sections and partitions."""

from gradsim.study.chat import Chat, LossOn, Reduction, TemplateName, Truncation
from gradsim.study.datasets import FileDataset, HubDataset, ImportedDataset
from gradsim.study.definition import Projection, Study
from gradsim.study.layers import Layers
from gradsim.study.loading import load_studies, load_study
from gradsim.study.model_configuration import ModelConfiguration
from gradsim.study.studied_model import Finetune, HubModel, ImportedModel, LoRA, ReferenceModel

__all__ = [
    "Chat",
    "FileDataset",
    "Finetune",
    "HubDataset",
    "HubModel",
    "ImportedDataset",
    "ImportedModel",
    "Layers",
    "LoRA",
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
