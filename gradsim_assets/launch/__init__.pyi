from .launching import failed_partitions as failed_partitions
from .launching import needs_job as needs_job
from .launching import run_launches as run_launches
