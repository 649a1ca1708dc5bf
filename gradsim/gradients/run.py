"""Plan execution: captures samples, compares pairs, yields tiles."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from gradsim.gradients.capture.bad_samples import BadSampleError, bad_gradient, bad_loss, no_label
from gradsim.gradients.capture.capture import GradientCapture, own_gradients
from gradsim.gradients.capture.check import Probe, probe, require_room
from gradsim.gradients.capture.copies import NotSeparableError
from gradsim.gradients.capture.eager import uncompiled_modules
from gradsim.gradients.capture.encoding import Encoded, Nodes
from gradsim.gradients.capture.layers import model_layers
from gradsim.gradients.capture.memory import default_budget, freed_memory_kept, says_out_of_memory
from gradsim.gradients.capture.precision import MEMORISED, Precision, plain_arithmetic, running_in
from gradsim.gradients.held.holder import Holder
from gradsim.gradients.planning.alternatives import PairsToRun
from gradsim.gradients.planning.plan import Plan
from gradsim.gradients.planning.plan_check import PlanCheck, warn_of_slower_way
from gradsim.gradients.planning.prediction import plan_comparison
from gradsim.gradients.planning.schedule import Capture, Compare, Drop, EndBlock, Evict, Restore, Spill, Step
from gradsim.gradients.planning.sizes import Lengths
from gradsim.gradients.projection import ModelProjection
from gradsim.gradients.results import Comparison, Tile
from gradsim.gradients.tiles import TileBuilder, put_together

Integers = NDArray[np.int64]
Progress = Callable[[int, int], None]

# Number of distinct labels beyond which a sample tests the rules no better.
_TELLING_LABELS = 8


@dataclass(frozen=True)
class ComparisonRequest:
    """Validated arguments of `compare`."""

    model: PreTrainedModel
    layers: Sequence[str]
    """Names of the layers to compare, in model order."""
    precision: Precision
    nodes: Nodes
    pairs: Integers
    projections: Sequence[ModelProjection]
    memory_budget: int | None
    progress: Progress | None
    exclude_bad: bool
    rerun_memorised: bool
    """Whether to rerun samples with a mean loss below `MEMORISED` in float64."""


class ComparisonTiles(Iterator[Tile]):
    """Single-use iterator over the tiles of one comparison.

    Attributes:
        layers: layer names, in model order.
        plan: plan of the run; None until the first tile is requested.
        noise: layers with only rounding noise as gradient, in model order; set before the first tile.
        memorised: number of samples rerun in float64 so far.
        passes: number of single-sample forward and backward passes so far.
        peak_bytes: peak size of the captured gradients so far, in bytes.
        memory_retries: number of times that memory ran out and the rest was replanned with half of it.
        seconds: time spent on captures and comparisons so far.
        check_seconds: time spent on checking the rules and the plan.
    """

    def __init__(self, request: ComparisonRequest) -> None:
        parameters = model_layers(request.model, request.layers)
        self.layers = list(parameters)
        self.plan: Plan | None = None
        self.noise: list[str] = []
        self.memorised = 0
        self.passes = 0
        self.peak_bytes = 0
        self.memory_retries = 0
        self.seconds = 0.0
        self.check_seconds = 0.0
        self._request = request
        self._device = next(iter(parameters.values())).device
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._samples = request.nodes.samples
        self._pairs = request.nodes.of_pairs(request.pairs)
        self._builder = TileBuilder(
            request.nodes, [projection.name for projection in request.projections], len(self.layers)
        )
        self._compared = np.zeros(len(self._pairs), dtype=bool)
        self._seen: set[int] = set()
        """Nodes with known self dots."""
        self._bad: set[int] = set()
        for node, sample in enumerate(self._samples):
            if len(sample.positions) == 0:
                self._exclude(node, no_label(sample))
        self._tiles = self._run()

    def __next__(self) -> Tile:
        started, checked = time.perf_counter(), self.check_seconds
        try:
            return next(self._tiles)
        finally:
            self.seconds += time.perf_counter() - started - (self.check_seconds - checked)

    def close(self) -> None:
        """Stop before the last tile and restore the model."""
        self._tiles.close()

    @property
    def bad_queries(self) -> list[int]:
        """Positions of the queries excluded so far, ascending."""
        return self._positions_of_bad(self._request.nodes.queries)

    @property
    def bad_originals(self) -> list[int]:
        """Positions of the originals excluded so far, ascending."""
        return self._positions_of_bad(self._request.nodes.originals)

    def _positions_of_bad(self, group: Integers) -> list[int]:
        return [position for position, node in enumerate(group.tolist()) if node in self._bad]

    def together(self) -> Comparison:
        """Consume all tiles and return them as one `Comparison`."""
        request = self._request
        queries, originals = request.nodes.queries, request.nodes.originals
        counts = (len(request.pairs), len(queries), len(originals))
        whole = put_together(self, counts, len(self.layers), [projection.name for projection in request.projections])
        assert self.plan is not None
        return Comparison(
            layers=self.layers,
            dots=whole.exact.dots,
            query_self_dots=whole.exact.query_self_dots,
            original_self_dots=whole.exact.original_self_dots,
            query_losses=whole.query_losses,
            original_losses=whole.original_losses,
            projected=whole.projected,
            noise=self.noise,
            memorised=self.memorised,
            bad_queries=self.bad_queries,
            bad_originals=self.bad_originals,
            plan=self.plan,
            passes=self.passes,
            peak_bytes=self.peak_bytes,
            memory_retries=self.memory_retries,
        )

    def _run(self) -> Generator[Tile]:
        request = self._request
        # Set the caller's gradients aside before the cast and restore them after it: their dtype may differ.
        with (
            freed_memory_kept(self._device),
            uncompiled_modules(request.model),
            own_gradients(list(request.model.parameters())),
            running_in(request.model, request.precision.dtype),
        ):
            budget = default_budget(self._device) if request.memory_budget is None else request.memory_budget
            require_room(list(model_layers(request.model, self.layers).values()), budget)
            started = time.perf_counter()
            with plain_arithmetic(self._device):
                probed = probe(request.model, self._telling_samples(), self.layers)
            self.check_seconds = time.perf_counter() - started
            self.noise = probed.noise
            with GradientCapture(request.model, probed.by_autograd, self.layers) as capture:
                yield from self._until_done(capture, probed, budget)
        yield self._builder.build(len(request.nodes.queries))

    def _telling_samples(self) -> list[Encoded]:
        """Return the good samples, starting with those that test the rules best: the most distinct labels first."""
        nodes = [node for node in np.unique(self._pairs).tolist() if node not in self._bad]
        samples = [self._samples[node] for node in nodes]

        def different_labels(sample: Encoded) -> int:
            return min(_TELLING_LABELS, len(set(sample.targets[-4 * _TELLING_LABELS :].tolist())))

        return sorted(samples, key=different_labels, reverse=True)

    def _until_done(self, capture: GradientCapture, probed: Probe, budget: int) -> Generator[Tile]:
        """Plan and execute the remaining pairs until all are done, halving the budget whenever memory runs out."""
        check = PlanCheck(self._request.model, capture, self._samples)
        while True:
            plan = self._make_plan(capture, probed, budget)
            try:
                if slower := self._slower_way(check, capture, plan, probed, budget):
                    probed = slower
                    continue
                self.plan = self.plan or plan
                yield from self._execute(plan, capture, probed)
            except NotSeparableError as error:
                if not probed.separable:
                    raise
                warn_of_slower_way(
                    f"samples of this model cannot be separated in a batch ({error}), so each sample runs alone"
                )
                probed = replace(probed, separable=False)
            except RuntimeError as error:
                if not says_out_of_memory(error):
                    raise
                self.memory_retries += 1
                budget = (plan.peak_bytes + plan.working_bytes) // 2
            else:
                return
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _slower_way(
        self, check: PlanCheck, capture: GradientCapture, plan: Plan, probed: Probe, budget: int
    ) -> Probe | None:
        """Check the plan and return the probe of a slower alternative, or None if the plan holds.

        Runs a bfloat16 model in float32 if memory allows, because bfloat16 hides errors below its own rounding.
        """
        started = time.perf_counter()
        copy = torch.float32.itemsize * sum(parameter.numel() for parameter in capture.parameters)
        has_room = copy + 2 * plan.working_bytes <= budget
        widens = self._request.precision.dtype == torch.bfloat16 and has_room
        with plain_arithmetic(self._device), capture.running_in(torch.float32) if widens else nullcontext():
            slower = check.slower_way(plan, probed)
        self.check_seconds += time.perf_counter() - started
        return slower

    def _make_plan(self, capture: GradientCapture, probed: Probe, budget: int) -> Plan:
        request = self._request
        positions, pairs = self._pairs_to_run()
        return plan_comparison(
            PairsToRun(
                Lengths.of(self._samples), pairs, positions, request.pairs[positions, 0], len(request.nodes.queries)
            ),
            request.model,
            capture,
            probed,
            request.projections,
            request.precision,
            memory_budget=budget,
            batch_share=0.5**self.memory_retries,
            rerun_memorised=request.rerun_memorised,
        )

    def _pairs_to_run(self) -> tuple[Integers, Integers]:
        """Return the positions and nodes of the remaining pairs with at least one good sample.

        The good sample replaces a bad partner, so that its self dots are still computed.
        """
        bad = np.isin(self._pairs, sorted(self._bad))
        positions = np.flatnonzero(~bad.all(axis=1) & ~self._compared)
        nodes = np.where(bad, self._pairs[:, ::-1], self._pairs)
        return positions, nodes[positions]

    def _execute(self, plan: Plan, capture: GradientCapture, probed: Probe) -> Generator[Tile]:
        self._add_not_run()
        request = self._request
        with plain_arithmetic(self._device):
            holder = Holder(
                self._shapes,
                plan.built.tolist(),
                request.projections,
                plan.alternative.by_term,
                plan.cost.most_held,
                request.precision.dtype,
                self._device,
            )
        queries_done = done = 0
        if request.progress:
            request.progress(done, plan.passes)
        for step in plan.steps():
            match step:
                case Capture(nodes):
                    self._capture(nodes, holder, capture, self._needs_checkpoint(nodes, plan, probed))
                    done += len(nodes)
                    if request.progress:
                        request.progress(done, plan.passes)
                case Compare(pairs):
                    self._compare(pairs, holder)
                case EndBlock(position):
                    queries_done = position
                case _:
                    self._move(step, holder)
            if self._builder.is_full:
                yield self._builder.build(queries_done)

    def _move(self, step: Step, holder: Holder) -> None:
        """Execute a step that only moves gradients, skipping bad samples."""
        match step:
            case Restore(nodes):
                for node in nodes:
                    if node not in self._bad:
                        holder.restore(node)
                self.peak_bytes = max(self.peak_bytes, holder.nbytes)
            case Spill(node) if node in holder:
                holder.spill(node)
            case Drop(node) if node in holder:
                holder.drop(node)
            case Evict(node) if node in holder:
                holder.forget(node)

    def _needs_checkpoint(self, nodes: Sequence[int], plan: Plan, probed: Probe) -> bool:
        longest = max(len(self._samples[node].tokens) for node in nodes)
        return plan.checkpoint and probed.profile.nbytes(len(nodes), longest) > plan.working_bytes

    def _capture(self, nodes: Sequence[int], holder: Holder, capture: GradientCapture, checkpoint: bool) -> None:
        """Run samples and hold the good ones.

        If a batch contains a bad sample, rerun each of its samples alone to identify the bad one.
        """
        nodes = [node for node in nodes if node not in self._bad]
        if not nodes:
            return
        losses, self_dots = self._run_batch(nodes, holder, capture, checkpoint)
        layer_is_finite = np.isfinite(self_dots[:, 0].cpu().numpy())
        if len(nodes) > 1 and not (np.isfinite(losses).all() and layer_is_finite.all()):
            for node in nodes:
                holder.drop(node)
            for node in nodes:
                self._capture([node], holder, capture, checkpoint)
            return
        for node, loss, finite, dots in zip(nodes, losses, layer_is_finite, self_dots, strict=True):
            error = None
            if not np.isfinite(loss):
                error = bad_loss(self._samples[node], loss)
            elif not finite.all():
                error = bad_gradient(self._samples[node], self.layers[int(np.argmin(finite))])
            if error:
                holder.drop(node)
                self._exclude(node, error)
            elif self._request.rerun_memorised and loss < MEMORISED:
                self._rerun(node, holder, capture, checkpoint)
            else:
                self._add_self(node, dots, loss)

    def _add_self(self, node: int, dots: Tensor, loss: float) -> None:
        if node not in self._seen:
            self._seen.add(node)
            self._builder.add_self(node, dots, float(loss))

    def _rerun(self, node: int, holder: Holder, capture: GradientCapture, checkpoint: bool) -> None:
        """Rerun a memorised sample in float64 and hold its gradient, rounded from float64."""
        holder.drop(node)
        with capture.running_in(torch.float64):
            losses, self_dots = self._run_batch([node], holder, capture, checkpoint)
        self.memorised += node not in self._seen
        self._add_self(node, self_dots[0], losses[0])

    def _run_batch(
        self, nodes: Sequence[int], holder: Holder, capture: GradientCapture, checkpoint: bool
    ) -> tuple[NDArray[np.float64], Tensor]:
        """Run a batch, hold its samples, and return their losses and self dots."""
        holder.open(nodes)
        with plain_arithmetic(self._device, self._request.precision.products):
            losses = capture.run(
                [self._samples[node] for node in nodes],
                lambda layer, member, term: holder.take(nodes[member], layer, term),
                checkpoint=checkpoint,
            )
        self.passes += len(nodes)
        with plain_arithmetic(self._device), torch.no_grad():
            self_dots = holder.close(nodes)
        self.peak_bytes = max(self.peak_bytes, holder.nbytes)
        return losses, self_dots

    def _compare(self, positions: Integers, holder: Holder) -> None:
        pairs = self._pairs[positions]
        good = ~np.isin(pairs, sorted(self._bad)).any(axis=1)
        self._builder.add_pairs(positions[~good], self._not_a_number(int((~good).sum())))
        if good.any():
            wanted = pairs[good]
            with plain_arithmetic(self._device), torch.no_grad():
                values = holder.dots(np.unique(wanted[:, 0]).tolist(), np.unique(wanted[:, 1]).tolist(), wanted)
            self._builder.add_pairs(positions[good], values)
        self._compared[positions] = True

    def _exclude(self, node: int, error: BadSampleError) -> None:
        """Mark a sample as bad, or raise its error if bad samples are not excluded."""
        if not self._request.exclude_bad:
            raise error
        self._bad.add(node)
        if np.any(self._pairs == node):
            self._builder.add_self(node, self._not_a_number(1)[0], np.nan)

    def _add_not_run(self) -> None:
        """Add NaN for the pairs of two bad samples."""
        positions = np.flatnonzero(np.isin(self._pairs, sorted(self._bad)).all(axis=1) & ~self._compared)
        self._builder.add_pairs(positions, self._not_a_number(len(positions)))
        self._compared[positions] = True

    def _not_a_number(self, count: int) -> Tensor:
        shape = (count, 1 + len(self._request.projections), len(self.layers))
        return torch.full(shape, torch.nan, dtype=torch.float64, device=self._device)
