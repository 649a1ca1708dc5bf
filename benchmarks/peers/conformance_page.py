"""Print the conformance matrix, and write it as a page."""

import platform
import subprocess
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from peers.disagreement import Cell
from peers.registry import PEERS

_PACKAGES = ("torch", "transformers", "peft", "numpy")
_INTRODUCTION = (
    "Each row is a structure of a tiny random model: a kind of layer, with the number of its tensors. Each cell says "
    "how a package's inner products of single-sample gradients agree with plain autograd in float64, one sample at a "
    "time. [benchmarks/peers](../benchmarks/peers/README.md) describes how the packages run, and "
    "[cases.py](../benchmarks/peers/cases.py) contains the models and samples. This command generates the page:",
    "    python benchmarks/peers/check.py --write docs/conformance.md",
    "The error is the largest |dot - autograd| relative to the product of the layer's two gradient norms, over all "
    "layers of the structure and all pairs of 3 queries and 3 originals. Their lengths differ (5 to 20 tokens). The "
    "first third is masked unless the case is about labels or BOS tokens. Weights, norms and biases are random. In the "
    "peers, which compute in float32, all samples of a side share a batch; gradsim batches those of similar lengths.",
)
_OUTCOMES = {
    "pass": "the error is at most 1e-5 in float32, or 1e-10 in float64",
    "sum": "as pass, but some layers have one number for weight and bias, which is the right sum",
    "zero": "as pass, but the package returns 0 for pairs that have no right value",
    "wrong": "the error is larger",
    "missing": "the package gives no number",
    "failed": "the package stopped with an error",
    "not run": "the case does not apply to the package",
    "not installed": "the package was not installed",
}
_NOTES = (
    "A query without labels has no mean loss, so its pairs have no right value. gradsim refuses such a sample. With "
    '`on_bad_sample="exclude"`, as here, it returns NaN for its pairs. A package passes if it returns NaN for these '
    "pairs and the right values for all others. Plain autograd returns a loss of NaN and a gradient of 0.",
    "The layers of the Llama with LoRA are its trainable tensors. The base model is frozen.",
)


@dataclass(frozen=True)
class Row:
    """Results for one structure of a case's model.

    Attributes:
        case: name of the case.
        structure: name of the structure.
        layers: number of its layers.
        cells: the result of each package, by name and version or precision.
    """

    case: str
    structure: str
    layers: int
    cells: dict[str, Cell]

    @property
    def title(self) -> str:
        return f"{self.structure} ({self.layers})"


def matrix(rows: Sequence[Row]) -> str:
    """Return the matrix as text of 96 columns."""
    headings = [package.split() for package in rows[0].cells]
    lines = [_columns("", [heading[line] for heading in headings]) for line in (0, 1)]
    case = ""
    for row in rows:
        if row.case != case:
            lines.append(row.case)
        case = row.case
        lines.append(_columns(f"  {row.title}", map(str, row.cells.values())))
    return "\n".join(lines)


def write_page(path: Path, rows: Sequence[Row]) -> None:
    """Write the page: what was measured, the matrix, a reason for each result other than "pass", and versions."""
    packages = list(rows[0].cells)
    table = [_line(["case and structure", *packages]), _line(["---"] * (len(packages) + 1))]
    case = ""
    for row in rows:
        if row.case != case:
            table.append(_line([f"**{row.case}**", *[""] * len(packages)]))
        case = row.case
        table.append(_line([row.title, *map(str, row.cells.values())]))
    seen = {cell.outcome for row in rows for cell in row.cells.values()}
    outcomes = [f"- **{outcome}**: {meaning}." for outcome, meaning in _OUTCOMES.items() if outcome in seen]
    reasons = [_filled(f"- {line}", "  ") for package in packages for line in _reasons(package, rows)]
    parts = [
        "# Conformance",
        *map(_filled, _INTRODUCTION),
        "\n".join(outcomes),
        *map(_filled, _NOTES),
        "\n".join(table),
        "## Reasons",
        "\n".join(reasons),
        "## Versions",
        "\n".join(_versions()),
    ]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _reasons(package: str, rows: Sequence[Row]) -> list[str]:
    """Return a line for each outcome and reason of a package's results other than "pass", with their places."""
    places: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        cell = row.cells[package]
        if cell.outcome != "pass":
            of_reason = places.setdefault((cell.outcome, cell.reason), {})
            of_reason.setdefault(row.case, []).append(row.structure)
    return [
        f"**{package}, {outcome}:** {reason + '. ' if reason else ''}"
        + "; ".join(f"{case}: {', '.join(structures)}" for case, structures in where.items())
        + "."
        for (outcome, reason), where in places.items()
    ]


def _versions() -> list[str]:
    """Return the versions that gradsim and each installed peer ran with, one line each."""
    ours = {name: version(name) for name in ("gradsim", *_PACKAGES)}
    lines = [f"- {_list(ours)}; Python {platform.python_version()}, {platform.machine()}, CPU"]
    for peer in PEERS:
        if (python := peer.environment_python()) is not None:
            names = (peer.name, *_PACKAGES)
            code = f"from importlib.metadata import version\nfor name in {names}: print(version(name))"
            done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
            lines.append(f"- {_list(dict(zip(names, done.stdout.split(), strict=True)))}")
    return lines


def _list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number.partition('+')[0]}" for name, number in versions.items())


def _columns(title: str, cells: Iterable[str]) -> str:
    return (f"{title:26}" + "".join(f"{cell:14}" for cell in cells)).rstrip()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _filled(paragraph: str, indent: str = "") -> str:
    return textwrap.fill(paragraph, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
