"""Ways of making queries from originals: a new way is one class, and a line in `Setting`.

A query bears the id of the original it was made from.
"""

from typing import Annotated, get_args

from pydantic import Field

from gradsim.queries.by_api import Paraphrase, Prices
from gradsim.queries.by_local_model import LocalParaphrase
from gradsim.queries.by_studied_model import Generate
from gradsim.queries.choices import Quality
from gradsim.queries.from_file import QueryFile
from gradsim.queries.imported import Imported
from gradsim.queries.way import QUERIES_SCHEMA, MadeQueries, Means, Way
from gradsim.queries.word_dropout import WordDropout

Setting = Annotated[
    QueryFile | Paraphrase | LocalParaphrase | Generate | WordDropout | Imported, Field(discriminator="method")
]

WAYS: tuple[type[Way], ...] = get_args(get_args(Setting)[0])

__all__ = [
    "QUERIES_SCHEMA",
    "WAYS",
    "Generate",
    "Imported",
    "LocalParaphrase",
    "MadeQueries",
    "Means",
    "Paraphrase",
    "Prices",
    "Quality",
    "QueryFile",
    "Setting",
    "Way",
    "WordDropout",
]
