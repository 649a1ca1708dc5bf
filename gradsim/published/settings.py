"""One setting: all its files as merged tables that fit together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from gradsim.published.bounds import check_cosines, check_dots
from gradsim.published.checking import (
    check_last_part,
    check_lists,
    check_pairs,
    check_same_queries,
    check_samples,
    check_sources,
    query_sets,
)
from gradsim.published.frames import in_order
from gradsim.published.layout import SettingFiles, Source
from gradsim.published.merging import Merged, merge
from gradsim.published.reading import (
    DOT_LEVELS,
    ORIGINAL_LEVELS,
    QUERY_LEVELS,
    Block,
    Floats,
    Reader,
    read_dots,
    read_projections,
    read_similarities,
)


@dataclass(frozen=True)
class MergedSetting:
    """A setting's tables; they speak of the same queries, pairs and layers.

    Attributes:
        dots: rows are pairs, columns layers.
        query_self: self dots of every query.
        original_self: self dots of every original of a pair, perhaps of more.
        similarities: cosines of whole gradients, if there are any.
        projections: dimension -> cosines of projected gradients.
    """

    dots: Merged
    query_self: Merged
    original_self: Merged
    similarities: Merged | None
    projections: Mapping[int, Merged]

    @property
    def queries(self) -> tuple[str, ...]:
        """Each query once, in order."""
        return tuple(dict.fromkeys(query for query, _ in self.dots.keys))

    @cached_property
    def norms(self) -> Floats:
        """Products of the norms of each pair's gradients in each layer, (pairs, layers)."""
        queries = in_order(self.query_self, [(query,) for query, _ in self.dots.keys])
        originals = in_order(self.original_self, [(original,) for _, original in self.dots.keys])
        return np.sqrt(queries) * np.sqrt(originals)

    def cosines(self) -> Iterator[tuple[str, Merged]]:
        """What cosines there are, with what they are called."""
        if self.similarities:
            yield "gradient similarities", self.similarities
        for dimension, merged in self.projections.items():
            yield f"similarities of projections to {dimension} dimensions", merged


def read_setting(reader: Reader, files: SettingFiles, layers: tuple[str, ...] | None) -> MergedSetting:
    """Reads a setting's files; whether repeated values agree is not looked at yet.

    Args:
        reader: reads files.
        files: which.
        layers: in order; None: as the first file of dots has them.

    Raises:
        TableError: a file is malformed, or what it says does not fit to the others.
    """
    dots = list(_dot_blocks(reader, files.dot_products, DOT_LEVELS, layers))
    layers = dots[0].columns
    query_self = list(_dot_blocks(reader, files.query_self, QUERY_LEVELS, layers))
    original_self = list(_dot_blocks(reader, files.original_self, ORIGINAL_LEVELS, layers))
    similarities = [read_similarities(reader, source) for source in files.gradient_similarity]
    projections: dict[int, list[Block]] = {}
    for source in files.projections:
        for dimension, block in read_projections(reader, source).items():
            projections.setdefault(dimension, []).append(block)

    tables_of_queries = [dots, query_self, *([similarities] if similarities else []), *projections.values()]
    check_same_queries(list(chain.from_iterable(query_sets(blocks) for blocks in tables_of_queries)))
    check_lists(dots)
    setting = MergedSetting(
        dots=merge(dots),
        query_self=merge(query_self),
        original_self=merge(original_self),
        similarities=merge(similarities) if similarities else None,
        projections={dimension: merge(blocks) for dimension, blocks in projections.items()},
    )
    check_last_part(original_self, len(setting.queries))
    check_sources(setting.dots)
    check_samples(setting.dots, setting.query_self, "query")
    check_samples(setting.dots, setting.original_self, "original")
    check_dots(setting.dots, setting.norms)
    for kind, cosines in setting.cosines():
        check_pairs(setting.dots, cosines)
        check_cosines(cosines, kind)
    return setting


def _dot_blocks(
    reader: Reader, sources: Sequence[Source], levels: Sequence[str], layers: tuple[str, ...] | None
) -> Iterator[Block]:
    """The files of one table; where the layers are not known yet, the first file says them."""
    for source in sources:
        block = read_dots(reader, source, levels, layers)
        layers = block.columns
        yield block
