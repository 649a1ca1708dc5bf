"""Numbers as a person reads them, and tables of any number of columns."""

import pytest
from rich.table import Table

from gradsim_assets.terminal import bytes_text, console, heading, operations_text, print_in_parts, seconds_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.00 KiB"),
        (1024**2 - 1, "1.00 MiB"),
        (12.34 * 1024**3, "12.3 GiB"),
        (123.4 * 1024**3, "123 GiB"),
        (1000 * 1024**3, "1,000 GiB"),
        (5000 * 1024**5, "5,000 PiB"),
    ],
)
def test_bytes(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(("count", "text"), [(7, "7 FLOP"), (3.14159e12, "3.14 TFLOP"), (999.7e9, "1.00 TFLOP")])
def test_operations(count, text):
    assert operations_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 0 min"),
        (50_700, "14 h 5 min"),
        (4e6, "1,111 h 7 min"),
    ],
)
def test_seconds(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize("digits", [1, 3, 9, 20])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_tables_in_parts_cut_nothing(capsys, monkeypatch, digits, count):
    numbers = [str(column) * digits for column in range(1, count + 1)]

    def build(columns):
        table = Table("name of the row", *columns)
        table.add_row("a", *columns)
        return table

    monkeypatch.setattr(console, "width", 80)
    print_in_parts(build, numbers)
    said = capsys.readouterr().out
    words = [word for line in said.splitlines() for word in line.split() if word.isdecimal()]
    assert sorted(words) == sorted([*numbers, *numbers])
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("name of the row") == (1 if digits * count + 3 * count + 19 <= 80 else said.count(" a "))


def test_long_names_become_narrow_headings():
    assert heading("word_dropout").splitlines() == ["word_", "dropout"]
    assert heading("paraphrased").splitlines() == ["paraphrased"]
