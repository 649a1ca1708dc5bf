"""What is worth saying of files that can be read: how they were put together, what is odd, what is absent."""

from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np

from gradsim.published.layout import SettingFiles
from gradsim.published.merging import agreement
from gradsim.published.settings import MergedSetting


def setting_findings(files: SettingFiles, setting: MergedSetting) -> Iterator[str]:
    """Sentences on one setting, without its name and full stop.

    Raises:
        TableError: two files disagree on a value.
    """
    yield from _sources(files)
    yield from _repeats(setting)
    yield from _order(setting)
    needed = {original for _, original in setting.dots.keys}
    if unused := sum(original not in needed for (original,) in setting.original_self.keys):
        yield f"self dots of originals that no query is compared with, kept: of {unused} originals"


def _sources(files: SettingFiles) -> Iterator[str]:
    tables = {
        "dot_products": files.dot_products,
        "query_self": files.query_self,
        "original_self": files.original_self,
        "gradient_similarity": files.gradient_similarity,
        "projections": files.projections,
    }
    parts = {table: sum(source.queries is not None for source in sources) for table, sources in tables.items()}
    both = [table for table, sources in tables.items() if 0 < parts[table] < len(sources)]
    only = [table for table, number in parts.items() if number and table not in both]
    if only:
        yield f"put together from parts: {_counted(only, parts)}"
    if both:
        yield (
            f"there as a whole and in parts: {_counted(both, parts)}; all were read, and the whole file's values are "
            "kept"
        )
    if not files.gradient_similarity:
        others = f" (but of {', '.join(files.other_sizes)})" if files.other_sizes else ""
        yield f"there is no gradient similarity of this sample size{others}; it will be computed from the dots"
    if not files.projections:
        yield "there are no random projections of this sample size"


def _counted(tables: list[str], parts: Mapping[str, int]) -> str:
    return ", ".join(f"{parts[table]} of {table}" for table in tables)


def _repeats(setting: MergedSetting) -> Iterator[str]:
    sentences = [
        agreement(setting.query_self, setting.query_self.values, "self dots of queries", "their value"),
        agreement(setting.original_self, setting.original_self.values, "self dots of originals", "their value"),
        agreement(setting.dots, setting.norms, "dots", "the norms' product"),
        *(agreement(merged, np.ones_like(merged.values), name, "one") for name, merged in setting.cosines()),
    ]
    return (sentence for sentence in sentences if sentence)


def _order(setting: MergedSetting) -> Iterator[str]:
    lists = [[original for _, original in pairs] for _, pairs in groupby(setting.dots.keys, key=lambda key: key[0])]
    if len(lists) > 1 and all(len(each) > 1 and each == sorted(each) for each in lists):
        yield (
            f"the candidates of all {len(lists)} queries stand in alphabetical order in dot_products, so that their "
            "ranks are perhaps not BM25's"
        )
    for name, merged in setting.cosines():
        if merged.keys != setting.dots.keys:
            yield f"the {name} stand in another order than dot_products; they were put in that order"


def order_findings(settings: Mapping[str, MergedSetting]) -> Iterator[str]:
    """Whole sentences on settings whose queries stand in another order than the first one's."""
    (first, reference), *others = settings.items()
    for name, setting in others:
        if setting.queries != reference.queries:
            yield (
                f"Setting {name}: its queries stand in another order than those of setting {first}; they were put in "
                "that order."
            )
