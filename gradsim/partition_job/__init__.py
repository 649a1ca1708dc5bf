"""Computes partitions from files to files: `python -m gradsim.partition_job JOB.json`.

Gradients, answers of the studied model, the audit of stored dots and the gradient index are computed so: whatever needs
the model. The same command runs here in a subprocess or on a compute node. It loads the model once, plans all its
partitions together, and writes each partition's tables as soon as they are complete, so that a job that is run again
continues where it ended. Beside the job file it leaves `JOB.result.json`: what was computed, or what is wrong.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
