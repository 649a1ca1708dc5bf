"""Errors that a user can cause and fix.

Every message is one line that names the file, key or sample at fault and how to fix it. The command line prints the
message without a traceback. Any other exception is a bug; the command line writes its traceback to a file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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


class VersionError(GradsimError):
    """Error raised for stored files of a later version of gradsim."""


class TableError(GradsimError):
    """Stored table that is missing, unreadable, stale or inconsistent."""


def enumerated(parts: Sequence[str], conjunction: str) -> str:
    """Join the parts of a sentence: `["a", "b", "c"]` and "or" -> `a, b or c`."""
    return f" {conjunction} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


_LONGEST_REASON = 300  # characters


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened if it is long, or the error's class name if it is empty.

    A first line that ends with a colon is joined to the second one. The class name precedes the message of a failed
    lookup, which is only the key.
    """
    name = type(error).__name__
    line, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [name]
    line = f"{line} {more[0]}" if more and line.endswith(":") else line
    line = f"{name}: {line}" if isinstance(error, LookupError) and line != name else line
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


@contextmanager
def parsing(kind: type[GradsimError], fault: str, fix: str) -> Iterator[None]:
    """Turn whatever a library raises for a malformed file into one line, `FAULT (REASON); FIX`.

    Use it around calls that parse files of others. Errors for users pass unchanged, and so do interrupts.

    Args:
        kind: Class of the error.
        fault: File at fault and what is wrong with it.
        fix: How to fix it.

    Raises:
        GradsimError: The block raised an exception; the error is of class `kind`.
    """
    try:
        yield
    except GradsimError:
        raise
    except BaseException as error:
        # Panics of libraries in Rust (polars, tokenizers) are no `Exception`, and each library has a class of its own.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{fault} ({first_line(error)}); {fix}") from error
