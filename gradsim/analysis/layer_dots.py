"""The one place where long tables of dots become arrays, and are checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.noise import noise_layers
from gradsim.errors import TableError

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class LayerDots:
    """Dots of every pair and self dots of every sample, layer by layer.

    Pairs are ordered by query (first appearance), then rank; layers as the model orders them (the
    categories of an Enum, else first appearance). Layers that hold only rounding are left out, but
    for the similarity of whole gradients.

    Attributes:
        pairs: `query_id`, `original_id`, `rank`, one row a pair.
        layers: layer names, (n_layers,).
        noise: names of the layers that are left out.
        lists: the pairs as one candidate list a query.
        original: row of `original_self_dots` of each pair, (n_pairs,).
        dots: (n_pairs, n_layers).
        query_self_dots: (n_queries, n_layers), rows in the order of `lists.query_ids`.
        original_self_dots: (n_originals, n_layers).
        whole: cosine of each pair's whole gradients, (n_pairs,).
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
        """Read the three long tables, rows in any order.

        Self dots of originals that no query is compared with are left out.

        Raises:
            TableError: a column or a value is missing, not finite, or negative where it is a square;
                a row stands twice; a pair or sample lacks a layer; a sample of a pair has no self
                dots; a query has no pair; every layer holds only rounding.
        """
        _check_columns(dot_products, "dot_products", ["query_id", "original_id", "rank", "layer"], "dot")
        _check_columns(query_self, "query_self", ["query_id", "layer"], "self_dot")
        _check_columns(original_self, "original_self", ["original_id", "layer"], "self_dot")

        layers = _model_order(dot_products["layer"])
        pairs, pair = _pairs(dot_products)
        lists = CandidateLists.from_pairs(pairs)
        unpaired = _positions(query_self["query_id"], lists.query_ids) < 0
        for query_id in query_self["query_id"].filter(unpaired)[:1]:
            raise TableError(f"query_self has query {query_id!r}, of which dot_products has no pair")
        originals = pairs["original_id"].unique(maintain_order=True)
        original = _positions(pairs["original_id"], originals)
        dots = _matrix(dot_products, "dot_products", "dot", row=pair, keys=pairs, layers=layers)
        query_self_dots = _self_dots(query_self, "query", lists.query_ids, layers)
        original_self_dots = _self_dots(original_self, "original", originals, layers)
        is_noise = layers.cast(pl.String).is_in(noise_layers(query_self, original_self))
        if is_noise.all():
            raise TableError("every layer holds only rounding: nothing can be said of this model's gradients")
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
                dots.sum(axis=1),
                query_self_dots.sum(axis=1)[lists.query],
                original_self_dots.sum(axis=1)[original],
            ),
        )

    def similarity(self, layers: Sequence[str] | None = None) -> Floats:
        """Return the cosine of each pair's gradients over some layers (None: the whole gradients), (n_pairs,).

        The sum of the layers' dots over the root of the product of their summed self dots. Where a
        gradient is zero in all these layers the similarity is 0: it says nothing about the pair,
        and a list of zeros is a tie that counts as chance.

        Raises:
            TableError: a layer is not in the tables, holds only rounding, is named twice, or none is named.
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
        """Names of all of the model's layers, those that are left out last."""
        return pl.concat([self.layers, self.noise])

    def layer_similarities(self) -> Floats:
        """Cosine of each pair's gradients in each layer alone, (n_pairs, n_layers); 0 for 0/0."""
        return cosine(
            self.dots,
            self.query_self_dots[self.lists.query],
            self.original_self_dots[self.original],
        )

    def of_queries(self, queries: Positions) -> "LayerDots":
        """Return the dots of some queries alone.

        Args:
            queries: positions in `lists.query_ids`, ascending.
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
        """Return where these layers stand in `layers`.

        Raises:
            TableError: a layer is not in the tables, holds only rounding, is named twice, or none is named.
        """
        named = pl.Series(layers, dtype=pl.String)
        columns = _positions(named, self.layers)
        if len(named) == 0:
            raise TableError("no layer is named: name at least one, or none to take all")
        if (columns < 0).any():
            unknown = named[int(np.argmax(columns < 0))]
            if unknown in self.noise.cast(pl.String):
                raise TableError(f"layer {unknown!r} holds only rounding here: leave it out")
            raise TableError(f"layer {unknown!r} is not in dot_products")
        if named.n_unique() < len(named):
            raise TableError(f"layer {named.filter(named.is_duplicated())[0]!r} is named twice")
        return columns


def cosine(dots: Floats, query_self_dots: Floats, original_self_dots: Floats) -> Floats:
    """Cosines of gradients from their dots and self dots, all of one shape; 0 for 0/0."""
    # Two roots instead of one of the product, which could underflow.
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
    """Where each value stands in `order`; -1 where it does not."""
    encoding = values.dtype
    if not isinstance(encoding, pl.Enum):
        names = values.cast(pl.String)
        encoding = pl.Enum(names.unique(maintain_order=True))
        values = names.cast(encoding)
    place = {name: position for position, name in enumerate(order.cast(pl.String))}
    lookup = np.array([place.get(name, -1) for name in encoding.categories], dtype=np.int64)
    positions: Positions = lookup[values.to_physical().to_numpy()]
    return positions


def _pairs(dot_products: pl.DataFrame) -> tuple[pl.DataFrame, Positions]:
    """The pairs in order, and the pair of each row."""
    queries = dot_products["query_id"].unique(maintain_order=True)
    originals = dot_products["original_id"].unique(maintain_order=True)
    query = _positions(dot_products["query_id"], queries)
    key = query * len(originals) + _positions(dot_products["original_id"], originals)
    rank = dot_products["rank"].to_numpy()

    # Stored tables keep a pair's layers together, so that few keys are left to sort.
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
    """Self dots of `ids`, (n_ids, n_layers)."""
    table, column = f"{side}_self", f"{side}_id"
    absent = _positions(ids, frame[column].unique(maintain_order=True)) < 0
    for unknown in ids.filter(absent)[:1]:
        raise TableError(f"{table} has no row of {side} {unknown!r}, which dot_products compares")
    row = _positions(frame[column], ids)
    return _matrix(
        frame.filter(row >= 0),
        table,
        "self_dot",
        row=row[row >= 0],
        keys=ids.to_frame(),
        layers=layers,
    )


def _matrix(
    frame: pl.DataFrame,
    table: str,
    value: str,
    *,
    row: Positions,
    keys: pl.DataFrame,
    layers: pl.Series,
) -> Floats:
    """A long table as one row a key and one column a layer, every cell filled exactly once."""
    column = _positions(frame["layer"], layers)
    for unknown in frame["layer"].filter(column < 0)[:1]:
        raise TableError(f"{table} has layer {unknown!r}, which dot_products lacks")
    matrix = np.full((len(keys), len(layers)), np.nan)
    matrix[row, column] = frame[value].to_numpy()

    missing = np.argwhere(np.isnan(matrix))
    for key, layer in missing[:1]:
        raise TableError(f"{table} lacks layer {layers[int(layer)]!r} of {_describe(keys, int(key))}")
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
