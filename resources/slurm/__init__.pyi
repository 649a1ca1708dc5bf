from . import check as check
from . import install as install
from .compute import SlurmCompute as SlurmCompute
