"""gradsim conforms in every case of the suite that docs/conformance.md shows, and the suite finds what is wrong."""

import numpy as np
import pytest
from peers.cases import CASES, ORIGINALS, QUERIES
from peers.check import TOLERANCES, Dots, Problem, gradsim_cells

from gradsim.gradients import compare

pytestmark = pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")


@pytest.mark.parametrize("case", [case for case in CASES if case.padding == "right"], ids=lambda case: case.name)
def test_every_structure_agrees_with_autograd(case):
    problem = Problem.of(case)
    for precision in TOLERANCES:
        cells = gradsim_cells(problem, precision)
        assert {structure: str(cell) for structure, cell in cells.items() if cell.outcome != "pass"} == {}


def test_samples_of_different_lengths_share_a_batch():
    result = compare(CASES[0].model(), QUERIES, ORIGINALS, "all")
    assert result.plan.cost.batches < result.passes == 6


def test_the_suite_finds_what_is_wrong():
    problem = Problem.of(next(case for case in CASES if case.model_type == "gpt2"))
    reference = problem.reference
    dots = reference.dots.copy()
    layers = list(reference.layers)
    dots[1, 1, layers.index("transformer.wpe.weight")] *= 1.01
    weight, bias = (layers.index(f"transformer.h.0.attn.c_attn.{tensor}") for tensor in ("weight", "bias"))
    dots[:, :, weight] += dots[:, :, bias]
    layers[weight] += f" + {layers[bias]}"
    keep = [number for number, layer in enumerate(layers) if number != bias and "ln_f" not in layer]

    cells = problem.cells(Dots([layers[number] for number in keep], dots[:, :, keep]), TOLERANCES["float64"])

    assert {structure: cell.outcome for structure, cell in cells.items()} == {
        "tied embedding": "pass",
        "learned positions": "wrong",
        "norm weights": "missing",
        "norm biases": "missing",
        "Conv1D weights": "sum",
        "Conv1D biases": "sum",
    }
    assert cells["norm biases"].reason == "1 of 5 layers"


def test_a_sample_without_labels_has_no_right_number():
    problem = Problem.of(next(case for case in CASES if "without labels" in case.name))
    dots = problem.reference.dots
    assert np.isnan(dots[0]).all()
    assert np.isfinite(dots[1:]).all()

    for outcome, answer in {
        "pass": dots,
        "zero": np.nan_to_num(dots, nan=0.0),
        "wrong": np.nan_to_num(dots, nan=1.0),
        "wrong ": np.full_like(dots, np.nan),
    }.items():
        cells = problem.cells(Dots(problem.reference.layers, answer), TOLERANCES["float64"])
        assert {cell.outcome for cell in cells.values()} == {outcome.strip()}
