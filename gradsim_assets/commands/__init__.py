"""Implementations of the `gradsim` commands.

Arguments are the options of the commands, described in `gradsim_assets.cli`. Exports load on first use, because Dagster
and torch import slowly.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
