"""Compare gradsim and its installed peers with autograd in float64, for every case and structure (some minutes).

python benchmarks/peers/check.py                                # print the matrix
python benchmarks/peers/check.py --write docs/conformance.md    # and write the page
"""

import argparse
import copy
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

# The tests and engine.py import these modules as parts of `peers`, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers.cases import CASES, Case, structures, with_adapter
from peers.conformance_page import Row, matrix, write_page
from peers.disagreement import EXACT, Answer, Cell, Floats, Reference, autograd_reference, by_structure, disagreement
from peers.registry import PEERS, Peer, PeerError, run, write_input
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from gradsim.gradients import FallbackWarning, compare

TOLERANCES = {"float32": EXACT, "float64": 1e-10}
PADS_ITSELF = "takes samples without padding, and pads its batches on the right"
Cells = dict[str, Cell]


@dataclass(frozen=True)
class Dots:
    """gradsim's answer: (queries, originals, layers) inner products."""

    layers: list[str]
    dots: Floats


@dataclass(frozen=True)
class Problem:
    """A case with its model, the correct dots, and the layers of each structure of the model."""

    case: Case
    model: PreTrainedModel
    reference: Reference
    structures: dict[str, list[str]]

    @classmethod
    def of(cls, case: Case) -> "Problem":
        model = case.model()
        layers = structures(model)
        in_float64 = copy.deepcopy(model).double()
        reference = autograd_reference(in_float64, case.queries, case.originals, list(layers))
        return cls(case, model, reference, by_structure(layers))

    def cells(self, answer: Answer, tolerance: float) -> Cells:
        """Return the result of an answer for each structure."""
        found = disagreement(answer, self.reference)
        return {structure: found.cell(layers, tolerance) for structure, layers in self.structures.items()}

    def everywhere(self, cell: Cell) -> Cells:
        """Return the same result for each structure."""
        return dict.fromkeys(self.structures, cell)


def main() -> None:
    """Print the matrix, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the results as a Markdown page")
    arguments = parser.parse_args()
    disable_progress_bar()
    warnings.simplefilter("ignore", FallbackWarning)
    rows = [row for case in CASES for row in rows_of(case)]
    print(matrix(rows))
    if arguments.write:
        write_page(arguments.write, rows)


def rows_of(case: Case) -> list[Row]:
    """Return a row for each structure, with a cell for each package."""
    problem = Problem.of(case)
    columns = {f"gradsim {precision}": gradsim_cells(problem, precision) for precision in TOLERANCES}
    with tempfile.TemporaryDirectory() as folder:
        write_input(Path(folder), case.base_model(), case.queries, case.originals, padding=case.padding)
        if case.has_adapter:
            with_adapter(case.base_model()).save_pretrained(f"{folder}/adapter")
        columns |= {f"{peer.name} {peer.version}": peer_cells(problem, peer, Path(folder)) for peer in PEERS}
    return [
        Row(case.name, structure, len(layers), {package: cells[structure] for package, cells in columns.items()})
        for structure, layers in problem.structures.items()
    ]


def gradsim_cells(problem: Problem, precision: str) -> Cells:
    """Return gradsim's results for each structure."""
    case = problem.case
    if case.padding == "left":
        return problem.everywhere(Cell("not run", reason=PADS_ITSELF))
    result = compare(
        problem.model,
        case.queries,
        case.originals,
        "all",
        layers=problem.reference.layers,
        precision=precision,
        on_bad_sample="exclude",
    )
    dots = result.dots.reshape(problem.reference.dots.shape)
    return problem.cells(Dots(result.layers, dots), TOLERANCES[precision])


def peer_cells(problem: Problem, peer: Peer, folder: Path) -> Cells:
    """Return a peer's results for each structure, from the input in `folder`; a failure is a result."""
    if peer.environment_python() is None:
        return problem.everywhere(Cell("not installed", reason="its environment does not exist"))
    if problem.case.padding == "left" and peer.pads:
        return problem.everywhere(Cell("not run", reason=PADS_ITSELF))
    try:
        answer = run(peer, folder, repeat=1, threads=1)
    except PeerError as error:
        print(f"{problem.case.name}: {error}", file=sys.stderr)
        return problem.everywhere(Cell("failed", reason=str(error).splitlines()[-1]))
    cells = problem.cells(answer, EXACT)
    return {structure: _explained(cell, structure, peer) for structure, cell in cells.items()}


def _explained(cell: Cell, structure: str, peer: Peer) -> Cell:
    """Return the cell with what is known about the peer as its reason."""
    if cell.outcome == "missing":
        return replace(cell, reason=peer.covers)
    if cell.outcome == "wrong" and structure == "tied embedding":
        return replace(cell, reason=peer.tied)
    return cell


if __name__ == "__main__":
    main()
