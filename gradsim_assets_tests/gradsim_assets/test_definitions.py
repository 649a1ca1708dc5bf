"""The code location: which assets, checks and jobs there are, and what the web UI says of them."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from gradsim.environment import Environment
from gradsim.queries.quality import FAULTS
from gradsim.study import load_studies, load_study
from gradsim.tables import SCHEMAS, Lineage
from gradsim.tables.validation import CHECKS
from gradsim_assets.build import build_definitions
from gradsim_assets.checks.quality_checks import check_name
from gradsim_assets.checks.stored_check import without_stored
from gradsim_assets.keys import asset_key, table_key

SNAPSHOT = Path(__file__).with_name("sample_assets.txt")


@pytest.fixture(scope="module")
def environment(project, tmp_path_factory):
    """The project's own studies, whatever this machine's environment says."""
    return Environment(
        studies=project / "studies",
        data=tmp_path_factory.mktemp("data"),
        device="cpu",
        model_name=None,
        sample_size=None,
        openai_base_url=None,
    )


@pytest.fixture(scope="module")
def definitions(environment):
    return build_definitions(environment=environment)


@pytest.fixture(scope="module")
def sample(environment):
    return load_study("sample", environment)


@pytest.fixture(scope="module")
def sample_specs(definitions):
    return {spec.key: spec for spec in definitions.resolve_all_asset_specs() if spec.key.path[0] == "sample"}


def test_every_study_of_the_folder_is_loaded(definitions, project, environment):
    names = {key.path[0] for key in definitions.resolve_all_asset_keys()}
    assert names == {path.stem for path in (project / "studies").glob("*.yaml")} >= {"sample", "lima_olmo_1b"}
    assert names == {study.name for study in load_studies(environment)[0]}


def test_assets_and_what_they_are_made_from_are_the_lineage(definitions, environment):
    found = {spec.key: {dep.asset_key for dep in spec.deps} for spec in definitions.resolve_all_asset_specs()}
    expected = {
        asset_key(node.key): {asset_key(source) for source in node.inputs}
        for study in load_studies(environment)[0]
        for node in Lineage(study)
    }
    assert found == expected


def test_keys_and_tables_are_the_same_both_ways(sample):
    for node in Lineage(sample):
        assert table_key(asset_key(node.key)) == node.key


def described(spec):
    """An asset in a few lines: key, group, kinds, partitions, and what it is made from."""
    lines = ["/".join(spec.key.path), f"  {spec.group_name}: {', '.join(sorted(spec.kinds))}"]
    if spec.partitions_def:
        lines.append(f"  by partition: {', '.join(spec.partitions_def.get_partition_keys())}")
    sources = sorted("/".join(dep.asset_key.path) for dep in spec.deps)
    return "\n".join([*lines, *(f"  < {source}" for source in sources)]) + "\n"


def test_assets_of_the_sample_study_are_as_recorded(sample_specs):
    """Delete the file to record anew; what changed shows in its diff."""
    found = "".join(described(spec) for _, spec in sorted(sample_specs.items()))
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(found, encoding="utf-8")
        pytest.fail(f"recorded {SNAPSHOT}: read it, and run again")
    assert found == SNAPSHOT.read_text(encoding="utf-8")


def test_every_asset_has_an_owner_and_a_description(sample_specs):
    for key, spec in sample_specs.items():
        assert list(spec.owners) == ["team:gradsim"], key
        assert spec.description, key


def test_every_table_shows_its_columns(sample_specs):
    for key, spec in sample_specs.items():
        table = table_key(key)
        if table.name == "report":
            continue
        shown = spec.metadata["dagster/column_schema"].columns
        assert [column.name for column in shown] == list(SCHEMAS[table.name].columns), key
        assert all(column.description and column.type for column in shown), key


def test_partitioned_tables_have_blocking_checks_of_their_partitions(definitions, sample):
    graph = definitions.resolve_asset_graph()
    for node in Lineage(sample):
        if not node.partitioned:
            continue
        key = asset_key(node.key)
        checks = without_stored(graph.get_check_keys_for_assets({key}))
        found = {check.name for check in checks}
        warnings = found & {check_name(fault) for fault in FAULTS}
        assert found - warnings == set(CHECKS[node.key.name]), key
        assert bool(warnings) == (node.key.name == "queries"), key
        for check in checks:
            spec = graph.get_check_spec(check)
            assert spec.blocking == (check.name not in warnings), check
            assert spec.description, check
            assert spec.partitions_def == graph.get(key).partitions_def, check


def test_every_partitioned_table_is_checked(sample):
    assert {node.key.name for node in Lineage(sample) if node.partitioned} == set(CHECKS)


@pytest.mark.parametrize(
    ("job", "rooms"),
    [
        ("dataset", {"samples", "model", "tokenized", "projections"}),
        ("partitions", set(CHECKS)),
        ("combine", {"results"}),
        ("analysis", {"analysis", "report"}),
    ],
)
def test_jobs_of_a_study_materialize_one_stage(definitions, sample, job, rooms):
    keys = {table_key(key) for key in definitions.resolve_job_def(f"sample__{job}").asset_layer.selected_asset_keys}
    assert keys
    assert {key.room or key.name for key in keys} == rooms
    assert (definitions.resolve_job_def(f"sample__{job}").partitions_def is not None) == (job == "partitions")


def test_stages_together_are_all_of_a_study(definitions, sample):
    jobs = [definitions.resolve_job_def(f"sample__{job}") for job in ("dataset", "partitions", "combine", "analysis")]
    keys = [key for job in jobs for key in job.asset_layer.selected_asset_keys]
    assert sorted(keys) == sorted(asset_key(node.key) for node in Lineage(sample))


def test_partitions_are_the_studys_ranges(definitions, environment):
    lima = load_study("lima_olmo_1b", environment)
    graph = definitions.resolve_asset_graph()
    partitions = graph.get(dg.AssetKey(["lima_olmo_1b", "paraphrased", "dot_products"])).partitions_def
    assert partitions.get_partition_keys() == [partition.key for partition in lima.partitions]
    assert partitions.get_partition_keys()[-1] == "0900-0987"


def test_a_trial_is_a_study_of_its_own(environment):
    trial = environment.model_copy(update={"sample_size": 12, "model_name": "someone/Some-Model.v2"})
    names = {key.path[0] for key in build_definitions(environment=trial).resolve_all_asset_keys()}
    assert names == {f"{name}_some_model_v2_12" for name in ("sample", "lima_olmo_1b", "smollm2_135m")}


def test_resources_can_be_replaced(environment, sample, tmp_path):
    from resources.storage import StorageResource

    elsewhere = StorageResource(root=str(tmp_path))
    definitions = build_definitions([sample], environment, {"storage": elsewhere})
    assert definitions.resources
    assert definitions.resources["storage"] is elsewhere


def validate(workplace):
    """What Dagster says when it loads the code location as the web UI would, and its exit status."""
    workplace.home.mkdir()
    process = workplace.start("dagster", "definitions", "validate", "-m", "gradsim_assets.definitions")
    output, _ = process.communicate(timeout=120)
    return output, process.returncode


@pytest.mark.slow
def test_dagster_itself_finds_nothing_wrong(workplace):
    output, status = validate(workplace)
    assert status == 0, output
    assert "All code locations passed validation" in output


@pytest.fixture
def broken(workplace):
    """The errors of two study files beside the study `tiny`: one has no dataset, and one a name with a space."""
    definition = (workplace.studies / "tiny.yaml").read_text(encoding="utf-8")
    (workplace.studies / "no_dataset.yaml").write_text(yaml.safe_dump({"samples": 3}), encoding="utf-8")
    (workplace.studies / "two words.yaml").write_text(definition, encoding="utf-8")
    reasons = {
        "no_dataset": "key 'dataset' is missing; add it",
        "two words": "'two words' is not a valid study name; use letters, digits and underscores",
    }
    return {name: f"{workplace.studies / name}.yaml: {reason}" for name, reason in reasons.items()}


def run_of(workplace, instance, *keys):
    """A run of these assets, of definitions that are built as for the web UI."""
    definitions = build_definitions(environment=workplace.environment)
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=list(keys), raise_on_error=False)


def test_a_broken_study_is_an_asset_that_states_and_raises_its_error(workplace, broken):
    keys = {dg.AssetKey([name, "study"]): error for name, error in broken.items()}
    specs = {spec.key: spec for spec in build_definitions(environment=workplace.environment).resolve_all_asset_specs()}
    assert set(specs) == {*keys, *(asset_key(node.key) for node in workplace.store().lineage)}
    for key, error in keys.items():
        assert specs[key].description == f"This study cannot be loaded: {error}. Then reload the code location."
        assert specs[key].metadata["error"] == error
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_of(workplace, instance, *keys)
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        assert {failure.user_failure_data.description for failure in failures} == set(broken.values())
        assert run_of(workplace, instance, dg.AssetKey(["tiny", "samples"])).success


def test_a_study_that_was_corrected_runs_once_definitions_are_loaded_again(workplace, broken):
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_of(workplace, instance, dg.AssetKey(["no_dataset", "study"])).success
        workplace.write_study("no_dataset")
        assert run_of(workplace, instance, dg.AssetKey(["no_dataset", "samples"])).success
    keys = build_definitions(environment=workplace.environment).resolve_all_asset_keys()
    assert [key.path for key in keys if key.path[-1] == "study"] == [["two words", "study"]]


@pytest.mark.slow
def test_dagster_loads_the_location_beside_a_broken_study(workplace, broken):
    output, status = validate(workplace)
    assert status == 0, output
