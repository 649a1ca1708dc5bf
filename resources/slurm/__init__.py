"""A cluster that runs Slurm, reached over ssh through dagster-slurm.

`site` says where it is and what a job asks for; `connection` runs commands there; `client` submits a job or takes it
up again, `watch` follows it by what `job_state` reads, `failures` explains; `files` brings inputs there and results
back where no file system is shared; `compute` is the compute resource of all that. `check` and `install` serve
people.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
