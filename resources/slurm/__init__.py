"""Partition jobs on a Slurm cluster, reached over ssh through dagster-slurm.

- `site` holds the cluster's address and what jobs request; `connection` runs commands on its login node.
- `client` submits a job or resumes watching it, `watch` follows it with the state that `job_state` reads, and
  `failures` explains what went wrong.
- `files` copies inputs and results if the cluster does not share the data root.
- `compute` combines these into the compute resource.
- `check` and `install` implement `gradsim cluster check` and `gradsim cluster install`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
