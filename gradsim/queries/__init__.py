"""Queries: samples rewritten by the method that a setting names.

A query has the id of the original that it was made from. To add a method, register its settings class with
`gradsim.study.settings.register_query_method` and its function with `rewrite.register`; see docs/extending.md.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
