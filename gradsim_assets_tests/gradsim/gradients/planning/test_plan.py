"""Schedules: every pair once, never above the budget, predictions exact, the future used well."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import GradientError
from gradsim.gradients.planning.plan import Alternative, least_budget, make_plan
from gradsim.gradients.planning.schedule import Capture, Compare, Drop, EndBlock, Evict, Restore, Schedule, Spill, Task


def task_of(pairs, sizes, tokens=None, batch_tokens=1, spill=False, host_bytes=0):
    """Queries are the nodes 0, 1, ... of the pairs' first column, at the positions of the same number."""
    nodes = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Task(
        pairs=nodes,
        positions=np.arange(len(nodes)),
        queries=nodes[:, 0],
        n_queries=int(nodes[:, 0].max(initial=-1)) + 1,
        sizes=np.array(sizes, dtype=np.int64),
        tokens=np.array([1] * len(sizes) if tokens is None else tokens, dtype=np.int64),
        batch_tokens=batch_tokens,
        spill=np.broadcast_to(spill, len(sizes)),
        host_bytes=host_bytes,
    )


@st.composite
def tasks(draw):
    """Up to eight nodes, each a query, an original or both; any pairs, also repeated; any lengths."""
    n_nodes = draw(st.integers(1, 8))
    node = st.integers(0, n_nodes - 1)
    pairs = draw(st.lists(st.tuples(node, node), min_size=1, max_size=20))
    sizes = draw(st.lists(st.integers(0, 9), min_size=n_nodes, max_size=n_nodes))
    tokens = draw(st.lists(st.integers(1, 9), min_size=n_nodes, max_size=n_nodes))
    spill = draw(st.lists(st.booleans(), min_size=n_nodes, max_size=n_nodes))
    return task_of(pairs, sizes, tokens, draw(st.integers(1, 20)), spill, draw(st.integers(0, 20)))


def way_of(task, working_bytes=0, product_operations=0.0):
    return Alternative(
        task=task,
        built=np.zeros(0, dtype=bool),
        per_token=1.0,
        per_pair=0.0,
        per_sample=np.zeros(len(task.sizes)),
        product_operations=product_operations,
        row_bytes=0,
        working_bytes=working_bytes,
    )


def plan_of(task, budget, working_bytes=0):
    return make_plan([way_of(task, working_bytes)], budget, 1.0)


def run(task, steps, budget):
    """Follow a schedule as an engine would, with every promise checked; returns passes and peak."""
    held: set[int] = set()
    on_host: set[int] = set()
    seen, passes, peak, done = [], 0, 0, 0
    for step in steps:
        match step:
            case Capture(nodes):
                assert held.isdisjoint(nodes)
                assert len(set(nodes)) == len(nodes)
                longest = int(task.tokens[list(nodes)].max())
                assert len(nodes) == 1 or len(nodes) * longest <= task.batch_tokens
                held.update(nodes)
                passes += len(nodes)
            case Restore(nodes):
                assert held.isdisjoint(nodes)
                assert on_host.issuperset(nodes)
                held.update(nodes)
            case Spill(node):
                assert task.spill[node]
                assert node not in on_host
                held.remove(node)
                on_host.add(node)
                assert task.sizes[sorted(on_host)].sum() <= task.host_bytes
            case Drop(node):
                held.remove(node)
            case Compare(positions):
                assert held.issuperset(task.pairs[positions].ravel().tolist())
                assert (np.diff(positions) > 0).all()
                seen.extend(positions.tolist())
            case Evict(node):
                held.remove(node)
                on_host.discard(node)
            case EndBlock(queries_done):
                done = queries_done
                early = np.flatnonzero(task.queries < queries_done)
                assert set(seen).issuperset(early.tolist())
        peak = max(peak, int(task.sizes[sorted(held)].sum()))
        assert peak <= budget
    assert not on_host
    assert sorted(seen) == list(range(len(task.pairs)))
    assert not held
    assert done == task.n_queries
    return passes, peak


@given(tasks(), st.integers(0, 30), st.integers(0, 5))
def test_a_plan_keeps_its_promises(task, spare, working_bytes):
    budget = least_budget(way_of(task, working_bytes)) + spare
    plan = plan_of(task, budget, working_bytes)
    assert run(task, plan.steps(), budget - working_bytes) == (plan.passes, plan.peak_bytes)
    assert plan.unique_samples == len(np.unique(task.pairs)) <= plan.passes


@given(tasks())
def test_ample_budget_runs_each_sample_once(task):
    plan = plan_of(task, int(task.sizes.sum()))
    assert plan.passes == plan.unique_samples


@given(tasks())
def test_too_small_a_budget_names_the_least_that_does(task):
    least = least_budget(way_of(task))
    assert plan_of(task, least).passes
    if least:
        with pytest.raises(GradientError, match=f"set memory_budget to at least {least}$"):
            plan_of(task, least - 1)


