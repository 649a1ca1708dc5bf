"""Numbers as a person reads them."""

import pytest

from gradsim_assets.terminal import bytes_text, operations_text, seconds_text


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
