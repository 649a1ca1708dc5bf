"""Errors that a user can cause and fix.

Every message is one line that names the file, key or sample at fault and how to fix it. The command line prints the
message without a traceback. Any other exception is a bug in gradsim and keeps its traceback.
"""

from collections.abc import Sequence


class GradsimError(Exception):
    """Base class of all errors that a user can fix."""


class StudyError(GradsimError):
    """Invalid study, study file or environment."""


class SampleError(GradsimError):
    """Invalid samples."""


class ModelError(GradsimError):
    """Model or tokenizer that cannot be loaded or used."""


class DeviceError(GradsimError):
    """Unavailable device."""


class ClusterError(GradsimError):
    """Cluster that cannot be used, or that the site's settings describe incorrectly."""


class GradientError(GradsimError):
    """Gradients that cannot be computed or would be wrong."""


class MemoryBudgetError(GradientError):
    """Memory budget too small to compare a single pair."""


class AnalysisError(GradsimError):
    """Analysis that raised an error."""


class TableError(GradsimError):
    """Stored table that is missing, unreadable, stale or inconsistent."""


def enumerated(parts: Sequence[str], conjunction: str) -> str:
    """Join the parts of a sentence: `["a", "b", "c"]` and "or" -> `a, b or c`."""
    return f" {conjunction} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
