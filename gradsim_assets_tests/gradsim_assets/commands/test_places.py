"""Where a study would run, and what is known of that place."""

import pytest

from gradsim.environment import Environment
from gradsim.errors import ClusterError
from gradsim.forecast.costs import Machine
from gradsim.tables.rates import MeasuredRates, write_rates
from gradsim_assets.commands.places import Cluster, ThisMachine, place_of
from gradsim_assets.commands.plan import print_plan
from gradsim_assets.commands.session import Session

QUEUE = "someone@login.example.org gpu, 2 GPUs"
UNKNOWN = (
    f"{QUEUE}: node memory unknown; measure it (gradsim plan tiny --measure), or set it (GRADSIM_MEMORY_BUDGET=60GiB)"
)


@pytest.fixture
def session(workplace, site_variables):
    """Opens the study with other facts of the environment."""
    site_variables(SLURM_PARTITION="gpu", SLURM_GPUS_PER_NODE="2")

    def open_session(**changes):
        facts = {"data": workplace.data, "studies": workplace.studies, "device": "cpu", "memory_budget": None}
        return Session(workplace.study(), Environment(**{**facts, "compute": "slurm", **changes}))

    return open_session


def rates(**changes):
    values = {"site": QUEUE, "device": "H100", "operations_per_second": 4.0, "bytes_per_second": 2.0}
    return MeasuredRates(**{**values, "precision": "float32", "memory_budget": 60 << 30, **changes})


def test_it_is_the_environments(session):
    here, there = place_of(session(compute="local")), place_of(session())
    assert isinstance(here, ThisMachine)
    assert isinstance(there, Cluster)
    assert (there.name, there.device) == (QUEUE, "cuda")


def test_nothing_is_planned_for_a_cluster_that_nobody_knows(session):
    opened = session()
    with pytest.raises(ClusterError) as caught:
        print_plan(opened)
    assert str(caught.value) == UNKNOWN


def test_what_was_measured_on_another_queue_is_nothing(session):
    opened = session()
    for each in (rates(site=None), rates(site="someone@login.example.org gpu, 1 GPUs"), rates(precision="float64")):
        write_rates(opened.store, each)
    place = place_of(opened)
    assert place.known(opened) is None
    with pytest.raises(ClusterError, match="node memory unknown"):
        place.machine(opened, None)


def test_a_cluster_is_what_was_measured_there(session):
    opened = session()
    write_rates(opened.store, rates())
    place = place_of(opened)
    known = place.known(opened)
    assert known
    assert known == rates(measured=known.measured)
    assert place.machine(opened, known) == Machine("cuda", 60 << 30, known.rates)


@pytest.mark.parametrize("measured", [True, False])
def test_a_budget_that_the_environment_says_wins(session, measured):
    opened = session(memory_budget=10 << 30)
    known = rates() if measured else None
    machine = place_of(opened).machine(opened, known)
    assert machine == Machine("cuda", 10 << 30, known.rates if known else None)


def test_rates_without_a_budget_do_not_say_what_a_node_can_hold(session):
    opened = session()
    with pytest.raises(ClusterError, match="node memory unknown"):
        place_of(opened).machine(opened, rates(memory_budget=None))


def test_a_site_that_is_not_said_is_an_error(session, monkeypatch):
    opened = session()
    monkeypatch.delenv("SLURM_SSH_HOST")
    with pytest.raises(ClusterError, match="SLURM_SSH_HOST"):
        place_of(opened)
