"""Everything that is stored about the candidates of one query."""

import difflib
from collections.abc import Callable, Iterator

import polars as pl

from gradsim.analysis import layer_contributions
from gradsim.analysis.questions import DOTS
from gradsim.errors import StudyError
from gradsim.notebook.texts import readable, text_of
from gradsim.tables import Store

Scan = Callable[[str], pl.LazyFrame]


def candidates_of(query_id: str, store: Store, setting: str, scan: Scan) -> pl.DataFrame:
    """Return a row for each candidate of a query, see `OpenedSetting.candidates`.

    Args:
        query_id: Id of the query.
        store: Tables of the study.
        setting: Name of the setting.
        scan: Returns a table of the setting.

    Raises:
        StudyError: The study has no such sample, or the query was excluded.
        TableError: A table has not been computed.
    """
    _require_known(query_id, store, setting)
    *dots_of_query, of_originals = DOTS
    similarity, candidates, dots, query_self = (
        scan(table).filter(pl.col("query_id") == query_id).collect()
        for table in ("gradient_similarity", "candidates", *dots_of_query)
    )
    if similarity.is_empty():
        raise StudyError(
            f"setting '{setting}' has no candidates of query {query_id!r}, which was excluded; the report says why"
        )
    original_self = scan(of_originals).join(similarity.lazy(), on="original_id", how="semi").collect()
    # Partitions that are not combined repeat originals.
    original_self = original_self.unique(["original_id", "layer"], keep="first", maintain_order=True)
    contributions = layer_contributions(dots, query_self, original_self)
    columns = [
        candidates.select("original_id", "score", "forced"),
        *_projected(query_id, store, setting, scan),
        _texts(query_id, similarity["original_id"], store, scan),
        contributions.group_by("original_id").agg(contributions=pl.struct("layer", "contribution")),
    ]
    frame = similarity
    for each in columns:
        frame = frame.join(each, on="original_id", how="left")
    is_source = (pl.col("original_id") == query_id).alias("is_source")
    first = ("query_id", "original_id", is_source, "rank", "score", "forced", "similarity")
    return frame.sort("rank").select(*first, pl.exclude(*(name for name in first if isinstance(name, str))))


def _require_known(query_id: str, store: Store, setting: str) -> None:
    known = store.ids.categories.to_list()
    if query_id not in known:
        close = difflib.get_close_matches(query_id, known) or known[:3]
        raise StudyError(
            f"setting '{setting}' has no query {query_id!r} among {len(known):,}; "
            f"there are, for example, {', '.join(map(repr, close))}"
        )


def _projected(query_id: str, store: Store, setting: str, scan: Scan) -> Iterator[pl.DataFrame]:
    """Yield `original_id` and the similarity of each projection, named `PROJECTION-DIMENSION`."""
    if not store.study.projections and not store.study.imported:
        return
    rows = scan("projected_similarity").filter(pl.col("query_id") == query_id).collect()
    for (projection, dimension), of_one in rows.group_by("projection", "dimension", maintain_order=True):
        yield of_one.select("original_id", pl.col("similarity").alias(f"{projection}-{dimension}"))


def _texts(query_id: str, originals: pl.Series, store: Store, scan: Scan) -> pl.DataFrame:
    """Return `original_id`, and the texts `query` and `original`, which are null in an imported study."""
    if store.study.imported:
        return originals.to_frame().with_columns(query=pl.lit(None, pl.String), original=pl.lit(None, pl.String))
    query = scan("queries").filter(pl.col("id") == query_id).collect()
    samples = store.read(store.lineage.key("samples")).filter(pl.col("id").is_in(originals.implode()))
    (query_text,) = _as_text(store, query)
    return samples.select(
        pl.col("id").alias("original_id"),
        pl.lit(query_text).alias("query"),
        pl.Series("original", _as_text(store, samples)),
    )


def _as_text(store: Store, samples: pl.DataFrame) -> list[str]:
    return [text_of(messages) for messages in readable(store, samples)["messages"].to_list()]
