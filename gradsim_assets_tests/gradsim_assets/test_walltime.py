"""How long a job on a cluster asks for: what was measured there says it, unless the user does."""

from datetime import timedelta

import pytest

from gradsim.errors import GradsimError
from gradsim.tables.lineage import AUDIT, GRADIENT_TABLES, INDEX
from gradsim.tables.rates import MeasuredRates, write_rates
from gradsim_assets.assets.gradients import make_job
from resources.local import LocalCompute
from resources.slurm.script import DEFAULT_WALLTIME, walltime, with_margin

pytestmark = pytest.mark.slow

SETTING, KEYS = "word_dropout", ("0000-0006", "0007-0013", "0014-0019")
START = with_margin(0)


@pytest.fixture
def site(site_variables):
    return site_variables(SLURM_GPUS_PER_NODE="0")


@pytest.fixture
def make(computed):
    """A job of a finished study, for tables and partitions."""

    def make(tables=GRADIENT_TABLES, partitions=KEYS, setting=SETTING, room=None):
        store = computed.store()
        keys = [store.lineage.key(table, setting, room) for table in tables]
        return make_job(store, keys, partitions, LocalCompute(device="cpu"), force=False)

    return make


@pytest.fixture
def measure(computed, site):
    """Keeps rates of the site, at which anything takes hours."""

    def measure(speed=1.0, **changes):
        values = {"site": site.queue, "device": "a node", "precision": "float32", "memory_budget": 1 << 30}
        rates = {"operations_per_second": 1e5 * speed, "bytes_per_second": 1e4 * speed}
        write_rates(computed.store(), MeasuredRates(**{**values, **rates, **changes}))

    return measure


def test_the_margin_is_three_times_what_is_predicted_and_minutes_to_start():
    assert timedelta(minutes=5) <= START <= timedelta(minutes=30)
    assert with_margin(100) - START == timedelta(seconds=300)


def test_it_is_four_hours_where_nobody_has_measured(make, site):
    assert walltime(make(), site) == DEFAULT_WALLTIME == timedelta(hours=4)


def test_what_was_measured_elsewhere_or_otherwise_says_nothing(make, site, measure):
    measure(site=None)
    measure(site=f"{site.queue} x")
    measure(precision="float64")
    assert walltime(make(), site) == DEFAULT_WALLTIME


def test_nothing_predicts_a_job_that_compares_nothing(make, site, measure):
    measure()
    for job in (make((AUDIT,), (None,), room="analysis"), make((INDEX,), setting=None)):
        assert walltime(job, site) == DEFAULT_WALLTIME


def test_it_grows_with_partitions_and_tables(make, site, measure):
    measure()
    found = [walltime(make(partitions=KEYS[:count]), site) for count in (1, 2, 3)]
    assert START < found[0] < found[1] < found[2]
    assert walltime(make(("dot_products",)), site) < found[2]


def test_a_node_half_as_fast_takes_twice_the_time(make, site, measure):
    measure()
    fast = walltime(make(), site) - START
    measure(speed=0.5)
    slow = walltime(make(), site) - START
    assert slow / fast == pytest.approx(2)


def test_the_users_own_wins_and_nothing_is_predicted(make, site_variables, measure):
    measure(memory_budget=1)  # with which nothing can be predicted
    site = site_variables(SLURM_GPUS_PER_NODE="0", SLURM_TIME="00:20:00").with_home("/home/x")
    assert site.walltime(walltime(make(), site)) == "00:20:00"


def test_a_job_that_does_not_fit_the_node_is_an_error(make, site, measure):
    measure(memory_budget=1)
    with pytest.raises(GradsimError, match=r"cannot be predicted \(.*\); set SLURM_TIME$") as caught:
        walltime(make(), site)
    assert "\n" not in str(caught.value)


def test_it_is_what_a_job_asks_for(make, site, measure):
    measure()
    found = walltime(make(), site)
    limit = site.walltime(found)
    days, _, clock = limit.rpartition("-")
    hours, minutes, _ = map(int, clock.split(":"))
    assert found <= timedelta(days=int(days or 0), hours=hours, minutes=minutes) < found + timedelta(minutes=2)
