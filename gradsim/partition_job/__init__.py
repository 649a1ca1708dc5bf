"""Jobs that compute partitions with a model: `python -m gradsim.partition_job JOB.json`.

Jobs train models, and compute gradients, generated queries, the gradient audit, the gradient index and rates. The same
command runs in a local subprocess or on a compute node. A job loads the model once, plans all its partitions together,
and writes the tables of each partition as soon as they are complete, so that a restarted job resumes. It writes its
outcome to `JOB.result.json` beside the job file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
