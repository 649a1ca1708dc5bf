from .at_work import Projection as Projection
from .at_work import make_projections as make_projections
from .dimensions import published_dimension as published_dimension
from .projector import Projector as Projector
from .registry import KINDS as KINDS
