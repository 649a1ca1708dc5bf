"""Starting runs from the command line: instance, targets, display. Exports load on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
