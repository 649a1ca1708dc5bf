"""Schedules: every pair once, never above the budget, predictions exact, the future used well."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import GradientError
from gradsim.gradients.plan import least_budget, make_plan
from gradsim.gradients.schedule import Capture, Compare, EndBlock, Evict, Schedule, Task


def task_of(pairs, sizes, first=None):
    """Queries are the nodes 0, 1, ... of the pairs' first column, at the positions of the same number."""
    nodes = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Task(
        pairs=nodes,
        positions=np.arange(len(nodes)),
        queries=nodes[:, 0],
        n_queries=int(nodes[:, 0].max(initial=-1)) + 1,
        sizes=np.array(sizes, dtype=np.int64),
        first=first,
    )


@st.composite
def tasks(draw):
    """Up to eight nodes, each of which may be query, original or both; any pairs, also repeated."""
    n_nodes = draw(st.integers(1, 8))
    node = st.integers(0, n_nodes - 1)
    pairs = draw(st.lists(st.tuples(node, node), min_size=1, max_size=20))
    sizes = draw(st.lists(st.integers(0, 9), min_size=n_nodes, max_size=n_nodes))
    first = draw(st.sampled_from([None, pairs[0][0], pairs[-1][1]]))
    return task_of(pairs, sizes, first)


def no_forms(task):
    return np.zeros((len(task.sizes), 0), dtype=bool)


def run(task, steps, budget):
    """Follow a schedule as an engine would, with every promise checked; returns passes and peak."""
    held, seen, passes, peak, done = set(), [], 0, 0, 0
    for step in steps:
        match step:
            case Capture(node):
                assert node not in held
                held.add(node)
                passes += 1
                peak = max(peak, int(task.sizes[sorted(held)].sum()))
                assert peak <= budget
            case Compare(original, positions):
                assert (task.pairs[positions, 1] == original).all()
                assert held.issuperset(task.pairs[positions].ravel().tolist())
                seen.extend(positions.tolist())
            case Evict(node):
                held.remove(node)
            case EndBlock(queries_done):
                done = queries_done
                early = np.flatnonzero(task.queries < queries_done)
                assert set(seen).issuperset(early.tolist())
    assert sorted(seen) == list(range(len(task.pairs)))
    assert not held
    assert done == task.n_queries
    return passes, peak


@given(tasks(), st.integers(0, 30))
def test_a_plan_keeps_its_promises(task, spare):
    budget = least_budget(task) + spare
    plan = make_plan([(task, no_forms(task))], budget)
    assert run(task, plan.steps(), budget) == (plan.passes, plan.peak_bytes)
    assert plan.unique_samples == len(np.unique(task.pairs)) <= plan.passes


@given(tasks())
def test_ample_budget_runs_each_sample_once(task):
    plan = make_plan([(task, no_forms(task))], int(task.sizes.sum()))
    assert plan.passes == plan.unique_samples


@given(tasks())
def test_too_small_a_budget_names_the_least_that_does(task):
    least = least_budget(task)
    assert make_plan([(task, no_forms(task))], least).passes
    if least:
        with pytest.raises(GradientError, match=f"set memory_budget to at least {least}$"):
            make_plan([(task, no_forms(task))], least - 1)


def test_message_of_too_small_a_budget():
    task = task_of([(0, 1)], [1000, 2000])
    with pytest.raises(GradientError) as error:
        make_plan([(task, no_forms(task))], 2999)
    assert str(error.value) == (
        "one query and one original need up to 3,000 bytes, but memory_budget is 2,999: "
        "set memory_budget to at least 3000"
    )


def passes_of_query_major_lru(task, budget):
    """What a cache without foresight runs: a query at a time, the least recently used sample leaves."""
    held, passes = OrderedDict(), 0
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
    plan = make_plan([(task, no_forms(task))], budget)
    assert plan.passes <= passes_of_query_major_lru(task, budget)


def test_blocks_of_queries_save_passes_when_memory_is_short():
    """4 x 6 pairs, room for 5: blocks of four hold the queries while each original passes by once."""
    task = task_of([(q, 4 + o) for q in range(4) for o in range(6)], [1] * 10)
    plan = make_plan([(task, no_forms(task))], 5)
    assert (plan.passes, plan.block_size) == (10, 4)
    assert Schedule(task, 1, 5).cost()[0] > 10


def test_what_is_needed_last_leaves_first():
    """Query 0 sees originals 3, 4, 5; query 1 needs 3 again, query 2 needs 5: the last captured one leaves."""
    task = task_of([(0, 3), (0, 4), (0, 5), (1, 3), (2, 4)], [1] * 6)
    evicted = [step.sample for step in Schedule(task, 1, 3).steps() if isinstance(step, Evict)]
    assert evicted[0] == 4


def test_the_preferred_form_wins_unless_another_saves_passes():
    pairs = [(q, 3 + o) for q in range(3) for o in range(3)]
    large, small = task_of(pairs, [2] * 6), task_of(pairs, [1] * 6)
    ways = [(large, no_forms(large)), (small, no_forms(small))]
    assert make_plan(ways, 100).task is large
    assert make_plan(ways, 4).task is small


def test_no_pairs_is_an_empty_plan():
    """As when every sample is bad."""
    task = replace(task_of([(0, 1)], [1, 1]), pairs=np.empty((0, 2), dtype=np.int64))
    plan = make_plan([(task, no_forms(task))], 0)
    assert (plan.passes, list(plan.steps())) == (0, [])
