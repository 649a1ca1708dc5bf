from .registry import FAULTS as FAULTS
from .registry import find_faults as find_faults
from .rewrite import QualityCheck as QualityCheck
from .rewrite import Rewrite as Rewrite
from .table import FAULT_TABLE as FAULT_TABLE
from .table import fault_table as fault_table
