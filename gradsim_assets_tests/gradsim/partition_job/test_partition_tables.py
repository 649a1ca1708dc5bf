"""Rows that are handed out as tiles come: the same as from all numbers at once, without holding all of them."""

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gradsim.analysis import gradient_similarity
from gradsim.errors import TableError
from gradsim.gradients import ProjectedDots, Tile
from gradsim.partition_job.gathering import Gathered, Method
from gradsim.partition_job.inputs import JobInputs, PartitionSlice, TokenSequence
from gradsim.partition_job.partition_tables import PartitionTables
from gradsim.partition_job.study_projections import SizedProjection
from gradsim.study import Projection
from gradsim.tables.provenance import ORIGINAL_LOSS, QUERY_LOSS

pytestmark = pytest.mark.slow

PROJECTION = Projection(share=0.01)
AS_PUBLISHED = Projection(share=0.01, scaling="as_published")
STREAMED = {"dot_products", "projected_dots"}


@dataclass(frozen=True)
class Numbers:
    """All of a job, of one method: (pairs | queries | originals, layers), and losses (queries | originals,)."""

    dots: np.ndarray
    queries: np.ndarray
    originals: np.ndarray
    query_losses: np.ndarray
    original_losses: np.ndarray


@dataclass(frozen=True)
class Case:
    inputs: JobInputs
    layers: list[str]
    exact: Numbers
    projected: Numbers
    noise: list[str]

    def tiles(self, block: int, pairs_of_a_tile: int, seed: int) -> Iterator[Tile]:
        """Blocks of queries; within one, pairs in any order, and samples when they are first met."""
        chance, pairs = np.random.default_rng(seed), self.inputs.pairs
        met_queries, met_originals = set[int](), set[int]()
        for start in range(0, len(self.inputs.queries), block):
            stop = min(start + block, len(self.inputs.queries))
            order = chance.permutation(np.flatnonzero((pairs[:, 0] >= start) & (pairs[:, 0] < stop)))
            tiles = [np.sort(order[at : at + pairs_of_a_tile]) for at in range(0, len(order), pairs_of_a_tile)]
            for number, tile in enumerate(tiles, 1):
                queries, originals = (np.unique(pairs[tile, side]) for side in (0, 1))
                new_queries = np.array([each for each in queries if each not in met_queries], dtype=np.int64)
                new_originals = np.array([each for each in originals if each not in met_originals], dtype=np.int64)
                met_queries |= set(new_queries.tolist())
                met_originals |= set(new_originals.tolist())
                exact, projected = (
                    (each.dots[tile], each.queries[new_queries], each.originals[new_originals])
                    for each in (self.exact, self.projected)
                )
                yield Tile(
                    pairs=tile,
                    dots=exact[0],
                    queries=new_queries,
                    query_self_dots=exact[1],
                    query_losses=self.exact.query_losses[new_queries],
                    originals=new_originals,
                    original_self_dots=exact[2],
                    original_losses=self.exact.original_losses[new_originals],
                    queries_done=stop if number == len(tiles) else start,
                    projected={PROJECTION.name: ProjectedDots(*projected)},
                )

    @property
    def weights(self) -> np.ndarray:
        """How many dimensions each layer has."""
        return np.arange(1.0, len(self.layers) + 1)

    def gathered(self, tiles: Iterator[Tile], *, with_layers: bool = True) -> Gathered:
        methods = [Method(), Method(PROJECTION.name), Method(PROJECTION.name, self.weights)]
        layers = len(self.layers)
        return Gathered(
            tiles, self.inputs, [PROJECTION.name], methods, layers, with_dots=with_layers, with_projected=with_layers
        )

    def rows(self, gathered: Gathered, partition: PartitionSlice) -> PartitionTables:
        dimensions = dict(zip(self.layers, self.weights.astype(int).tolist(), strict=True))
        projections = [SizedProjection(each, dimensions) for each in (PROJECTION, AS_PUBLISHED)]
        return PartitionTables(self.inputs, gathered, partition, self.layers, [PROJECTION.name], projections)


