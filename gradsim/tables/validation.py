"""Checks of stored partitions: complete rows, known ids, finite and possible values.

A partition may be larger than memory, so the checks stream its rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from gradsim.tables.files import blocks_of, reading, scan_table
from gradsim.tables.index import scan_ids
from gradsim.tables.keys import TableKey
from gradsim.tables.lineage import DOT_TABLES, GRADIENT_TABLES, INDEX, PROJECTED_DOT_TABLES
from gradsim.tables.provenance import ORIGINAL_LOSS
from gradsim.tables.store import Store

# Tolerance for cosines that rounding moves outside [-1, 1].
COSINE_SLACK = 1e-6

# Columns that identify a row.
KEY_COLUMNS = frozenset({"id", "query_id", "original_id", "layer", "projection", "dimension"})

Rows = pl.LazyFrame
Check = Callable[[Store, TableKey, str, Rows], str | None]


def validate(store: Store, key: TableKey, partition: str) -> dict[str, str | None]:
    """Run the table's `CHECKS` on a partition.

    Returns:
        Problem by name of check; None: the check passed.

    Raises:
        TableError: a file is missing or unreadable.
    """
    path = store.paths(key, [partition])[0]
    with reading(path):
        rows = scan_ids(path) if key.name == INDEX else scan_table(path)
        return {name: CHECK[name](store, key, partition, rows) for name in CHECKS[key.name]}


def _rows_complete(store: Store, key: TableKey, partition: str, rows: Rows) -> str | None:
    """Check that every expected row exists exactly once, and that the rows of each sample are contiguous."""
    expected, found = _EXPECTED_ROWS[key.name](store, key, partition), _value(rows, pl.len())
    if found != expected:
        return f"{found} rows, expected {expected}"
    facts = [column for column in rows.collect_schema() if column in KEY_COLUMNS]
    # The rows of a sample are contiguous, so duplicates can be found in a few samples at a time.
    samples = [fact for fact in facts if fact != "layer" and not (fact == "original_id" and "query_id" in facts)]
    heads, distinct = [], 0
    for run in whole_runs(blocks_of(rows.select(facts)), samples):
        heads.append(run.select(samples).unique())
        distinct += _number_of_distinct(run)
    if distinct < found:
        return f"{found - distinct} duplicate rows"
    apart = sum(head.height for head in heads) - pl.concat(heads).n_unique() if heads else 0
    return f"rows of {apart} samples are not contiguous" if apart else None


def whole_runs(blocks: Iterable[pl.DataFrame], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Regroup blocks so that consecutive rows with equal values in `columns` are never split between two frames."""
    begun: pl.DataFrame | None = None
    for block in blocks:
        rows = block if begun is None else pl.concat([begun, block])
        if rows.is_empty():
            continue
        runs = rows.select(pl.struct(columns).rle_id()).to_series()
        last = int(runs.search_sorted(runs[-1]))
        if last:
            yield rows[:last]
        begun = rows[last:]
    if begun is not None:
        yield begun


def _number_of_distinct(rows: pl.DataFrame) -> int:
    """Return the number of distinct rows; identifiers are packed into one integer, which is several times faster."""
    number, others = pl.lit(0, pl.UInt64), []
    for name, dtype in rows.schema.items():
        if isinstance(dtype, pl.Enum):
            number = number * len(dtype.categories) + pl.col(name).to_physical()
        else:
            others.append(name)
    return int(rows.select((pl.struct(number, *others) if others else number).n_unique()).item())


def _value(rows: Rows, expression: pl.Expr) -> Any:
    """Evaluate an aggregation of all rows with the streaming engine."""
    return rows.select(expression).collect(engine="streaming").item()


def _ids_known(store: Store, key: TableKey, partition: str, rows: Rows) -> str | None:
    """Check that all queries belong to the partition and all originals have tokens."""
    columns = rows.collect_schema().names()
    for column in ("id", "query_id"):
        if column in columns and (unknown := _others(rows, column, store.ids_of(partition))):
            return f"{column} {unknown!r} is not in the partition"
    if "original_id" in columns:
        corpus = store.read(store.lineage.key("tokenized"))["id"]
        if unknown := _others(rows, "original_id", corpus):
            return f"original_id {unknown!r} is not one of the originals"
    return None


def _others(rows: Rows, column: str, known: Sequence[str] | pl.Series) -> str | None:
    ids = rows.select(pl.col(column).unique()).collect(engine="streaming").to_series()
    return min(set(ids) - set(known), default=None)


def _values_finite(store: Store, key: TableKey, partition: str, rows: Rows) -> str | None:
    """Check that no number is null, NaN or infinite."""
    for column, dtype in rows.collect_schema().items():
        if dtype == pl.Float64 and (count := _value(rows, (~pl.col(column).is_finite().fill_null(False)).sum())):
            return f"{count} values of {column} are missing or not finite"
    return None


def _cosines_possible(store: Store, key: TableKey, partition: str, rows: Rows) -> str | None:
    """Check that every similarity lies within [-1, 1]."""
    beyond = _value(rows, (pl.col("similarity").abs() > 1 + COSINE_SLACK).sum())
    return f"{beyond} similarities are outside [-1, 1]" if beyond else None


