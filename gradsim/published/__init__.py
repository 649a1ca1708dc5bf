"""Import and export of the original study's published results, between its JSON files and gradsim's tables."""

from gradsim.published.assembling import PROJECTION, Published, read_published
from gradsim.published.exporting import export_published, write_published
from gradsim.published.finding import PublishedFiles, find_published
from gradsim.published.importing import Imported, refuse_taken, store_published
from gradsim.published.layout import WHOLE_STUDY

__all__ = [
    "PROJECTION",
    "WHOLE_STUDY",
    "Imported",
    "Published",
    "PublishedFiles",
    "export_published",
    "find_published",
    "read_published",
    "refuse_taken",
    "store_published",
    "write_published",
]
