"""Terminal output: the console, and human-readable numbers."""

import math
from collections.abc import Sequence

from rich.console import Console

console = Console(highlight=False)

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_OPERATIONS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")


def bytes_text(count: float) -> str:
    """Return, for example, `3.2 GiB`."""
    return _scaled(count, 1024, _BYTES)


def operations_text(count: float) -> str:
    """Return, for example, `12 TFLOP`, a number of operations (not a rate)."""
    return _scaled(count, 1000, _OPERATIONS)


def seconds_text(seconds: float) -> str:
    """Return, for example, `0.4 s`, `25 s`, `3 min 20 s` or `14 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    """Return a number with its unit, to three significant digits (3.21, 32.1, 321); a whole number in the base unit."""
    power = min(int(math.log(count, base)), len(units) - 1) if count >= 1 else 0
    # A value that would round up to the base takes the next unit.
    if power + 1 < len(units) and round(count / base**power) >= base:
        power += 1
    value = count / base**power
    digits = 0 if power == 0 else max(0, 2 - int(math.log10(max(value, 1))))
    return f"{value:,.{digits}f} {units[power]}"
