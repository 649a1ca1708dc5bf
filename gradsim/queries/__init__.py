"""Queries: samples rewritten by the method that a setting names.

A query has the id of the original that it was made from. To add a method, register its settings class with
`gradsim.study.settings.register_query_method` and its function with `rewrite.register`; see docs/extending.md.
"""

from gradsim.queries import generating, rewriting, without_model
from gradsim.queries.make import QUERIES_SCHEMA, MadeQueries, QueryContext, make_queries, query_frame, rewrite
from gradsim.queries.rewriting import ask, estimate

__all__ = [
    "QUERIES_SCHEMA",
    "MadeQueries",
    "QueryContext",
    "ask",
    "estimate",
    "generating",
    "make_queries",
    "query_frame",
    "rewrite",
    "rewriting",
    "without_model",
]
