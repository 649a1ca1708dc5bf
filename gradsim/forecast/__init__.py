"""Forecast a study's samples, operations, memory, files and run time before it runs.

sources.py   model shapes and sample lengths, from fresh stored tables or estimated
inputs.py    pairs compared by the partitions of a setting
costs.py     cost of the missing comparisons, in one job or in one job per partition
job.py       run time of one job, computed in a separate process
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
