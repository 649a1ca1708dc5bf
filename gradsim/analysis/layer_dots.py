"""Conversion of the long dot product tables to validated arrays without layers that hold only rounding error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.errors import TableError
from gradsim.representation import Summarized, Summary

# A layer is noise for a setting if at least this share of its self dot rows is marked.
_NOISE_SHARE = 0.5


@dataclass(frozen=True, repr=False)
class LayerDots(Summarized):
    """Dot products of every pair and self dot products of every sample, by layer.

    Pairs are sorted by query (in order of first appearance), then by rank. Layers are in model order (the categories of
    an Enum, otherwise first appearance). Layers that hold only rounding error are left out, except in the similarity of
    whole gradients.

    Attributes:
        pairs: `query_id`, `original_id` and `rank`, one row per pair.
        layers: layer names, (n_layers,).
        noise: names of the layers that are left out.
        lists: the pairs as one candidate list per query.
        original: row of each pair's original in `original_self_dots`, (n_pairs,).
        dots: dot products, (n_pairs, n_layers).
        query_self_dots: squared norms, (n_queries, n_layers), rows in the order of `lists.query_ids`.
        original_self_dots: squared norms, (n_originals, n_layers).
        whole: cosine similarity of each pair's whole gradients, (n_pairs,).
    """

    pairs: pl.DataFrame
    layers: pl.Series
    noise: pl.Series
    lists: CandidateLists
    original: Positions
    dots: Floats
    query_self_dots: Floats
    original_self_dots: Floats
    whole: Floats

    @classmethod
    def from_tables(
        cls, dot_products: pl.DataFrame, query_self: pl.DataFrame, original_self: pl.DataFrame
    ) -> "LayerDots":
        """Read the three long tables, with rows in any order.

        Self dots of originals that no query is compared with are ignored.

        Raises:
            TableError: a column or value is missing, a value is not finite, or a self dot is negative; a row is a
                duplicate; a pair has two ranks; a pair or sample lacks a layer; a sample of a pair has no self dots; a
                query has no pair or lacks its true source; every layer holds only rounding error.
        """
        _check_columns(dot_products, "dot_products", ["query_id", "original_id", "rank", "layer"], "dot")
        _check_columns(query_self, "query_self", ["query_id", "layer"], "self_dot")
        _check_columns(original_self, "original_self", ["original_id", "layer"], "self_dot")

        layers = _model_order(dot_products["layer"])
        pairs, pair = _pairs(dot_products)
        lists = CandidateLists.from_pairs(pairs)
        unpaired = _positions(query_self["query_id"], lists.query_ids) < 0
        for query_id in query_self["query_id"].filter(unpaired)[:1]:
            raise TableError(
                f"query_self has query {query_id!r}, but dot_products has no pair for it: combine the partitions again"
            )
        originals = pairs["original_id"].unique(maintain_order=True)
        original = _positions(pairs["original_id"], originals)
        dots = _matrix(dot_products, "dot_products", "dot", row=pair, keys=pairs, layers=layers)
        query_self_dots = _self_dots(query_self, "query", lists.query_ids, layers)
        original_self_dots = _self_dots(original_self, "original", originals, layers)
        is_noise = layers.cast(pl.String).is_in(noise_layers(query_self, original_self))
        if is_noise.all():
            raise TableError("every layer holds only rounding error: this model's gradients cannot be compared")
        kept = np.flatnonzero(~is_noise.to_numpy())
        return cls(
            pairs=pairs,
            layers=layers.filter(~is_noise),
            noise=layers.filter(is_noise),
            lists=lists,
            original=original,
            dots=np.take(dots, kept, axis=1),
            query_self_dots=np.take(query_self_dots, kept, axis=1),
            original_self_dots=np.take(original_self_dots, kept, axis=1),
            whole=cosine(
                dots.sum(axis=1), query_self_dots.sum(axis=1)[lists.query], original_self_dots.sum(axis=1)[original]
            ),
        )

    def similarity(self, layers: Sequence[str] | None = None) -> Floats:
        """Return the cosine similarity of each pair's gradients over some layers, (n_pairs,).

        The similarity is the sum of the layers' dots, divided by the square root of the product of the summed self
        dots. It is 0 if a gradient is zero in all these layers: such a pair carries no information, and a list of zeros
        is a tie that counts as chance.

        Args:
            layers: layer names; None for the whole gradients.

        Raises:
            TableError: a layer is unknown, holds only rounding error or is named twice, or `layers` is empty.
        """
        if layers is None:
            return self.whole
        chosen = self.positions_of(layers)
        return cosine(
            np.take(self.dots, chosen, axis=1).sum(axis=1),
            np.take(self.query_self_dots, chosen, axis=1).sum(axis=1)[self.lists.query],
            np.take(self.original_self_dots, chosen, axis=1).sum(axis=1)[self.original],
        )

    @property
    def every_layer(self) -> pl.Series:
        """Names of all layers of the model, with those that are left out last."""
        return pl.concat([self.layers, self.noise])

    def layer_similarities(self) -> Floats:
        """Return the cosine similarity of each pair in each layer alone, (n_pairs, n_layers); 0 for 0/0."""
        return cosine(self.dots, self.query_self_dots[self.lists.query], self.original_self_dots[self.original])

    def of_queries(self, queries: Positions) -> "LayerDots":
        """Return the dot products of a subset of the queries.

        Args:
            queries: indices into `lists.query_ids`, ascending.
        """
        pair = self.lists.pairs_of(queries)
        originals, original = np.unique(self.original[pair], return_inverse=True)
        return LayerDots(
            pairs=self.pairs[pair],
            layers=self.layers,
            noise=self.noise,
            lists=self.lists.of_queries(queries),
            original=original,
            dots=self.dots[pair],
            query_self_dots=self.query_self_dots[queries],
            original_self_dots=self.original_self_dots[originals],
            whole=self.whole[pair],
        )

    def positions_of(self, layers: Sequence[str]) -> Positions:
        """Return the indices of these layers in `layers`.

        Raises:
            TableError: a layer is unknown, holds only rounding error or is named twice, or `layers` is empty.
        """
        named = pl.Series(layers, dtype=pl.String)
        columns = _positions(named, self.layers)
        if len(named) == 0:
            raise TableError("no layer is named: name at least one, or pass None for the whole gradient")
        if (columns < 0).any():
            unknown = named[int(np.argmax(columns < 0))]
            if unknown in self.noise.to_list():
                raise TableError(f"layer {unknown!r} holds only rounding error in this setting: leave it out")
            raise TableError(f"layer {unknown!r} is not in dot_products")
        if named.n_unique() < len(named):
            raise TableError(f"layer {named.filter(named.is_duplicated())[0]!r} is named twice")
        return columns

    def _summary(self) -> Summary:
        facts = {
            "pairs": f"{len(self.pairs):,}, of {len(self.lists.query_ids):,} queries",
            "layers": f"{len(self.layers):,}, from {self.layers[0]} to {self.layers[-1]}",
            "left out": ", ".join(self.noise),
            "similarities": f"{self.whole.min():.4f} to {self.whole.max():.4f}",
            "to use": ".pairs, .layers, .dots, .similarity(LAYERS), .layer_similarities()",
        }
        return Summary("Dots of layers", {label: fact for label, fact in facts.items() if fact})


def cosine(dots: Floats, query_self_dots: Floats, original_self_dots: Floats) -> Floats:
    """Return cosine similarities from dots and self dots of the same shape; 0 for 0/0."""
    # Take two roots: the product of self dots could underflow.
    norms = np.sqrt(query_self_dots) * np.sqrt(original_self_dots)
    cosines = np.zeros_like(dots)
    np.divide(dots, norms, out=cosines, where=norms > 0)
    return cosines


def _check_columns(frame: pl.DataFrame, table: str, keys: list[str], value: str) -> None:
    for column in [*keys, value]:
        if column not in frame.columns:
            raise TableError(f"{table} has no column {column!r}; it has {', '.join(frame.columns)}")
    if frame.is_empty():
        raise TableError(f"{table} has no rows: compute at least one partition")
    bad = pl.any_horizontal(pl.col(keys).is_null()) | ~pl.col(value).is_finite().fill_null(False)
    if value == "self_dot":
        bad |= pl.col(value) < 0
    for row in frame.lazy().filter(bad).head(1).collect().iter_rows(named=True):
        where = ", ".join(f"{key} {row[key]!r}" for key in keys)
        raise TableError(f"{table} has {value} {row[value]} at {where}: compute that partition again")


def _model_order(layers: pl.Series) -> pl.Series:
    present = layers.unique(maintain_order=True)
    return present.sort() if isinstance(layers.dtype, pl.Enum) else present


def _positions(values: pl.Series, order: pl.Series) -> Positions:
    """Return the index of each value in `order`, or -1 if it is not there."""
    encoding = values.dtype
    if not isinstance(encoding, pl.Enum):
        names = values.cast(pl.String)
        encoding = pl.Enum(names.unique(maintain_order=True))
        values = names.cast(encoding)
    place = {name: position for position, name in enumerate(order)}
    lookup = np.array([place.get(name, -1) for name in encoding.categories], dtype=np.int64)
    positions: Positions = lookup[values.to_physical().to_numpy()]
    return positions


def _pairs(dot_products: pl.DataFrame) -> tuple[pl.DataFrame, Positions]:
    """Return the pairs in list order, and the index of each row's pair."""
    queries = dot_products["query_id"].unique(maintain_order=True)
    originals = dot_products["original_id"].unique(maintain_order=True)
    query = _positions(dot_products["query_id"], queries)
    key = query * len(originals) + _positions(dot_products["original_id"], originals)
    rank = dot_products["rank"].to_numpy()

    # Stored tables keep a pair's layers together, so only the first key of each run needs sorting.
    run_starts = np.flatnonzero(np.diff(key, prepend=-1))
    _, first_run, pair_of_run = np.unique(key[run_starts], return_index=True, return_inverse=True)
    first_row = run_starts[first_run]
    order = np.lexsort((rank[first_row], query[first_row]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    pair = np.repeat(place[pair_of_run], np.diff(run_starts, append=len(key)))

    pairs = dot_products.select("query_id", "original_id", "rank")[first_row[order]]
    moved = np.flatnonzero(rank != pairs["rank"].to_numpy()[pair])
    if len(moved):
        row = dot_products.row(int(moved[0]), named=True)
        raise TableError(
            f"dot_products gives query {row['query_id']!r} and original {row['original_id']!r} "
            "two ranks: combine the partitions again"
        )
    return pairs, pair


def _self_dots(frame: pl.DataFrame, side: str, ids: pl.Series, layers: pl.Series) -> Floats:
    """Return the self dots of `ids`, (n_ids, n_layers)."""
    table, column = f"{side}_self", f"{side}_id"
    absent = _positions(ids, frame[column].unique(maintain_order=True)) < 0
    for unknown in ids.filter(absent)[:1]:
        raise TableError(f"{table} has no row for {side} {unknown!r}, which dot_products compares: combine both again")
    row = _positions(frame[column], ids)
    return _matrix(frame.filter(row >= 0), table, "self_dot", row=row[row >= 0], keys=ids.to_frame(), layers=layers)


def _matrix(
    frame: pl.DataFrame, table: str, value: str, *, row: Positions, keys: pl.DataFrame, layers: pl.Series
) -> Floats:
    """Pivot a long table to one row per key and one column per layer.

    Raises:
        TableError: a layer is unknown, or a cell is missing or a duplicate.
    """
    column = _positions(frame["layer"], layers)
    for unknown in frame["layer"].filter(column < 0)[:1]:
        raise TableError(f"{table} has layer {unknown!r}, which dot_products lacks: combine both again")
    matrix = np.full((len(keys), len(layers)), np.nan)
    matrix[row, column] = frame[value].to_numpy()

    missing = np.argwhere(np.isnan(matrix))
    for key, layer in missing[:1]:
        raise TableError(
            f"{table} lacks layer {layers[int(layer)]!r} of {_describe(keys, int(key))}: combine the partitions again"
        )
    if len(frame) > matrix.size:
        _, first = np.unique(row * len(layers) + column, return_index=True)
        again = int(np.setdiff1d(np.arange(len(frame)), first)[0])
        raise TableError(
            f"{table} has layer {frame['layer'][again]!r} of {_describe(keys, int(row[again]))} "
            "twice: combine the partitions again"
        )
    return matrix


def _describe(keys: pl.DataFrame, row: int) -> str:
    named = {name: value for name, value in keys.row(row, named=True).items() if name != "rank"}
    return " and ".join(f"{name.removesuffix('_id')} {value!r}" for name, value in named.items())


def noise_layers(query_self: pl.DataFrame, original_self: pl.DataFrame) -> list[str]:
    """Return the layers with gradients that are only rounding error in a setting, in table order.

    Args:
        query_self: self dots of the queries. `noise` marks rows. Null marks no row, and neither does a missing column
            (as for projected gradients).
        original_self: self dots of the originals, in the same format.
    """
    marks = [frame for frame in (query_self, original_self) if "noise" in frame.columns]
    if not marks:
        return []
    counts = pl.concat(
        frame.group_by("layer", maintain_order=True)
        .agg(marked=pl.col("noise").sum(), rows=pl.len())
        .with_columns(pl.col("layer").cast(pl.String))
        for frame in marks
    )
    totals = counts.group_by("layer", maintain_order=True).sum()
    return totals.filter(pl.col("marked") >= _NOISE_SHARE * pl.col("rows"))["layer"].to_list()
