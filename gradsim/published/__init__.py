"""The original study's published results: its JSON files as our tables, and our tables as its JSON files."""

from gradsim.published.assembling import PROJECTION, Published, PublishedSetting, read_published
from gradsim.published.exporting import export_published
from gradsim.published.finding import find_published
from gradsim.published.importing import Imported, refuse_taken, store_published
from gradsim.published.layout import WHOLE_STUDY, PublishedFiles
from gradsim.published.writing import write_published

__all__ = [
    "PROJECTION",
    "WHOLE_STUDY",
    "Imported",
    "Published",
    "PublishedFiles",
    "PublishedSetting",
    "export_published",
    "find_published",
    "read_published",
    "refuse_taken",
    "store_published",
    "write_published",
]
