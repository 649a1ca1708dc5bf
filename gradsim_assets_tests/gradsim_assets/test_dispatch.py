"""Which steps wait for each other, how many go at a time, and how many partitions go into one."""

import dagster as dg
import pytest

from gradsim.environment import Environment
from gradsim.study import HubModel, ReferenceModel, Study
from gradsim.study.studied_model import Architecture
from gradsim.tables import Lineage
from gradsim.tables.lineage import GRADIENT_TABLES
from gradsim_assets.build import build_definitions
from gradsim_assets.dispatch import LOCAL_POOL, SLURM_POOL, Dispatch, compute_resource, set_pool_limits
from gradsim_assets.keys import table_key
from gradsim_assets.launch.instance import open_instance
from resources.local import LocalCompute
from resources.slurm.compute import SlurmCompute

POOLS = {"local": LOCAL_POOL, "slurm": SLURM_POOL}


@pytest.fixture
def study(tmp_path):
    """One with every kind of setting and of partition job."""
    (tmp_path / "originals.jsonl").touch()
    settings = {
        "dropped": {"method": "word_dropout"},
        "read": {"method": "file", "path": tmp_path / "read.jsonl"},
        "rewritten": {"method": "paraphrase", "model": "a-model"},
        "generated": {"method": "generate", "prompts": "dropped", "max_new_tokens": 4},
    }
    return Study.model_validate(
        {
            "name": "tiny",
            "dataset": {"path": tmp_path / "originals.jsonl"},
            "samples": 4,
            "model": {"reference": {}},
            "settings": settings,
            "partition_size": 2,
            "projections": [{"kind": "sjlt", "share": 0.1, "store_projected": True}],
        }
    )


def environment(**changes):
    return Environment(**{"compute": "local", "partitions_per_job": None, "concurrent_jobs": 8, **changes})


def assets(study, **changes):
    """The assets' definitions -> keys of their tables."""
    definitions = build_definitions([study], environment(**changes))
    assert definitions.assets
    found = {}
    for asset in definitions.assets:
        assert isinstance(asset, dg.AssetsDefinition)
        found[asset] = {table_key(key) for key in asset.keys}
    return found


def pools(asset):
    return asset.node_def.pools


@pytest.mark.parametrize("compute", POOLS)
def test_what_runs_a_partition_job_is_in_the_pool_and_nothing_else(study, compute):
    found = assets(study, compute=compute)
    lineage = Lineage(study)
    expected = {lineage.key(table, setting) for table in GRADIENT_TABLES for setting in study.settings}
    expected |= {lineage.key("gradient_audit", setting, "analysis") for setting in study.settings}
    expected |= {lineage.key("queries", "generated"), lineage.key("gradient_index"), lineage.key("model")}
    assert {key for asset, keys in found.items() if pools(asset) for key in keys} == expected
    assert {pool for asset in found for pool in pools(asset)} == {POOLS[compute]}


@pytest.mark.parametrize("model", [ReferenceModel(reference=Architecture()), HubModel(name="somewhere")])
@pytest.mark.parametrize("compute", POOLS)
def test_every_step_that_is_given_the_compute_resource_is_in_the_pool(study, compute, model):
    study = study.model_copy(update={"model": model})
    for asset, keys in assets(study, compute=compute).items():
        # A model of the Hub is fetched with its weights only if jobs run here.
        fetched = Lineage(study).key("model") in keys and not model.training
        runs_job = "compute" in asset.required_resource_keys and not fetched
        assert pools(asset) == ({POOLS[compute]} if runs_job else set()), keys


@pytest.mark.parametrize(
    ("partitions", "policy"),
    [(None, dg.BackfillPolicy.single_run()), (1, dg.BackfillPolicy.multi_run(1)), (3, dg.BackfillPolicy.multi_run(3))],
)
def test_tables_with_partitions_go_into_runs_as_the_environment_says(study, partitions, policy):
    found = assets(study, compute="slurm", partitions_per_job=partitions)
    partitioned = [asset for asset in found if asset.partitions_def]
    # Queries, tokens and candidates of each setting; gradients of all, and the index.
    assert len(partitioned) == 3 * len(study.settings) + 2
    assert {asset.backfill_policy for asset in partitioned} == {policy}
    assert Dispatch.of(environment(partitions_per_job=partitions)).backfill_policy == policy


@pytest.mark.parametrize(("compute", "kind"), [("local", LocalCompute), ("slurm", SlurmCompute)])
def test_jobs_run_where_the_environment_says(study, compute, kind):
    resource = compute_resource(environment(compute=compute))
    assert type(resource) is kind
    assert resource.is_here == (compute == "local")
    resources = build_definitions([study], environment(compute=compute)).resources
    assert resources
    assert type(resources["compute"]) is kind


def limits(instance):
    return {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}


def test_a_pools_limit_is_what_the_environment_says_now():
    with dg.DagsterInstance.ephemeral() as instance:
        set_pool_limits(instance, environment(concurrent_jobs=5))
        assert limits(instance) == {LOCAL_POOL: 1, SLURM_POOL: 5}
        set_pool_limits(instance, environment(concurrent_jobs=2))
        assert limits(instance) == {LOCAL_POOL: 1, SLURM_POOL: 2}


def test_so_many_jobs_get_a_slot():
    with dg.DagsterInstance.ephemeral() as instance:
        set_pool_limits(instance, environment(concurrent_jobs=3))
        storage = instance.event_log_storage
        claims = [storage.claim_concurrency_slot(SLURM_POOL, f"run {number}", "step") for number in range(5)]
        assert [claim.is_claimed for claim in claims] == [True] * 3 + [False] * 2
        claims = [storage.claim_concurrency_slot(LOCAL_POOL, f"run {number}", "step") for number in range(2)]
        assert [claim.is_claimed for claim in claims] == [True, False]


def test_every_command_sets_the_limits(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    for number in (4, 6):
        with open_instance(environment(data=tmp_path, concurrent_jobs=number)) as instance:
            assert limits(instance) == {LOCAL_POOL: 1, SLURM_POOL: number}
