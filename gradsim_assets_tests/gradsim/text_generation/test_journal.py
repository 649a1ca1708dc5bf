"""Journals outlive whoever writes them."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.text_generation.journal import JournalError, open_journal, read_journal

WRITER = """
import sys
from pathlib import Path
from gradsim.text_generation.journal import open_journal
with open_journal(Path(sys.argv[1]), print) as journal:
    number = len(journal.entries)
    while True:
        journal.append(f"key {number}", {"number": number, "text": "é" * 5000})
        print(number, flush=True)
        number += 1
"""


def test_what_is_written_is_found_again_also_by_who_only_reads(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal.jsonl"
    with open_journal(path) as journal:
        journal.append("a", {"text": "one\ntwo\u2028three"})
        journal.append("b", {"n": 1})
        assert read_journal(path) == journal.entries
    with open_journal(path) as journal:
        assert journal.entries == {"a": {"text": "one\ntwo\u2028three"}, "b": {"n": 1}}
        journal.append("b", {"n": 2})
    assert read_journal(path)["b"] == {"n": 2}, "the last line wins"
    assert len(path.read_text(encoding="utf-8").split("\n")) == 4, "nothing is rewritten"


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal.jsonl"
    umask = os.umask(0)
    try:
        with open_journal(path):
            pass
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_no_journal_holds_nothing(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == {}


@given(st.integers(0, 60))
def test_a_line_that_was_cut_off_is_as_if_it_never_was(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journals") / "journal.jsonl"
    with open_journal(path) as journal:
        journal.append("a", {"text": "first"})
        whole = path.stat().st_size
        journal.append("b", {"text": "ö" * 20})
    os.truncate(path, min(whole + cut, path.stat().st_size - 1))
    assert read_journal(path).keys() == {"a"}
    with open_journal(path) as journal:
        assert journal.entries.keys() == {"a"}
        journal.append("c", {"text": "third"})
    assert read_journal(path).keys() == {"a", "c"}


def test_damage_in_the_middle_costs_its_own_line_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"key":"a","n":1}\n\xff\xfe{{{\n[1]\n{"n":3}\n' + b"[" * 70_000 + b'\n{"key":"b","n":2}\n')
    said: list[str] = []
    with open_journal(path, said.append) as journal:
        assert journal.entries == {"a": {"n": 1}, "b": {"n": 2}}
    assert said == [f"{path}: 4 lines cannot be read; their answers are requested again"]
    assert read_journal(path) == {"a": {"n": 1}, "b": {"n": 2}}


def test_no_flipped_bit_gives_another_answer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as journal:
        for number in range(3):
            journal.append(f"key {number}", {"text": f"answer {number}"})
        written = dict(journal.entries)
    content = path.read_bytes()
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        found = read_journal(path)
        assert found == {key: written.get(key) for key in found}, place
        assert len(found) >= 1


def test_lines_without_a_checksum_are_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"key":"a","n":1}\n')
    with open_journal(path) as journal:
        journal.append("b", {"n": 2})
    assert read_journal(path) == {"a": {"n": 1}, "b": {"n": 2}}


def start_writer(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


def test_who_is_killed_loses_nothing_that_was_said_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    confirmed = -1
    for _ in range(3):
        writer = start_writer(path)
        assert writer.stdout is not None
        target = confirmed + 40
        while confirmed < target:
            confirmed = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        confirmed = max([confirmed, *map(int, writer.stdout.read().split())])
        writer.wait()
        entries = read_journal(path)
        assert len(entries) in {confirmed + 1, confirmed + 2}, "the last one may not have been confirmed any more"
        assert all(len(entry["text"]) == 5000 for entry in entries.values())
    assert [json.loads(line)["number"] for line in path.read_bytes().split(b"\n")[:40]] == list(range(40))


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = start_writer(path)
    assert writer.stdout is not None
    writer.stdout.readline()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        writer.kill()

    with open_journal(path, say) as journal:
        assert writer.wait(timeout=30) == -signal.SIGKILL
        assert journal.entries
    assert said == [f"waiting for another run that is writing to {path}"]


def test_a_full_disk_is_said_and_leaves_whole_lines(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from gradsim.text_generation.journal import JournalError, open_journal
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with open_journal(Path(sys.argv[1])) as journal:
        for number in range(100):
            journal.append(str(number), {"text": "x" * 90})
except JournalError as error:
    print(error)
"""
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be used (File too large); make room")
    entries = read_journal(path)
    assert 5 < len(entries) < 12
    assert path.read_bytes().endswith(b"\n")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be used"), open_journal(tmp_path / "file" / "journal.jsonl"):
        pass


def test_lines_reach_the_disk_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("gradsim.text_generation.journal.os.fsync", synced.append)
    with open_journal(tmp_path / "journal.jsonl") as journal:
        for number in range(200):
            journal.append(str(number), {})
        end = time.monotonic() + 20
        while not synced and time.monotonic() < end:
            time.sleep(0.01)
        assert 1 <= len(synced) < 20, "many lines at once"
    assert len(synced) >= 2, "and what is left in the end"


def test_lines_that_do_not_reach_the_disk_are_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    path = tmp_path / "journal.jsonl"
    with pytest.raises(JournalError, match="Disk quota exceeded"), open_journal(path) as journal:  # noqa: PT012
        monkeypatch.setattr("gradsim.text_generation.journal.os.fsync", full)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            journal.append("a", {})
            time.sleep(0.01)
    monkeypatch.undo()
