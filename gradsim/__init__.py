"""Which training sample did a text come from? Exact gradient similarity, layer by layer.

This package is the science: it knows nothing of Dagster. `gradsim_assets` makes assets of it, `resources` gives them
a device, an API client and a place to compute.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gradsim.opened import OpenedStudy


def open_study(name: str) -> "OpenedStudy":
    """A study's tables as lazy polars frames, its answers and figures, for notebooks; see `gradsim.opened`.

    Args:
        name: as `gradsim run` takes it; the data root is `GRADSIM_DATA`'s.

    Raises:
        StudyError: there is no such study.
    """
    from gradsim.opened import open_study  # noqa: PLC0415 - what only notebooks need

    return open_study(name)