def make_case(lists: Sequence[Sequence[int]], sizes: Sequence[int], n_originals: int, n_layers: int) -> Case:
    """Query i is original i rewritten, and compared with the originals of its list; partitions have these sizes."""
    ids, chance = [f"s{position}" for position in range(n_originals)], np.random.default_rng(0)
    pairs = np.array([(query, each) for query, originals in enumerate(lists) for each in originals], dtype=np.int64)
    enum = pl.Enum(ids)
    candidates = pl.DataFrame(
        {
            "query_id": pl.Series([ids[query] for query in pairs[:, 0]], dtype=enum),
            "original_id": pl.Series([ids[each] for each in pairs[:, 1]], dtype=enum),
            "rank": pl.Series([rank for originals in lists for rank in range(len(originals))], dtype=pl.Int32),
        }
    )
    starts = np.searchsorted(pairs[:, 0], np.arange(len(lists) + 1))
    borders = np.cumsum([0, *sizes]).tolist()
    partitions = [
        PartitionSlice("dropped", f"{start}-{stop}", slice(start, stop), slice(int(starts[start]), int(starts[stop])))
        for start, stop in pairwise(borders)
    ]
    samples = [TokenSequence(each, [1], [1]) for each in ids]

    def numbers() -> Numbers:
        # As of the engine's tiles: a method's layers lie between those of others.
        dots = chance.normal(size=(len(pairs), 2, n_layers))[:, 1]
        selves = [chance.random((size, n_layers)) for size in (len(lists), n_originals)]
        return Numbers(dots, *selves, *(chance.random(size) for size in (len(lists), n_originals)))

    inputs = JobInputs(samples[: len(lists)], samples, candidates, pairs, partitions)
    layers = [f"layer.{n_layers - at}" for at in range(n_layers)]
    return Case(inputs, layers, numbers(), numbers(), noise=layers[1::3])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_originals = draw(st.integers(2, 6))
    n_queries = draw(st.integers(1, n_originals))
    lists = [
        draw(st.permutations(range(n_originals)).map(lambda order: list(order[:3])))
        for _ in range(n_queries)
    ]  # fmt: skip
    for query, originals in enumerate(lists):
        if query not in originals:
            originals[-1] = query
    size = draw(st.integers(1, n_queries))
    # The first partition's queries were all excluded before.
    sizes = [0, *[size] * (n_queries // size), n_queries % size]
    case = make_case(lists, sizes, n_originals, draw(st.integers(1, 20)))
    pairs = case.inputs.pairs
    for query in draw(st.sets(st.integers(0, n_queries - 1), max_size=2)):
        for each in (case.exact, case.projected):
            each.queries[query] = each.dots[pairs[:, 0] == query] = np.nan
    for original in draw(st.sets(st.integers(0, n_originals - 1), max_size=2)):
        for each in (case.exact, case.projected):
            each.originals[original] = each.dots[pairs[:, 1] == original] = np.nan
    return case


def expected(case: Case, partition: PartitionSlice) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """All tables of a partition, from all its numbers at once."""
    ids = [sample.id for sample in case.inputs.originals]
    slots = np.arange(partition.pairs.start, partition.pairs.stop)
    queries, originals = case.inputs.pairs[slots].T
    bad_queries = {each for each in range(*partition.queries.indices(99)) if np.isnan(case.exact.queries[each]).any()}
    bad_originals = {each for each in set(originals.tolist()) if np.isnan(case.exact.originals[each]).any()}
    excluded = dict.fromkeys((ids[each] for each in bad_queries), QUERY_LOSS)
    excluded |= dict.fromkeys((ids[each] for each in bad_originals), ORIGINAL_LOSS)
    kept = np.array(
        [
            ids[query] not in excluded and original not in bad_originals
            for query, original in zip(queries, originals, strict=True)
        ],
        dtype=bool,
    )
    if not kept.any():
        return {}, excluded
    rows = case.inputs.candidates[partition.pairs].filter(kept)
    layers = pl.DataFrame({"layer": case.layers}, {"layer": pl.Enum(case.layers)})

    def long(keys: pl.DataFrame, name: str, values: np.ndarray) -> pl.DataFrame:
        return keys.join(layers, how="cross", maintain_order="left_right").with_columns(pl.Series(name, values.ravel()))

    def tables(numbers: Numbers) -> dict[str, pl.DataFrame]:
        frames = {"dot_products": long(rows, "dot", numbers.dots[slots[kept]])}
        for side, positions, values in (
            ("query", np.unique(queries[kept]), numbers.queries),
            ("original", np.unique(originals[kept]), numbers.originals),
        ):
            keys = pl.DataFrame({f"{side}_id": [ids[each] for each in positions]}, {f"{side}_id": pl.Enum(ids)})
            frames[f"{side}_self"] = long(keys, "self_dot", values[positions])
        return frames

    exact, projected = tables(case.exact), tables(case.projected)
    is_noise = np.isin(case.layers, case.noise)
    for side, positions, losses in (
        ("query", np.unique(queries[kept]), case.exact.query_losses),
        ("original", np.unique(originals[kept]), case.exact.original_losses),
    ):
        exact[f"{side}_self"] = exact[f"{side}_self"].with_columns(
            loss=pl.Series(np.repeat(losses[positions], len(case.layers))),
            noise=pl.Series(np.tile(is_noise, len(positions))),
        )
    weighted = replace(
        case.projected,
        **{name: getattr(case.projected, name) * case.weights for name in ("dots", "queries", "originals")},
    )
    total = pl.lit(int(case.weights.sum()), pl.Int64)
    similarities = [
        gradient_similarity(**found).with_columns(projection=pl.lit(name), dimension=total)
        for name, found in (("sjlt", projected), ("sjlt_as_published", tables(weighted)))
    ]
    by_projection = {
        name: frame.with_columns(projection=pl.lit(PROJECTION.name))
        for name, frame in (
            ("projected_dots", projected["dot_products"]),
            ("projected_query_self", projected["query_self"]),
            ("projected_original_self", projected["original_self"]),
        )
    }
    found = {**exact, **by_projection, "gradient_similarity": gradient_similarity(**exact)}
    return found | {"projected_similarity": pl.concat(similarities)}, excluded


@given(cases(), st.integers(1, 4), st.integers(1, 7), st.integers(0, 99), st.sampled_from([1, 40, 1 << 20]))
def test_rows_are_those_of_all_numbers_at_once(case: Case, block: int, size: int, seed: int, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradsim.partition_job.gathering._AT_ONCE", at_once)
        gathered = case.gathered(case.tiles(block, size, seed))
        for partition in case.inputs.partitions:
            tables, excluded = expected(case, partition)
            rows = case.rows(gathered, partition)
            streamed = list(rows.streamed())
            others = rows.others(case.noise)
            assert rows.excluded == excluded
            assert set(others) == set(tables) - STREAMED
            for table, frame in others.items():
                assert_frame_equal(frame, tables[table], rel_tol=1e-12, abs_tol=1e-12)
            for table in STREAMED:
                frames = [each[table] for each in streamed]
                assert sum(frame.height for frame in frames) == (tables[table].height if tables else 0)
                if tables:
                    assert pl.concat(frames).equals(tables[table])


@given(cases(), st.integers(1, 4), st.integers(0, 99))
def test_similarities_alone(case: Case, block: int, seed: int) -> None:
    gathered = case.gathered(case.tiles(block, 2, seed), with_layers=False)
    for partition in case.inputs.partitions:
        tables, _ = expected(case, partition)
        rows = case.rows(gathered, partition)
        assert all(frames == {} for frames in rows.streamed())
        others = rows.others(case.noise)
        for table, frame in others.items():
            assert_frame_equal(frame, tables[table], rel_tol=1e-12, abs_tol=1e-12)
        assert set(others) == set(tables) - STREAMED


def test_a_study_without_projections() -> None:
    case = make_case([[0, 1], [1, 0]], [2], 2, 3)
    gathered = Gathered(
        case.tiles(2, 9, 0), case.inputs, [], [Method()], len(case.layers), with_dots=True, with_projected=True
    )
    rows = PartitionTables(case.inputs, gathered, case.inputs.partitions[0], case.layers, [], [])
    (streamed,) = rows.streamed()
    assert streamed["dot_products"].height == 4 * 3
    assert streamed["projected_dots"].is_empty()
    assert streamed["projected_dots"].columns == [*streamed["dot_products"].columns, "projection"]
    assert set(rows.others([])) == {"query_self", "original_self", "gradient_similarity"}


def test_a_dot_that_is_no_number_though_both_samples_are_good() -> None:
    case = make_case([[0, 1], [1, 0]], [2], 2, 3)
    case.projected.dots[1, 2] = np.inf
    with pytest.raises(TableError) as caught:
        list(case.rows(case.gathered(case.tiles(2, 9, 0)), case.inputs.partitions[0]).streamed())
    assert str(caught.value) == (
        "query 's0' and original 's1': the inner product of their sjlt projections is inf; recompute the partition"
    )


def test_memory_is_that_of_the_queries_in_progress() -> None:
    n_samples, n_layers, block = 160, 64, 8
    case = make_case([list(range(n_samples))] * n_samples, [n_samples], n_samples, n_layers)
    of_a_block = block * n_samples * n_layers * 8
    gathered = case.gathered(case.tiles(block, 256, 0))
    tracemalloc.start()
    try:
        rows = case.rows(gathered, case.inputs.partitions[0])
        height = sum(frames["dot_products"].height for frames in rows.streamed())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert height == n_samples * n_samples * n_layers
    assert peak < 12 * of_a_block < case.exact.dots.nbytes
