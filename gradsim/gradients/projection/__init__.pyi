from .dimensions import published_dimension as published_dimension
from .model_projection import ModelProjection as ModelProjection
from .model_projection import make_projections as make_projections
from .projector import Projector as Projector
from .registry import KINDS as KINDS
