"""Consistency checks between files: same queries and pairs, self dot products for all samples, possible values.

Every check raises a `TableError` that names the file and the first or worst fault.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from gradsim.analysis.arrays import Floats
from gradsim.errors import TableError
from gradsim.published.merging import Merged, relative
from gradsim.published.reading import AGAIN, Block

_SHOWN = 3  # ranges in a message

# Far above the rounding error of a float32 sum in any order.
_COSINE_ROUNDING = 1e-4
_DOT_ROUNDING = 1e-3


class QuerySet(NamedTuple):
    """Queries of one or more files, in order."""

    name: str
    queries: tuple[str, ...]


def query_sets(blocks: Sequence[Block]) -> list[QuerySet]:
    """Return the queries of a table's whole file, and those of all its parts together.

    Raises:
        TableError: The number of queries in a part differs from its name, or two parts have the same query.
    """
    sets = []
    home: dict[str, str] = {}
    for block in blocks:
        queries = tuple(dict.fromkeys(key[0] for key in block.keys))
        if block.part is None:
            sets.append(QuerySet(block.name, queries))
            continue
        named = block.part.stop - block.part.start  # `len` would raise an error for more than 2^63
        if len(queries) != named:
            raise TableError(
                f"{block.name}: contains {len(queries)} queries, but its name says {named} "
                f"({block.part.start} up to, but not including, {block.part.stop}); complete the part or correct its "
                "name"
            )
        if again := [query for query in queries if query in home]:
            raise TableError(
                f"{home[again[0]]} and {block.name} both contain query {again[0]!r} (queries in both: {len(again)}), "
                "but parts must not overlap; remove the wrong one"
            )
        home |= dict.fromkeys(queries, block.name)
    if home:
        sets.append(QuerySet(f"{next(iter(home.values()))} and the parts after it", tuple(home)))
    return sets


def check_same_queries(sets: Sequence[QuerySet]) -> None:
    """Check that all sets contain the same queries.

    Raises:
        TableError: A set lacks queries of another; the message lists their positions.
    """
    longest = max(sets, key=lambda each: len(each.queries))
    every = list(dict.fromkeys(chain(longest.queries, *(each.queries for each in sets))))
    for each in sets:
        there = set(each.queries)
        if missing := [position for position, query in enumerate(every) if query not in there]:
            other = next(other for other in sets if every[missing[0]] in other.queries)
            raise TableError(
                f"{each.name}: lacks {len(missing)} of {len(every)} queries found in {other.name}: "
                f"{_ranges(missing, every)}; add the missing queries, or remove those that do not belong"
            )


def _ranges(positions: Sequence[int], names: Sequence[str]) -> str:
    """Return ascending positions as a list of ranges, for messages."""
    ranges: list[list[int]] = []
    for position in positions:
        if ranges and position == ranges[-1][1] + 1:
            ranges[-1][1] = position
        else:
            ranges.append([position, position])
    shown = [
        f"position {first} ({names[first]!r})"
        if first == last
        else f"positions {first} to {last} ({names[first]!r} to {names[last]!r})"
        for first, last in ranges[:_SHOWN]
    ]
    return ", ".join([*shown, *([f"{len(ranges) - _SHOWN} more ranges"] if len(ranges) > _SHOWN else [])])


def check_sample_size(sample_size: str, queries: QuerySet) -> None:
    """Check that there are as many queries as a numeric sample size says.

    Raises:
        TableError: The numbers differ.
    """
    if sample_size.isdecimal() and int(sample_size) != len(queries.queries):
        raise TableError(
            f"{queries.name}: contains {len(queries.queries)} queries, but its folder says sample size {sample_size}; "
            "add the missing queries or rename the folder"
        )


def check_last_part(blocks: Sequence[Block], queries: int) -> None:
    """Check that the parts of a table end at the last query. Needed for tables that are not keyed by query.

    Raises:
        TableError: The last part ends before or after the last query.
    """
    for last in [block.part for block in blocks if block.part is not None][-1:]:
        if last.stop != queries:
            fix = f"add parts from {last.stop} to {queries}" if last.stop < queries else "correct its name"
            raise TableError(
                f"{blocks[-1].name}: is the last part and ends at {last.stop}, but there are {queries} queries; {fix}"
            )


def check_lists(blocks: Sequence[Block]) -> None:
    """Check that files with dot products of the same query have the same candidates in the same order.

    Raises:
        TableError: Candidates or their order differ.
    """
    first: dict[str, tuple[list[str], str]] = {}
    for block in blocks:
        lists: dict[str, list[str]] = {}
        for query, original in block.keys:
            lists.setdefault(query, []).append(original)
        known = {query: first[query] for query in lists if query in first}
        wrong = [query for query, (candidates, _) in known.items() if candidates != lists[query]]
        for query in wrong[:1]:
            raise TableError(
                f"{known[query][1]} and {block.name} have different candidates for query {query!r}, or the same in a "
                f"different order, which defines their ranks ({len(wrong)} of {len(known)} common queries); remove the "
                "wrong file"
            )
        first |= {query: (candidates, block.name) for query, candidates in lists.items()}


def check_sources(dots: Merged) -> None:
    """Check that the candidates of each query include its source.

    Raises:
        TableError: A query lacks its source.
    """
    keys = set(dots.keys)
    queries = dict.fromkeys(query for query, _ in dots.keys)
    lacking = [query for query in queries if (query, query) not in keys]
    for query in lacking[:1]:
        raise TableError(
            f"{dots.names[0]}: query {query!r} lacks its source, the original of the same name, among its candidates "
            f"({len(lacking)} of {len(queries)} queries); add its dot products, or remove the query from every file"
        )


def check_samples(dots: Merged, self_dots: Merged, side: Literal["query", "original"]) -> None:
    """Check that each sample in a pair has self dot products.

    Args:
        dots: Dot products of pairs.
        self_dots: Self dot products of queries or originals.
        side: Side of the pairs that `self_dots` is for.

    Raises:
        TableError: A sample has no self dot products.
    """
    there = {name for (name,) in self_dots.keys}
    needed = dict.fromkeys(query if side == "query" else original for query, original in dots.keys)
    lacking = [name for name in needed if name not in there]
    for name in lacking[:1]:
        raise TableError(
            f"{self_dots.all_names}: lacks self dot products of {side} {name!r}, which is in {dots.all_names} "
            f"({len(lacking)} of {len(needed)} are missing); add the file or part that contains them"
        )


def check_pairs(dots: Merged, similarities: Merged) -> None:
    """Check that similarities and dot products have the same pairs.

    Raises:
        TableError: A pair is in only one of the two.
    """
    compared, measured = set(dots.keys), set(similarities.keys)
    missing = [key for key in dots.keys if key not in measured]
    extra = [key for key in similarities.keys if key not in compared]
    for pairs, fault in ((missing, "lacks"), (extra, "has")):
        for query, original in pairs[:1]:
            raise TableError(
                f"{similarities.all_names}: {fault} the pair of query {query!r} and original {original!r}, unlike "
                f"{dots.all_names} (such pairs: {len(pairs)}); use files with the same candidates, or remove the "
                "similarities"
            )


def check_cosines(cosines: Merged, kind: str) -> None:
    """Check that all cosines are between -1 and 1, up to rounding.

    Args:
        cosines: Cosines of pairs.
        kind: Plural noun for the cosines.

    Raises:
        TableError: A cosine is out of range.
    """
    sizes = np.abs(cosines.values)
    beyond = sizes > 1 + _COSINE_ROUNDING
    if beyond.any():
        row, column = divmod(int(sizes.argmax()), sizes.shape[1])
        raise TableError(
            f"{cosines.file_of(row)}: {cosines.place_of(row, column)} is {cosines.values[row, column]}, but a cosine "
            f"is between -1 and 1 ({beyond.sum():,} of {sizes.size:,} {kind} are not, this one is the farthest); "
            f"{AGAIN}"
        )


def check_dots(dots: Merged, norms: Floats) -> None:
    """Check that no dot product exceeds the product of the gradient norms (Cauchy-Schwarz), up to rounding.

    Args:
        dots: Dot products of pairs.
        norms: Products of the two gradient norms, (pairs, layers).

    Raises:
        TableError: A dot product is too large.
    """
    shares = relative(dots.values, norms)
    beyond = shares > 1 + _DOT_ROUNDING
    if beyond.any():
        row, column = divmod(int(shares.argmax()), shares.shape[1])
        raise TableError(
            f"{dots.file_of(row)}: {dots.place_of(row, column)} is {dots.values[row, column]}, but a dot product never "
            f"exceeds the product of the norms, {norms[row, column]:.8g} according to the self dot products "
            f"({beyond.sum():,} of {shares.size:,} dot products do, this one the most). The files are from different "
            "runs or damaged: copy them from their source again"
        )
