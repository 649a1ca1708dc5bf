"""Client of an OpenAI-compatible API: concurrent, rate-limited, budgeted and resumable. Exports load on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
