"""Display labels of settings, methods, controls, layers and numbers."""

import math
import re
from collections.abc import Sequence

from gradsim.analysis.controls import ANSWER_LENGTH, BM25_RANK, CHANCE, SOURCES_SHUFFLED
from gradsim.analysis.methods import BM25
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.errors import enumerated

METHODS = {FULL_GRADIENT: "full gradient", BM25: "BM25"}

CONTROLS = {
    SOURCES_SHUFFLED: "shuffled sources",
    BM25_RANK: "BM25 rank only",
    ANSWER_LENGTH: "answer length only",
    CHANCE: "chance",
}

BASELINES = {BM25: "BM25", ANSWER_LENGTH: "answer length alone"}

SMALLEST_IN_FULL = 1e-3
"""Smallest number written without a power of ten."""


def setting_label(setting: str) -> str:
    """Return a setting's label: `model_generated` -> `model-generated`."""
    return setting.replace("_", "-")


def method_label(method: str) -> str:
    """Return a method's label: `full_gradient` -> `full gradient`, `sjlt-11778048` -> `sjlt, 11.8 M dimensions`."""
    projection, _, dimension = method.rpartition("-")
    if projection and dimension.isdigit():
        return f"{projection_label(projection)}, {count(int(dimension))} dimensions"
    return METHODS.get(method, method)


def projection_label(projection: str) -> str:
    """Return a projection's label: `rademacher_as_published` -> `rademacher as published`."""
    return projection.replace("_", " ")


def control_label(control: str) -> str:
    """Return a control's label: `sources_shuffled` -> `shuffled sources`."""
    return CONTROLS.get(control, control)


def baseline_label(baseline: str) -> str:
    """Return the label of what a method is compared with: `answer_length` -> `answer length alone`."""
    return BASELINES.get(baseline, baseline)


def layer_label(layer: str) -> str:
    """Return a layer's label: `model.layers.3.mlp.up_proj.weight` -> `3.mlp.up_proj`, `lm_head.weight` -> `lm_head`."""
    name = layer.removesuffix(".weight")
    block = re.search(r"\.(\d+\..+)", name)
    if block:
        return block[1]
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-1] == "bias" else parts[-1:])


def percent(share: float) -> str:
    """Format a share as a percentage with a non-breaking space: `0.9929` -> `99.3 %`."""
    return f"{100 * share:.1f}\u00a0%"


def size_of(share: float) -> str:
    """Format a possibly small share with two digits: `0.00356` -> `0.36 %`, `3e-7` -> `3·10⁻⁵ %`."""
    size = float(f"{100 * share:.2g}")
    written = f"{size:g}" if size >= SMALLEST_IN_FULL else power_of_ten(size)
    return f"{written}\u00a0%"


def points(difference: float, decimals: int = 1) -> str:
    """Format a signed difference: `-2.87` -> `−2.9`, `2.87` -> `+2.9`."""
    return f"{difference:+.{decimals}f}".replace("-", "−")


def count(number: int) -> str:
    """Format a count with a non-breaking space: `988` -> `988`, `11_778_048` -> `11.8 M`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= 10 * size or (number >= size > 10**3):
            return f"{number / size:.3g}\u00a0{unit}"
    return str(number)


def listed(parts: Sequence[str]) -> str:
    """Join parts into an enumeration: `["a", "b", "c"]` -> `a, b and c`."""
    return enumerated(parts, "and")


def power_of_ten(number: float) -> str:
    """Format in scientific notation: `2.14e-07` -> `2.1·10⁻⁷`, `-2e-07` -> `−2·10⁻⁷`, `0` -> `0`."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}".replace("-", "−")
    if number < 0:
        return "−" + power_of_ten(-number)
    mantissa, exponent = f"{number:.1e}".split("e")
    factor = "" if mantissa == "1.0" else f"{mantissa.removesuffix('.0')}·"
    return factor + "10" + str(int(exponent)).translate(_SUPERSCRIPTS)


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
