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


NOT_A_PAIR = "not NAME=value; correct or remove it"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"MT_DEVICE=cpu\nGRADSIM_DATA=\xff\n", ", line 2: not UTF-8 text; save the file as such"),
        (b"MT_DEVICE=a\0b\n", ", line 1: contains a null character; remove it"),
        (b"# \r\n\r\nMT_DEVICE=cpu\r\n'a\0'=b", ", line 4: contains a null character; remove it"),
        (b"\n\n# data\n\nGRADSIM_DATA /data\n", f", line 5: {NOT_A_PAIR}"),
        (b"MT_DEVICE=cpu\n=x\n", f", line 2: {NOT_A_PAIR}"),
        (b"A=1\nB='one line\nC=2\n", f", line 2: {NOT_A_PAIR}"),
        (b"A='several\nlines'\nB=\"x\" y\n", f", line 3: {NOT_A_PAIR}"),
        (b"'A=B'=c\n", f", line 1: {NOT_A_PAIR}"),
        (b"\x89PNG\r\n\x1a\n", ", line 1: not UTF-8 text; save the file as such"),
    ],
)
def test_a_malformed_dotenv(root: Path, content: bytes, complaint: str) -> None:
    path = root / ".env"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        read_environment()
    assert str(caught.value) == f"{path}{complaint}"


def test_a_folder_called_dotenv(root: Path) -> None:
    path = root / ".env"
    path.mkdir()
    with pytest.raises(StudyError) as caught:
        read_environment()
    assert str(caught.value) == f"{path}: cannot be read (Is a directory); make it a readable file or rename it"


@pytest.mark.parametrize("content", ["", "\n", "\ufeffMT_DEVICE=cpu", "export MT_DEVICE=cpu # here\n", "UNSET\n#=\n"])
def test_a_dotenv_of_few_values(root: Path, content: str) -> None:
    (root / ".env").write_text(content, encoding="utf-8")
    assert read_environment().device == ("cpu" if "MT_DEVICE" in content else "auto")


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
