"""Errors that a user can cause and mend.

Every message is one line: what is wrong, naming the file, key or sample, and how to mend it. The command line prints
it without a traceback; anything that is not a `GradsimError` is a fault of ours and keeps its traceback.
"""


class GradsimError(Exception):
    """Base of every error that the user of gradsim can mend."""


class StudyError(GradsimError):
    """A study, its file or the environment says something that cannot be followed."""


class SampleError(GradsimError):
    """Samples that cannot be used as they are."""


class ModelError(GradsimError):
    """A model or tokenizer that cannot be loaded or used."""


class DeviceError(GradsimError):
    """A device that is not there."""


class ClusterError(GradsimError):
    """A cluster that cannot be used as it is, or not with what the site's settings say."""


class GradientError(GradsimError):
    """Gradients that cannot be computed or would be wrong."""


class MemoryBudgetError(GradientError):
    """A memory budget in which not even one pair can be compared."""


class TableError(GradsimError):
    """A stored table that is missing, unreadable, stale or mixed."""
