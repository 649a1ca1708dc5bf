"""What `gradsim doctor` finds, and what it says of an installation that is not as it should be."""

import os
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from gradsim.environment import Environment
from gradsim_assets.cli import app
from gradsim_assets.commands import doctor
from gradsim_assets.commands.doctor import CHECKS, InstallationError, constraints, requirements
from resources.diagnosis import Doubt

NAMES = [check.name for check in CHECKS]


@pytest.fixture
def examine(workplace, monkeypatch):
    """Findings by name, each as sign and text, and the exit status."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "GRADSIM_")):
            monkeypatch.delenv(name)
    workplace.data.mkdir()

    def run(**variables):
        for name, value in {**workplace.variables, **variables}.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["doctor"])
        lines = re.findall(r"^(\S) (not tested|\w+(?: \w+)?)  +(.*)$", result.output, re.MULTILINE)
        return {name: (sign, text) for sign, name, text in lines}, result.exit_code

    return run


def test_an_installation_that_is_well(examine, workplace):
    found, status = examine()
    assert status == 0
    assert list(found) == NAMES
    signs = {name: sign for name, (sign, _) in found.items()}
    assert {signs.pop("packages"), signs.pop("privacy")} <= set("✓!"), "as on the developer's machine"
    assert set(signs.values()) == {"✓"}
    assert found["studies"][1] == f"tiny in {workplace.studies}"
    assert found["data root"][1].startswith(f"{workplace.data}: ")
    assert list(workplace.data.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "name", "said"),
    [
        ({"MT_DEVICE": "cuda:7"}, "device", "'cuda:7' is not available, .*; set MT_DEVICE"),
        ({"GRADSIM_DATA": "/proc/gradsim"}, "data root", "/proc/gradsim cannot be written .*; set GRADSIM_DATA"),
        ({"DAGSTER_HOME": "/proc/gradsim"}, "Dagster", "/proc/gradsim cannot be written .*; set DAGSTER_HOME"),
        ({"GRADSIM_STUDIES": "/nowhere"}, "studies", "no such studies folder; create it or set GRADSIM_STUDIES"),
        ({"GRADSIM_COMPUTE": "slrum"}, "settings", "GRADSIM_COMPUTE='slrum' .*; correct"),
    ],
)
def test_what_is_wrong_is_said_with_how_to_mend_it(examine, variables, name, said):
    found, status = examine(**variables)
    assert status == 1
    assert found[name][0] == "✗"
    assert re.search(said, found[name][1])


def test_what_depends_on_a_failure_is_not_tested(examine):
    found, _ = examine(GRADSIM_COMPUTE="slrum")
    assert found["not tested"] == ("–", "privacy, studies, API, imports, data root, Dagster, device")


def test_a_study_that_cannot_be_followed(examine, workplace):
    workplace.write_study("bad", top_k="many")
    found, status = examine()
    assert (found["studies"][0], status) == ("✗", 1)
    assert "bad.yaml" in found["studies"][1]


def test_a_study_that_an_api_rewrites_needs_a_key(examine, workplace):
    workplace.write_study("rewritten", settings={"paraphrased": {"method": "paraphrase"}})
    found, status = examine(OPENAI_API_KEY="", OPENAI_BASE_URL="http://127.0.0.1:8000/v1")
    said = "no key for 127.0.0.1:8000, which rewritten would use; set OPENAI_API_KEY in .env"
    assert (found["API"], status) == (("!", said), 0)
    found, _ = examine(OPENAI_API_KEY="sk-none", OPENAI_BASE_URL="")
    assert found["API"] == ("✓", "a key for api.openai.com, which rewritten would use")
    found, status = examine(OPENAI_API_KEY="sk-none", OPENAI_BASE_URL="http://someone:secret@127.0.0.1:8000/v1")
    assert (found["API"][0], status) == ("✗", 1)
    assert "secret" not in found["API"][1]


def test_an_imported_study_that_is_not_whole(examine, workplace):
    folder = workplace.data / "published"
    folder.mkdir(parents=True)
    definition = {
        "dataset": {"imported": "1234"},
        "samples": 4,
        "model": {"imported": "org/model"},
        "settings": {"paraphrased": {"method": "imported"}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    found, status = examine()
    assert (found["imports"][0], status) == ("✗", 1)
    assert "samples.parquet: missing; import it again: gradsim import-published DIR" in found["imports"][1]
    (folder / "study.yaml").write_text("dataset: {imported: [", encoding="utf-8")
    found, status = examine()
    assert found["studies"][0] == "✓", "it hinders no other study"
    assert (found["imports"][0], status) == ("✗", 1)
    assert "study.yaml, line 1: not YAML" in found["imports"][1]


def test_the_cluster_is_looked_at_where_jobs_run_there(examine):
    found, status = examine(GRADSIM_COMPUTE="slurm")
    assert status == 1
    assert re.match("SLURM_SSH_HOST .*; set it in .env", found["settings"][1])
    assert found["not tested"][1].startswith("ssh login, programs, ")


def test_a_network_file_system_is_doubtful_for_sqlite_alone(workplace, monkeypatch, tmp_path):
    mounts = [SimpleNamespace(mountpoint="/", fstype="ext4"), SimpleNamespace(mountpoint=str(tmp_path), fstype="nfs4")]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: mounts)
    for name, value in workplace.variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Doubt, match=r"network file system \(nfs4\), where SQLite .*; set DAGSTER_HOME to a local"):
        doctor.dagster(doctor.Machine())
    assert doctor.data_root(doctor.Machine()).endswith(", on nfs4")
    workplace.home.mkdir()
    (workplace.home / "dagster.yaml").write_text("storage:\n  postgres:\n    postgres_url: here\n")
    assert doctor.dagster(doctor.Machine()) == f"instance in {workplace.home}"


def test_what_other_accounts_can_read_is_doubtful(workplace, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # which others may enter, unlike pytest's
        root, secrets = Path(folder), Path(folder) / ".env"
        root.chmod(0o755)
        monkeypatch.setattr(doctor, "project_root", lambda: root)
        monkeypatch.setattr(doctor, "read_environment", lambda: Environment(data=root / "data root"))
        monkeypatch.setenv("DAGSTER_HOME", str(root / "home"))
        secrets.touch(0o600)
        (root / "home").mkdir(0o700)
        assert doctor.privacy(doctor.Machine()).endswith("yours alone")
        secrets.chmod(0o640)
        with pytest.raises(Doubt, match=f"other accounts can read {secrets}; .*: chmod go= {secrets}$"):
            doctor.privacy(doctor.Machine())
        (root / "data root/.journals").mkdir(parents=True)
        with pytest.raises(Doubt, match=rf"{secrets}, {root}/data root/.journals; .* chmod go= {secrets} '{root}/data"):
            doctor.privacy(doctor.Machine())
        root.chmod(0o700)
        assert doctor.privacy(doctor.Machine()).endswith("yours alone"), "nobody can enter the folder above"


def test_requirements_are_those_of_the_platform_with_what_it_includes():
    needed = requirements("gradsim", {"platform"})
    assert {"numpy", "torch", "dagster", "dagster-pipes"} <= needed.keys()
    assert needed.keys().isdisjoint({"gradsim", "pytest", "ruff"})


def test_packages_that_are_missing_or_of_another_version(monkeypatch):
    versions: dict[str, str | None] = {"polars": "0.1"}
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, real(name)))
    with pytest.raises(InstallationError, match=r"wrong version: polars 0.1 \(needs .*\); install it again"):
        doctor.packages(doctor.Machine())
    versions["polars"] = None
    with pytest.raises(InstallationError, match="not installed: polars; install it again"):
        doctor.packages(doctor.Machine())


def test_versions_that_the_tests_did_not_run_with_are_doubtful(monkeypatch, tmp_path):
    (tmp_path / "constraints.txt").write_text("# pins\nnumpy==1.0.0\n")
    monkeypatch.setattr(doctor, "project_root", lambda: tmp_path)
    assert constraints(tmp_path / "constraints.txt") == {"numpy": "1.0.0"}
    with pytest.raises(Doubt, match=r"numpy \S+ \(tested 1.0.0\); to get the tested ones"):
        doctor.packages(doctor.Machine())
