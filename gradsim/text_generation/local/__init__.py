"""Batched text generation with a local model. Exports load on first use, because importing torch takes seconds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
