"""What each `gradsim` command does. Exports load on first use: Dagster and torch take seconds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
