from .make import make_queries as make_queries
from .method import QUERIES_SCHEMA as QUERIES_SCHEMA
from .method import MadeQueries as MadeQueries
from .method import QueryContext as QueryContext
from .method import query_frame as query_frame
from .method import rewrite as rewrite
from .rewriting import ask as ask
from .rewriting import estimate as estimate
