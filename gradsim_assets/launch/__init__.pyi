from .launching import failed_partitions as failed_partitions
from .launching import run_launches as run_launches
