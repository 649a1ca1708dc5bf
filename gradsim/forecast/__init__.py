"""What a study will take before anything of it runs: samples, operations, memory, files, and time where it is known.

sources.py   the model's shapes and the samples' lengths, from stored tables where they are fresh, else estimated
inputs.py    what the partitions of a setting compare
costs.py     what comparing takes: all that is missing in one job, and split into a job a partition
job.py       how long one job takes, answered by a process of its own
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
