"""Write the page of model types from the findings of `families.py`."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from measuring import Row

# Summary rows, in this order.
MEANINGS = {
    "rules": "exact, every layer by a rule",
    "autograd": "exact, some layers by autograd",
    "ill-conditioned": "error above 1e-5 in float32 or 1e-10 in float64, as with plain autograd",
    "refused": "refused with an error that explains why",
    "wrong": "wrong",
    "crash": "an exception other than gradsim's own, or no answer",
    "not measured": "not measured: plain autograd gives no gradient",
}
_HEADINGS = ("type", "attention", "result", "layers by autograd", "error in float32 / float64", "note")


def write_page(path: Path, findings: Sequence[Row]) -> None:
    """Write the summary and a table of all types."""
    timed = any(finding["slowdown"] for finding in findings)
    headings = [*_HEADINGS[:-1], "time", _HEADINGS[-1]] if timed else list(_HEADINGS)
    table = [_line(headings), _line(["---"] * len(headings))]
    table += [_line(_cells(finding, timed=timed)) for finding in findings]
    path.write_text("\n".join([_introduction(findings, timed=timed), *table]) + "\n", encoding="utf-8")


def _introduction(findings: Sequence[Row], *, timed: bool) -> str:
    outcomes = [finding["outcome"] for finding in findings]
    counts = [_line([meaning, str(outcomes.count(each))]) for each, meaning in MEANINGS.items() if each in outcomes]
    paragraphs = [
        f"Every causal model type of transformers {transformers.__version__} as a tiny random model on a CPU, with "
        f"torch {torch.__version__.partition('+')[0]}: `compare` on 4 queries and 5 originals of 6 to 46 tokens, "
        "against plain autograd in float64, one sample at a time. "
        "[`benchmarks/families.py`](../benchmarks/README.md) generates this page.",
        "An error is the error of an inner product relative to the product of the layer's two norms. The table shows "
        "the worst over all layers and pairs, with all free memory and with the smallest budget that `compare` "
        "accepts. A layer's norm counts as at least a millionth of the whole gradient's norm. Exact means at most 1e-5 "
        "in float32 and 1e-10 in float64. Layers by autograd are equally exact, but slower; `*` stands for any number. "
        "For some models, plain autograd in float32 itself exceeds 1e-5. If a model computes partly in float32, "
        "rounding changes float64 results by more than 1e-10. Both cases are called ill-conditioned if the engine's "
        "error is at most five times as large.",
    ]
    if timed:
        paragraphs.append(
            "Time is the time of `compare` divided by the time of plain batched training passes of the same 64 "
            "samples. With models this small, most of it is a fixed cost."
        )
    batched = sum(finding["together"] > 1 for finding in findings)
    counts.append(_line(["types for which several samples share a batch", str(batched)]))
    summary = "\n".join([_line([f"{len(findings)} types", ""]), _line(["---"] * 2), *counts])
    first, *others = (textwrap.fill(each, 120, break_long_words=False, break_on_hyphens=False) for each in paragraphs)
    return "\n\n".join(["# Model types", first, summary, *others]) + "\n"


def _cells(finding: Row, *, timed: bool) -> list[str]:
    notes = [f"{_runs(runs)}{note}" for note, runs in finding["notes"].items()]
    if finding["together"] == 1:
        notes.append("one sample at a time")
    errors = [finding["errors"].get(precision) for precision in ("float32", "float64")]
    cells = [
        f"`{finding['type']}`",
        finding["attention"],
        {"rules": "by rules", "autograd": "partly by autograd"}.get(finding["outcome"], finding["outcome"]),
        "<br>".join(f"`{pattern}`" for pattern in _patterns(finding["by_autograd"])),
        " / ".join("–" if error is None else f"{error:.0e}" for error in errors) if finding["errors"] else "",
    ]
    if timed:
        cells.append(f"{finding['slowdown']:.1f}" if finding["slowdown"] else "")
    return [*cells, "<br>".join(note.replace("|", "\\|") for note in notes)]


def _runs(runs: Sequence[str]) -> str:
    """Return the prefix that names the runs of a note; a precision covers its run with the least memory."""
    named = [run for run in runs if run and not any(run != other and run.startswith(other) for other in runs)]
    return f"{', '.join(named)}: " if named else ""


def _patterns(layers: Sequence[str]) -> list[str]:
    """Return layer names with `*` for block numbers, without duplicates."""
    return list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", layer) for layer in layers))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
