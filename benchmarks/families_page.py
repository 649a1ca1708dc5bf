"""The page of model types, from what `families.py` found."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from measuring import Row

# In the order of the summary.
MEANINGS = {
    "rules": "exact, every layer by a rule",
    "autograd": "exact, some layers by autograd",
    "ill-conditioned": "beyond 1e-5 in float32 or 1e-10 in float64, as plain autograd is",
    "refused": "refused with an error that says why",
    "wrong": "wrong",
    "crash": "an exception that is not gradsim's own, or no answer",
    "not measured": "not measured: plain autograd gives no gradient here",
}
_HEADINGS = ("type", "attention", "how exact", "layers by autograd", "error in float32 / float64", "note")


def write_page(path: Path, findings: Sequence[Row]) -> None:
    """Write the summary and the table of all types."""
    timed = any(finding["slowdown"] for finding in findings)
    headings = [*_HEADINGS[:-1], "time", _HEADINGS[-1]] if timed else list(_HEADINGS)
    table = [_line(headings), _line(["---"] * len(headings))]
    table += [_line(_cells(finding, timed=timed)) for finding in findings]
    path.write_text("\n".join([_introduction(findings, timed=timed), *table]) + "\n", encoding="utf-8")


def _introduction(findings: Sequence[Row], *, timed: bool) -> str:
    outcomes = [finding["outcome"] for finding in findings]
    counts = [_line([meaning, str(outcomes.count(each))]) for each, meaning in MEANINGS.items() if each in outcomes]
    paragraphs = [
        f"Every causal model type of transformers {transformers.__version__} as a tiny random model, on a processor "
        f"with torch {torch.__version__.partition('+')[0]}: `compare` on 4 queries and 5 originals of 6 to 46 tokens, "
        "against plain autograd in float64, one sample at a time. "
        "[`benchmarks/families.py`](../benchmarks/README.md) writes this page.",
        "An error is that of an inner product over the product of the layer's two norms: the worst of all layers and "
        "pairs, with all the memory that is free and with the least that `compare` accepts. A layer's norm counts as "
        "at least a millionth of the whole gradient's. Exact means at most 1e-5 in float32 and 1e-10 in float64. "
        "Layers by autograd are as exact, but slower; `*` is any number. For some models plain autograd in float32 is "
        "beyond 1e-5 itself. Where a model computes partly in float32, rounding changes float64 by over 1e-10. Both "
        "are called ill-conditioned if the engine errs at most five times as much.",
    ]
    if timed:
        paragraphs.append(
            "Time is that of `compare` over that of plain batched training passes of the same 64 samples. With models "
            "this small most of it is a fixed cost."
        )
    batched = sum(finding["together"] > 1 for finding in findings)
    counts.append(_line(["of these, several samples share a batch", str(batched)]))
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
    """Name runs in front of a note; a precision alone covers that with the least memory."""
    named = [run for run in runs if run and not any(run != other and run.startswith(other) for other in runs)]
    return f"{', '.join(named)}: " if named else ""


def _patterns(layers: Sequence[str]) -> list[str]:
    """Names without the numbers of blocks, each once."""
    return list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", layer) for layer in layers))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
