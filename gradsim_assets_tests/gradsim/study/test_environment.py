import os
from pathlib import Path

import pytest

from gradsim.environment import read_environment
from gradsim.errors import StudyError


@pytest.mark.parametrize(
    ("value", "need"),
    [
        ("abc", "should be a valid integer"),
        ("1.5", "should be a valid integer"),
        ("0", "should be greater than or equal to 1"),
        ("-3", "should be greater than or equal to 1"),
    ],
)
def test_a_wrong_number_of_samples(root: Path, monkeypatch: pytest.MonkeyPatch, value: str, need: str) -> None:
    monkeypatch.setenv("MT_SAMPLE_SIZE", value)
    with pytest.raises(StudyError) as caught:
        read_environment()
    assert str(caught.value) == f"MT_SAMPLE_SIZE='{value}' in the environment or .env {need}; correct or unset it"


def test_a_memory_budget(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSIM_MEMORY_BUDGET", "4GiB")
    assert read_environment().memory_budget == 4 * 2**30
    monkeypatch.setenv("GRADSIM_MEMORY_BUDGET", "much")
    with pytest.raises(StudyError) as caught:
        read_environment()
    assert str(caught.value) == (
        "GRADSIM_MEMORY_BUDGET='much' in the environment or .env should be a size such as 4GiB; correct or unset it"
    )


def test_an_unset_or_empty_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_SAMPLE_SIZE", "")
    monkeypatch.setenv("MT_DEVICE", "")
    environment = read_environment()
    assert (environment.sample_size, environment.model_name, environment.device) == (None, None, "auto")
    assert environment.data_root == root / "data/store"
    assert environment.studies_folder == root / "studies"


def test_dotenv_is_read_and_the_environment_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "MT_DEVICE=cpu\nMT_SAMPLE_SIZE=7\nHF_TOKEN=from-file\nOPENAI_API_KEY='secret'\n"
    (root / ".env").write_text(text, encoding="utf-8")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("MT_SAMPLE_SIZE", "9")
    environment = read_environment()
    assert (environment.device, environment.sample_size) == ("cpu", 9)
    assert os.environ["HF_TOKEN"] == "from-file"  # libraries look for it themselves
    assert os.environ["OPENAI_API_KEY"] == "secret"
    assert "secret" not in repr(environment)


@pytest.mark.parametrize("folder", ["store", "a folder/with spaces", "./x/../store 2"])
def test_relative_folders_are_meant_from_the_root(root: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("GRADSIM_DATA", folder)
    assert read_environment().data_root == (root / folder).resolve()


def test_absolute_and_home_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/some one")
    monkeypatch.setenv("GRADSIM_DATA", "~/gradsim data")
    monkeypatch.setenv("GRADSIM_STUDIES", "/my studies")
    environment = read_environment()
    assert environment.data_root == Path("/home/some one/gradsim data")
    assert environment.studies_folder == Path("/my studies")


def test_the_home_of_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSIM_DATA", "~no-such-user/data")
    with pytest.raises(StudyError) as caught:
        _ = read_environment().data_root
    assert str(caught.value) == "GRADSIM_DATA='~no-such-user/data': no such home directory; fix the path"
