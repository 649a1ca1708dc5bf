"""Failures of steps, as the page of a run shows them."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from gradsim.errors import GradsimError
from resources.full_disks import disk_error


@contextmanager
def failing_plainly() -> Iterator[None]:
    """Fail the step with the message of an error that a user can fix, such as a full disk, without a traceback first.

    As a decorator, it covers functions but not generators.

    Raises:
        dagster.Failure: The block raised such an error. A retry cannot help.
    """
    try:
        yield
    except GradsimError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except OSError as error:
        if found := disk_error(error):
            raise dg.Failure(str(found), allow_retries=False) from error
        raise