def test_message_of_too_small_a_budget():
    task = task_of([(0, 1)], [1000, 2000])
    with pytest.raises(GradientError) as error:
        plan_of(task, 3499, working_bytes=500)
    assert str(error.value) == (
        "one query and one original need up to 3,500 bytes, but memory_budget is 3,499: "
        "set memory_budget to at least 3500"
    )


def test_short_samples_of_similar_length_run_together():
    task = task_of([(0, 1), (0, 2), (0, 3), (0, 4)], [1] * 5, tokens=[90, 100, 103, 40, 44], batch_tokens=250)
    captured = [step.samples for step in Schedule(task, 1, 5).steps() if isinstance(step, Capture)]
    assert captured == [(0,), (3, 4), (1, 2)]


def passes_of_query_major_lru(task, budget):
    """What a cache without foresight runs: a query at a time, the least recently used sample leaves."""
    held: OrderedDict[int, None] = OrderedDict()
    passes = 0
    for query, original in sorted(map(tuple, task.pairs.tolist())):
        for node in (query, original):
            if node in held:
                held.move_to_end(node)
                continue
            passes += 1
            held[node] = None
            while sum(int(task.sizes[n]) for n in held) > budget:
                oldest = next(n for n in held if n not in (query, original))
                del held[oldest]
    return passes


@given(
    st.integers(2, 5),
    st.integers(2, 6),
    st.data(),
)
def test_no_worse_than_least_recently_used(n_queries, n_originals, data):
    """Equal sizes and disjoint sides, the study's case."""
    pairs = sorted(
        (query, n_queries + original)
        for query in range(n_queries)
        for original in data.draw(st.sets(st.integers(0, n_originals - 1), min_size=1))
    )
    task = task_of(pairs, [1] * (n_queries + n_originals))
    budget = data.draw(st.integers(2, n_queries + n_originals))
    plan = plan_of(task, budget)
    assert plan.passes <= passes_of_query_major_lru(task, budget)


def test_blocks_of_queries_save_passes_when_memory_is_short():
    """4 x 6 pairs, room for 5: blocks of four hold the queries while each original passes by once."""
    task = task_of([(q, 4 + o) for q in range(4) for o in range(6)], [1] * 10)
    plan = plan_of(task, 5)
    assert (plan.passes, plan.block_size) == (10, 4)
    assert way_of(task).cost(Schedule(task, 1, 5).steps()).passes > 10


def test_what_is_needed_last_leaves_first():
    """Query 0 sees originals 3, 4, 5; query 1 needs 3 again, query 2 needs 5: the last captured one leaves."""
    task = task_of([(0, 3), (0, 4), (0, 5), (1, 3), (2, 4)], [1] * 6)
    dropped = [step.sample for step in Schedule(task, 1, 3).steps() if isinstance(step, Drop)]
    assert dropped[0] == 4


def test_a_copy_on_the_host_saves_captures():
    """3 x 6 pairs, room for one query and three originals on the device, and for all of them on the host."""
    task = task_of([(q, 3 + o) for q in range(3) for o in range(6)], [1] * 9, spill=True, host_bytes=9)
    cost = way_of(task).cost(Schedule(task, 1, 4).steps())
    assert cost.passes == 9
    assert 0 < cost.spilled_bytes <= 6 + 2 * 3


def test_a_block_begins_with_what_is_still_there():
    """3 x 6 pairs, room for one query and three originals: the second query and the third find three, not none."""
    task = task_of([(q, 3 + o) for q in range(3) for o in range(6)], [1] * 9)
    assert way_of(task).cost(Schedule(task, 1, 4).steps()).passes == 3 + 6 + 2 * 3


def test_the_preferred_way_wins_unless_another_costs_less():
    pairs = [(q, 3 + o) for q in range(3) for o in range(3)]
    large, small = task_of(pairs, [2] * 6), task_of(pairs, [1] * 6)
    ways = [way_of(large), way_of(small, product_operations=1.0)]
    assert make_plan(ways, 100, 1.0).alternative is ways[0]
    assert make_plan(ways, 4, 1.0).alternative is ways[1]
    dear = [way_of(large), way_of(small, product_operations=100.0)]
    assert make_plan(dear, 4, 1.0).alternative is dear[0]


@pytest.mark.parametrize(("batch_tokens", "rows"), [(3, 2 + 3), (1, 3 * (2 + 1))])
def test_rows_are_read_once_for_all_pairs_that_are_compared_together(batch_tokens, rows):
    """All originals in one group, or each in its own."""
    task = task_of([(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)], [1] * 5, batch_tokens=batch_tokens)
    plan = make_plan([replace(way_of(task), row_bytes=10)], 100, 1.0)
    assert plan.cost.moved_bytes == 10 * rows


def test_no_pairs_is_an_empty_plan():
    """As when every sample is bad."""
    task = replace(task_of([(0, 1)], [1, 1]), pairs=np.empty((0, 2), dtype=np.int64))
    plan = plan_of(task, 0)
    assert (plan.passes, list(plan.steps())) == (0, [])
