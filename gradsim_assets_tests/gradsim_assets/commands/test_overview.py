"""`gradsim list`: each study on its own line, with how far it is, and the errors of those that are not valid."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradsim_assets.commands.overview import print_studies
from gradsim_assets.terminal import console
from gradsim_assets_tests.workplace import Workplace


@pytest.mark.parametrize("width", [80, 200])
def test_the_studies_of_a_folder(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    workplace.write_study(
        "large_" + "a" * 40,
        settings={name: {"method": "word_dropout"} for name in ("a_long_name", "b", "c", "d")},
        description="All about [everything]",
    )
    workplace.write_study("wrong", top_K=3)
    workplace.write_study("incomplete")
    store = workplace.store("incomplete")
    path = store.path(store.lineage.key("candidates", "word_dropout"), "0000-0006")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    for name, value in workplace.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "width", width)
    print_studies()
    lines = capsys.readouterr().out.splitlines()
    *rows, first, second = lines
    assert max(map(len, rows)) <= width
    text = "".join(word for row in rows for word in row.split())
    for part in ("large_", "a_long_name,", "[everything]", "not"):
        assert part in text
    assert first.startswith(f"incomplete: {path}: not a readable table")
    assert second == f"wrong: {workplace.studies / 'wrong.yaml'}: unknown key 'top_K'; did you mean 'top_k'?"
    if width == 200:
        cells = [re.split(r"  +", row.strip()) for row in rows if row.startswith((" tiny", " large", " incomplete"))]
        assert [state for _, state, *_ in cells] == ["unknown", "not begun", "not begun"]


def test_a_folder_without_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSIM_STUDIES", str(tmp_path))
    monkeypatch.setenv("GRADSIM_DATA", str(tmp_path / "data"))
    print_studies()
    said = capsys.readouterr().out
    assert said == f"no study in {tmp_path}; write one: gradsim init NAME --data FILE --model NAME\n"


def test_nothing_heavy_is_loaded(workplace: Workplace, project: Path) -> None:
    code = (
        "import sys; from gradsim_assets.commands import print_studies; print_studies();"
        "print({'torch', 'transformers', 'datasets', 'dagster', 'matplotlib'} & sys.modules.keys())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=workplace.variables, capture_output=True, text=True, check=True
    ).stdout
    assert "not begun" in said
    assert said.splitlines()[-1] == "set()"
