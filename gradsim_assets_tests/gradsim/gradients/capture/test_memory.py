"""How much memory is free on a processor: what a batch job was given bounds it."""

import psutil
import pytest
import torch

from gradsim.gradients.capture.memory import default_budget, free_bytes

CPU = torch.device("cpu")
MIB = 1 << 20

# Beside what this process has already; other tests' machines have as much.
SPARE = 300


@pytest.fixture(autouse=True)
def no_batch_job(monkeypatch):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def set_limit(monkeypatch):
    """Sets variables of a batch job, in MiB."""

    def set_limit(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))

    return set_limit


def used():
    """By this process, in MiB."""
    return psutil.Process().memory_info().rss // MIB


def is_spare(free):
    """Whether it is what `SPARE` leaves, but for what this process may have taken or given back meanwhile."""
    return abs(free / MIB - SPARE) < 50


def test_a_limit_of_the_node_counts_less_what_is_used(set_limit):
    set_limit(MEM_PER_NODE=used() + SPARE)
    assert is_spare(free_bytes(CPU))
    assert default_budget(CPU) < (SPARE + 50) * MIB * 9 // 10


@pytest.mark.parametrize("cores", [1, 4])
def test_a_limit_of_each_core_counts_for_all_of_them(set_limit, cores):
    set_limit(MEM_PER_CPU=-(-(used() + SPARE) // cores), CPUS_ON_NODE=cores)
    assert is_spare(free_bytes(CPU))


def test_a_core_is_the_only_one_where_nobody_says_how_many(set_limit):
    set_limit(MEM_PER_CPU=used() + SPARE)
    assert is_spare(free_bytes(CPU))


def test_what_is_taken_is_not_free_any_more(set_limit):
    set_limit(MEM_PER_NODE=used() + SPARE)
    before = free_bytes(CPU)
    taken = torch.ones(150 * MIB, dtype=torch.uint8)
    assert 120 * MIB < before - free_bytes(CPU) < 200 * MIB
    del taken


def test_nothing_is_free_beyond_the_limit(set_limit):
    set_limit(MEM_PER_NODE=1)
    assert free_bytes(CPU) == 0


def test_a_limit_above_what_the_machine_has_does_not_count(set_limit):
    set_limit(MEM_PER_NODE=10**9)
    assert free_bytes(CPU) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    "variables",
    [{}, {"MEM_PER_NODE": 0}, {"MEM_PER_CPU": 0, "CPUS_ON_NODE": 4}, {"MEM_PER_NODE": 0, "MEM_PER_CPU": 0}],
    ids=["none", "node", "core", "both"],
)
def test_zero_is_no_limit(set_limit, variables):
    free = free_bytes(CPU)
    set_limit(**variables)
    assert abs(free_bytes(CPU) - free) < 0.5 * free
    assert free > 0
