"""What must hold between the files of a study: the same queries, the same pairs, self dots of all samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from gradsim.errors import TableError
from gradsim.published.merging import Merged
from gradsim.published.reading import Block, Key

_SHOWN = 3  # ranges in a message


@dataclass(frozen=True, slots=True)
class QuerySet:
    """The queries that some files speak of, in order."""

    name: str
    queries: tuple[str, ...]


def query_sets(blocks: Sequence[Block]) -> list[QuerySet]:
    """The queries of a table's whole file and those of its parts together.

    Raises:
        TableError: a part has another number of queries than its name says, or two parts have the same.
    """
    parts = [block for block in blocks if block.part is not None]
    sets = [QuerySet(block.name, block.queries) for block in blocks if block.part is None]
    if not parts:
        return sets
    home: dict[str, str] = {}
    for part in parts:
        assert part.part is not None
        if len(part.queries) != len(part.part):
            raise TableError(
                f"{part.name}: holds {len(part.queries)} queries, but its name says {len(part.part)} "
                f"({part.part.start} up to, without, {part.part.stop}); bring the whole part or correct its name"
            )
        if again := [query for query in part.queries if query in home]:
            raise TableError(
                f"{home[again[0]]} and {part.name} both hold query {again[0]!r} (queries in both: {len(again)}), "
                "which parts never do; remove the one that does not count"
            )
        home |= dict.fromkeys(part.queries, part.name)
    return [*sets, QuerySet(f"{parts[0].name} and the parts after it", tuple(home))]


def check_same_queries(sets: Sequence[QuerySet]) -> None:
    """Whether all speak of the same queries.

    Raises:
        TableError: one lacks queries that another has; says which ranges.
    """
    longest = max(sets, key=lambda each: len(each.queries))
    every = list(dict.fromkeys(chain(longest.queries, *(each.queries for each in sets))))
    for each in sets:
        there = set(each.queries)
        if missing := [position for position, query in enumerate(every) if query not in there]:
            other = next(other for other in sets if every[missing[0]] in other.queries)
            raise TableError(
                f"{each.name} lacks {len(missing)} of {len(every)} queries, which {other.name} has: "
                f"{_ranges(missing, every)}; bring what is missing, or remove what does not belong to it"
            )


def _ranges(positions: Sequence[int], names: Sequence[str]) -> str:
    """Positions, ascending, as ranges."""
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
    """Whether there are as many queries as the sample size says, if it says a number.

    Raises:
        TableError: there are more or fewer.
    """
    if sample_size.isdecimal() and int(sample_size) != len(queries.queries):
        raise TableError(
            f"{queries.name}: holds {len(queries.queries)} queries, but its folder says sample size {sample_size}; "
            "bring what is missing or correct the folder's name"
        )


def check_last_part(blocks: Sequence[Block], queries: int) -> None:
    """Whether a table's parts, which leave no gap, go up to the last query; for tables whose keys are no queries.

    Raises:
        TableError: they end before or after it.
    """
    for last in [block.part for block in blocks if block.part is not None][-1:]:
        if last.stop != queries:
            raise TableError(
                f"{blocks[-1].name}: is the last part, but there are {queries} queries; bring the parts from "
                f"{last.stop} up to {queries}"
                if last.stop < queries
                else f"{blocks[-1].name}: goes beyond the last of {queries} queries; correct its name"
            )


def check_lists(blocks: Sequence[Block]) -> None:
    """Whether files of dots that have the same query give it the same candidates in the same order.

    Raises:
        TableError: they do not.
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
                f"{known[query][1]} and {block.name} list other candidates of query {query!r}, or in another order, "
                f"which is their rank ({len(wrong)} of {len(known)} common queries); remove the file that does not "
                "count"
            )
        first |= {query: (candidates, block.name) for query, candidates in lists.items()}


def check_sources(dots: Merged) -> None:
    """Whether each query's source is among its candidates.

    Raises:
        TableError: a query lacks it.
    """
    keys = set(dots.keys)
    queries = dict.fromkeys(query for query, _ in dots.keys)
    lacking = [query for query in queries if (query, query) not in keys]
    for query in lacking[:1]:
        raise TableError(
            f"{dots.names[0]}: query {query!r} lacks its source, the original of the same name, among its candidates "
            f"({len(lacking)} of {len(queries)} queries do); compute its dot too, or leave the query out of every file"
        )


def check_samples(dots: Merged, self_dots: Merged, side: Literal["query", "original"]) -> None:
    """Whether each sample of a pair has self dots.

    Args:
        dots: of pairs.
        self_dots: of the samples on one side.
        side: which.

    Raises:
        TableError: a sample has none.
    """
    there = {name for (name,) in self_dots.keys}
    needed = dict.fromkeys(query if side == "query" else original for query, original in dots.keys)
    lacking = [name for name in needed if name not in there]
    for name in lacking[:1]:
        raise TableError(
            f"{_all_names(self_dots.names)}: no self dots of {side} {name!r}, which {_all_names(dots.names)} compares "
            f"({len(lacking)} of {len(needed)} are missing); bring the file or part that has them"
        )


def check_pairs(dots: Merged, similarities: Merged) -> None:
    """Whether there are cosines of exactly the pairs that there are dots of.

    Raises:
        TableError: a pair is only in one of the two.
    """
    compared, measured = set(dots.keys), set(similarities.keys)
    for keys, fault in ((_others(dots.keys, measured), "lacks"), (_others(similarities.keys, compared), "has")):
        for query, original in keys[:1]:
            raise TableError(
                f"{_all_names(similarities.names)} {fault} query {query!r} with original {original!r}, other than "
                f"{_all_names(dots.names)} (such pairs: {len(keys)}); bring files of the same candidates, or remove "
                "the cosines"
            )


def _others(keys: Iterable[Key], known: set[Key]) -> list[Key]:
    return [key for key in keys if key not in known]


def _all_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more files)"
