"""Texts by a model on this machine, decoded in batches. The exports load on first use: torch takes seconds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