def _self_dots_positive(store: Store, key: TableKey, partition: str, rows: Rows) -> str | None:
    """Check that no self dot is negative and no gradient is zero in every layer."""
    if negative := _value(rows, (pl.col("self_dot") < 0).sum()):
        return f"{negative} self dots are negative"
    sums = rows.group_by(pl.exclude("layer", "self_dot", "loss", "noise")).agg(pl.col("self_dot").sum())
    zero = _value(sums, (pl.col("self_dot") == 0).sum())
    return f"{zero} gradients are zero in every layer" if zero else None


def _source_among_candidates(store: Store, key: TableKey, partition: str, rows: Rows) -> str | None:
    """Check that the candidates of each query include its source."""
    query = pl.col("query_id")
    missing = _value(rows, query.n_unique()) - _value(rows, query.filter(query == pl.col("original_id")).n_unique())
    return f"{missing} queries lack their source among the candidates" if missing else None


CHECK: Mapping[str, Check] = {
    "rows_complete": _rows_complete,
    "ids_known": _ids_known,
    "values_finite": _values_finite,
    "cosines_possible": _cosines_possible,
    "self_dots_positive": _self_dots_positive,
    "source_among_candidates": _source_among_candidates,
}

CHECKS: Mapping[str, tuple[str, ...]] = {
    INDEX: ("rows_complete", "ids_known"),
    "queries": ("rows_complete", "ids_known"),
    "tokenized": ("rows_complete", "ids_known"),
    "candidates": ("rows_complete", "ids_known", "values_finite", "source_among_candidates"),
    "dot_products": ("rows_complete", "ids_known", "values_finite"),
    "query_self": ("rows_complete", "ids_known", "values_finite", "self_dots_positive"),
    "original_self": ("rows_complete", "ids_known", "values_finite", "self_dots_positive"),
    "gradient_similarity": ("rows_complete", "ids_known", "values_finite", "cosines_possible"),
    "projected_similarity": ("rows_complete", "ids_known", "values_finite", "cosines_possible"),
    "projected_dots": ("rows_complete", "ids_known", "values_finite"),
    "projected_query_self": ("rows_complete", "ids_known", "values_finite", "self_dots_positive"),
    "projected_original_self": ("rows_complete", "ids_known", "values_finite", "self_dots_positive"),
}


def _kept_pairs(store: Store, key: TableKey, partition: str) -> pl.DataFrame:
    """Return the candidate pairs without those of samples that the gradient job excluded."""
    excluded = store.provenance(key, partition).excluded
    bad_originals = [sample for sample, reason in excluded.items() if reason == ORIGINAL_LOSS]
    candidates = store.read(store.lineage.key("candidates", key.setting), [partition])
    return candidates.filter(~pl.col("query_id").is_in(list(excluded)), ~pl.col("original_id").is_in(bad_originals))


def _n_sources(store: Store, key: TableKey, partition: str) -> int:
    """Return the number of a partition's source samples: originals, or queries of another setting."""
    source = store.study.settings[str(key.setting)].source
    if source is None:
        return len(store.ids_of(partition))
    return store.rows(store.lineage.key("queries", source), partition)


def _n_gradient_rows(store: Store, key: TableKey, partition: str) -> int:
    """Return the number of kept pairs, or of their queries or originals, times the rows of each in the table."""
    study, pairs, layers = store.study, _kept_pairs(store, key, partition), len(store.layers.categories)
    rows = {
        "gradient_similarity": 1,
        "projected_similarity": len(study.projections),
        **dict.fromkeys(DOT_TABLES, layers),
        **dict.fromkeys(PROJECTED_DOT_TABLES, len(study.projected) * layers),
    }
    side = {"query_self": "query_id", "original_self": "original_id"}.get(key.name.removeprefix("projected_"))
    return rows[key.name] * (pairs[side].n_unique() if side else pairs.height)


def _n_candidates(store: Store, key: TableKey, partition: str) -> int:
    queries = store.read(store.lineage.key("tokenized", key.setting), [partition]).height
    corpus = store.read(store.lineage.key("tokenized")).height
    return queries * (corpus if store.study.top_k == "all" else min(store.study.top_k, corpus))


_EXPECTED_ROWS: Mapping[str, Callable[[Store, TableKey, str], int]] = {
    INDEX: lambda store, key, partition: (
        len(set(store.read(store.lineage.key("tokenized"))["id"]) & set(store.ids_of(partition)))
        - len(store.provenance(key, partition).excluded)
    ),
    "queries": lambda store, key, partition: (
        _n_sources(store, key, partition) - len(store.provenance(key, partition).excluded)
    ),
    "tokenized": lambda store, key, partition: (
        store.read(store.lineage.key("queries", key.setting), [partition]).height
        - len(store.provenance(key, partition).excluded)
    ),
    "candidates": _n_candidates,
    **dict.fromkeys(GRADIENT_TABLES, _n_gradient_rows),
}
