"""Terminal output: the console, tables and notes that fit it, and human-readable numbers."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(highlight=False)

Column = TypeVar("Column")

# Longer names in headings are broken at underscores.
_HEADING_WIDTH = 11

_UNLIMITED = 1_000_000

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_OPERATIONS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")


def print_in_parts(build: Callable[[Sequence[Column]], Table], columns: Sequence[Column]) -> None:
    """Print the table that `build` makes of these columns; if it is too wide, print parts with fewer columns each."""
    wide = console.options.update(max_width=_UNLIMITED)
    count = len(columns)
    while count > 1 and console.measure(build(columns[:count]), options=wide).maximum > console.width:
        count -= 1
    console.print(build(columns[:count]))
    if columns[count:]:
        print_in_parts(build, columns[count:])


def heading(name: str) -> str:
    """Return a name as the heading of a column of numbers."""
    return name if len(name) <= _HEADING_WIDTH else name.replace("_", "_\n")


def print_note(note: str) -> None:
    """Print a note as an item of a list."""
    line = Table.grid(padding=(0, 1))
    line.add_column(width=3, justify="right")
    line.add_column(overflow="fold")
    line.add_row("-", escape(note))
    console.print(line)


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
