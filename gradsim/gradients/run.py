"""Executing a plan: captures samples, compares pairs, hands tiles out."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from gradsim.gradients.arithmetic import plain_arithmetic
from gradsim.gradients.capture import (
    BadLossError,
    GradientCapture,
    bad_gradient,
    no_label,
)
from gradsim.gradients.check import Probe, probe
from gradsim.gradients.encoding import Nodes
from gradsim.gradients.held import Held, dots, hold
from gradsim.gradients.memory import default_budget
from gradsim.gradients.plan import Plan, make_plan
from gradsim.gradients.precision import running_in
from gradsim.gradients.projection import Projection
from gradsim.gradients.results import Comparison, Tile
from gradsim.gradients.rules.terms import LayerTerms
from gradsim.gradients.schedule import Capture, Compare, EndBlock, Evict, Task
from gradsim.gradients.sizes import (
    Lengths,
    fastest_forms,
    layer_shapes,
    pass_bytes,
    sample_bytes,
    smallest_forms,
)
from gradsim.gradients.tiles import TileBuilder, put_together

Integers = NDArray[np.int64]
Progress = Callable[[int, int], None]

# A sample with fewer unmasked labels than this says little about whether the rules hold.
_TELLING_LABELS = 8


@dataclass(frozen=True)
class Request:
    """What `compare` was asked, checked."""

    model: PreTrainedModel
    dtype: torch.dtype
    nodes: Nodes
    pairs: Integers
    projections: Sequence[Projection]
    vocabulary: int
    memory_budget: int | None
    progress: Progress | None
    exclude_bad: bool


class ComparisonTiles(Iterator[Tile]):
    """The tiles of one comparison, to be taken once.

    Attributes:
        layers: names of the layers, in model order.
        plan: the prediction; None until the first tile is taken.
        passes: forward and backward passes so far.
        peak_bytes: most bytes of captured gradients that were held at once so far.
    """

    def __init__(self, request: Request) -> None:
        parameters = dict(request.model.named_parameters())
        self.layers = list(parameters)
        self.plan: Plan | None = None
        self.passes = 0
        self.peak_bytes = 0
        self._request = request
        self._device = next(iter(parameters.values())).device
        self._samples = request.nodes.samples
        self._pairs = request.nodes.of_pairs(request.pairs)
        self._builder = TileBuilder(
            request.nodes, [projection.name for projection in request.projections], len(self.layers)
        )
        self._held: dict[int, Held] = {}
        self._held_bytes = 0
        self._seen: set[int] = set()
        """Nodes whose self dots are known."""
        self._bad: set[int] = set()
        for node, sample in enumerate(self._samples):
            if len(sample.positions) == 0:
                self._exclude(node, no_label(sample))
        self._tiles = self._run()

    def __next__(self) -> Tile:
        return next(self._tiles)

    def close(self) -> None:
        """End before the last tile; the model comes back as it was."""
        self._tiles.close()

    @property
    def bad_queries(self) -> list[int]:
        """Positions of the queries that were excluded so far, ascending."""
        return self._positions_of_bad(self._request.nodes.queries)

    @property
    def bad_originals(self) -> list[int]:
        """Positions of the originals that were excluded so far, ascending."""
        return self._positions_of_bad(self._request.nodes.originals)

    def _positions_of_bad(self, group: Integers) -> list[int]:
        return [position for position, node in enumerate(group.tolist()) if node in self._bad]

    def together(self) -> Comparison:
        """All tiles as one result."""
        request = self._request
        queries, originals = request.nodes.queries, request.nodes.originals
        counts = (len(request.pairs), len(queries), len(originals))
        exact, projected = put_together(
            self, counts, len(self.layers), [projection.name for projection in request.projections]
        )
        assert self.plan is not None
        return Comparison(
            layers=self.layers,
            dots=exact.dots,
            query_self_dots=exact.query_self_dots,
            original_self_dots=exact.original_self_dots,
            projected=projected,
            bad_queries=self.bad_queries,
            bad_originals=self.bad_originals,
            plan=self.plan,
            passes=self.passes,
            peak_bytes=self.peak_bytes,
        )

    def _run(self) -> Generator[Tile]:
        request = self._request
        with running_in(request.model, request.dtype):
            probed = self._probe()
            by_autograd = probed.by_autograd if probed else ()
            with GradientCapture(request.model, by_autograd) as capture:
                self.plan = self._make_plan(capture, probed)
                yield from self._execute(self.plan, capture, probed)
        yield self._builder.build(len(request.nodes.queries))

    def _probe(self) -> Probe | None:
        """The check of the rules on the shortest sample that is telling and good; None if all are bad."""
        nodes = [node for node in np.unique(self._pairs).tolist() if node not in self._bad]
        for node in sorted(nodes, key=self._probe_order):
            self.passes += 1
            try:
                with plain_arithmetic(self._device):
                    return probe(self._request.model, node, self._samples[node])
            except BadLossError as error:
                self._exclude(node, error)
        return None

    def _probe_order(self, node: int) -> tuple[bool, int]:
        sample = self._samples[node]
        return len(sample.positions) < _TELLING_LABELS, len(sample.tokens)

    def _make_plan(self, capture: GradientCapture, probed: Probe | None) -> Plan:
        request = self._request
        itemsize = request.dtype.itemsize
        lengths = Lengths.of(self._samples)
        shapes = layer_shapes(request.model, capture, probed.rows_per_token if probed else {})
        positions, pairs = self._pairs_to_run()
        forms = (
            fastest_forms(shapes, lengths, pairs, projected=bool(request.projections)),
            smallest_forms(shapes, lengths, itemsize),
        )
        vectors = sum(p.projected_elements for p in request.projections) * itemsize
        ways = [
            Task(
                pairs=pairs,
                positions=positions,
                queries=request.pairs[positions, 0],
                n_queries=len(request.nodes.queries),
                sizes=sample_bytes(shapes, lengths, form, itemsize) + vectors,
                first=probed.node if probed else None,
            )
            for form in forms
        ]
        budget = request.memory_budget
        if budget is None:
            longest = int(lengths.tokens.max(initial=0))
            working = pass_bytes(shapes, longest, request.vocabulary, itemsize)
            layouts = sum(projection.layout_bytes for projection in request.projections)
            budget = default_budget(self._device, working + layouts)
        return make_plan(list(zip(ways, forms, strict=True)), budget)

    def _pairs_to_run(self) -> tuple[Integers, Integers]:
        """Positions and nodes of the pairs to run: those with a good sample, which stands in for a bad partner."""
        bad = np.isin(self._pairs, sorted(self._bad))
        positions = np.flatnonzero(~bad.all(axis=1))
        nodes = np.where(bad, self._pairs[:, ::-1], self._pairs)
        return positions, nodes[positions]

    def _execute(self, plan: Plan, capture: GradientCapture, probed: Probe | None) -> Generator[Tile]:
        self._add_not_run(plan)
        captures = queries_done = 0
        for step in plan.steps():
            match step:
                case Capture(node):
                    # The plan begins with the probed sample, whose terms are there already.
                    terms = probed.terms if probed else self._captured(node, capture)
                    probed = None
                    if terms is not None:
                        self._hold(node, terms, plan)
                    captures += 1
                    if self._request.progress:
                        self._request.progress(captures, plan.passes)
                case Compare(_, pairs):
                    self._compare(pairs)
                case Evict(node):
                    self._evict(node)
                case EndBlock(done):
                    queries_done = done
            if self._builder.is_full:
                yield self._builder.build(queries_done)

    def _captured(self, node: int, capture: GradientCapture) -> list[LayerTerms] | None:
        """The terms of a sample; None if it is bad."""
        if node in self._bad:
            return None
        self.passes += 1
        try:
            with plain_arithmetic(self._device):
                return capture(self._samples[node])
        except BadLossError as error:
            self._exclude(node, error)
            return None

    def _hold(self, node: int, terms: list[LayerTerms], plan: Plan) -> None:
        with plain_arithmetic(self._device), torch.no_grad():
            held = hold(terms, plan.forms[node].tolist(), self._request.projections, self.layers)
            if node not in self._seen:
                self_dots = dots(held, held, self._device)
                finite = torch.isfinite(self_dots[0])
                if not finite.all():
                    layer = self.layers[int(torch.nonzero(~finite)[0])]
                    self._exclude(node, bad_gradient(self._samples[node], layer))
                    return
                self._seen.add(node)
                self._builder.add_self(node, self_dots)
        self._held[node] = held
        self._held_bytes += held.nbytes
        self.peak_bytes = max(self.peak_bytes, self._held_bytes)

    def _evict(self, node: int) -> None:
        if node not in self._bad:
            self._held_bytes -= self._held.pop(node).nbytes

    def _compare(self, pairs: Integers) -> None:
        values = []
        with plain_arithmetic(self._device), torch.no_grad():
            for query, original in self._pairs[pairs].tolist():
                if query in self._bad or original in self._bad:
                    values.append(self._not_a_number())
                else:
                    values.append(dots(self._held[query], self._held[original], self._device))
        self._builder.add_pairs(pairs, values)

    def _exclude(self, node: int, error: BadLossError) -> None:
        """Count a sample as bad, or raise its error."""
        if not self._request.exclude_bad:
            raise error
        self._bad.add(node)
        if np.any(self._pairs == node):
            self._builder.add_self(node, self._not_a_number())

    def _add_not_run(self, plan: Plan) -> None:
        positions = np.setdiff1d(np.arange(len(self._pairs)), plan.task.positions)
        self._builder.add_pairs(positions, [self._not_a_number()] * len(positions))

    def _not_a_number(self) -> Tensor:
        shape = (1 + len(self._request.projections), len(self.layers))
        return torch.full(shape, torch.nan, dtype=torch.float64, device=self._device)
