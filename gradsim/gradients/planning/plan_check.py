"""Check a plan before it runs: results must not depend on the batch, on earlier calls, or on checkpointing.

The checks run a few of the plan's own batches. If an optimization changes a sample's result, the check disables it and
the caller plans again with a slower, exact method.
"""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.gradients.capture.batch import Batch
from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import FAILURES, FallbackWarning, Probe, captured_terms, terms_agree
from gradsim.gradients.capture.copies import NotSeparableError
from gradsim.gradients.capture.encoding import Encoded
from gradsim.gradients.capture.memory import says_out_of_memory
from gradsim.gradients.planning.plan import Plan
from gradsim.gradients.planning.schedule import Capture
from gradsim.gradients.rules.terms import gradient

# Relative change of a loss gradient that rounding can explain, by dtype.
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 3e-5, torch.float16: 0.3, torch.bfloat16: 0.3}

# Batch-dependent rounding can route a token of a mixture of experts to another expert. A real dependence on the batch
# changes a sample several times as much as a batch of its own copies does.
_BEYOND_ROUTING = 4


class PlanCheck:
    """Checks of one comparison's plans; a check that has passed is not repeated.

    Args:
        model: model whose gradients are compared.
        capture: active gradient capture of the model.
        samples: samples, indexed by the plan's node numbers.
    """

    def __init__(self, model: PreTrainedModel, capture: GradientCapture, samples: Sequence[Encoded]) -> None:
        self._has_experts = any("expert" in name.lower() for name, _ in model.named_modules())
        self._capture = capture
        self._samples = samples
        self._repeatable = self._checkpointing_checked = self._batches_checked = False

    def slower_way(self, plan: Plan, probed: Probe) -> Probe | None:
        """Return None if the plan computes each sample as if it ran alone, else a stricter probe to plan with.

        Raises:
            GradientError: The model is not deterministic.
        """
        # Iterating over a large schedule is slow.
        batches = [] if self._batches_checked else _captures(plan)
        if batches and not self._repeatable:
            self.require_repeatable({node for batch in batches for node in batch}, probed)
            self._repeatable = True
        if plan.checkpoint and not self._checkpointing_checked:
            if not checkpointing_holds(self._capture, probed):
                return replace(probed, profile=replace(probed.profile, blocks=0))
            self._checkpointing_checked = True
        if not self._batches_checked:
            if any(self._depends_on_batch(batch) for batch in self._telling(batches, probed)):
                return self._stricter(probed)
            self._batches_checked = True
        return None

    def require_repeatable(self, nodes: Collection[int], probed: Probe) -> None:
        """Check that the shortest sample gives the same result before and after a long sample runs.

        The long sample exceeds as many of the model's length boundaries as any of the given samples.

        Args:
            nodes: nodes of the samples to choose from.
            probed: probe with the model's length boundaries.

        Raises:
            GradientError: The model is not deterministic.
        """
        by_length = sorted(nodes, key=self._length)
        sections = probed.batching.sections(np.array([self._length(node) for node in by_length]))
        past_all = [node for node, section in zip(by_length, sections, strict=True) if section == sections[-1]]
        # Use the median of the longest section: a longer sample takes more time and reveals no more.
        shortest, other = self._samples[by_length[0]], self._samples[past_all[len(past_all) // 2]]
        before, _, after = (self._loss_gradients([sample])[0] for sample in (shortest, other, shortest))
        if _change(after, before) > self._tolerance:
            raise GradientError(
                f"the model's output for sample {shortest.id!r} changes when it runs again, so its gradient is not "
                "defined: make the forward pass deterministic in eval mode, without state that persists between calls"
            )

    def _telling(self, batches: Sequence[Sequence[int]], probed: Probe) -> list[list[int]]:
        """Return the batch with the largest ratio of lengths for each section; these reveal a dependence best."""
        telling: dict[int, tuple[float, list[int]]] = {}
        for batch in batches:
            lengths = np.array([self._length(node) for node in batch])
            section = int(probed.batching.sections(lengths[:1])[0])
            stretch = float(lengths.max() / lengths.min())
            if len(batch) > 1 and stretch > telling.get(section, (0.0, []))[0]:
                telling[section] = (stretch, sorted(batch, key=self._length))
        return [batch for _, batch in telling.values()]

    def _depends_on_batch(self, batch: Sequence[int]) -> bool:
        """Return whether the shortest or the median sample changes when it runs in the batch instead of alone."""
        samples = [self._samples[node] for node in batch]
        together = self._loss_gradients(samples)
        for member in {0, len(samples) // 2}:
            sample = samples[member]
            (alone,) = self._loss_gradients([sample])
            change, allowed = _change(together[member], alone), self._tolerance
            if change > allowed and self._has_experts:
                copies = self._loss_gradients([sample] * len(samples))
                allowed = max(allowed, _BEYOND_ROUTING * _change(copies[0], alone))
            if change > allowed:
                return True
        return False

    def _stricter(self, probed: Probe) -> Probe:
        if probed.batching.stretch > 1:
            warn_of_slower_way(
                "this model's results change with padding, so only samples of equal length share a batch"
            )
            return replace(probed, batching=replace(probed.batching, stretch=1.0))
        warn_of_slower_way("this model's results depend on the other samples of a batch, so each sample runs alone")
        return replace(probed, separable=False)

    def _loss_gradients(self, samples: Sequence[Encoded]) -> list[Tensor]:
        """Return ∂L/∂z at each sample's labels, (labels, V), from which the backward pass starts."""
        batch = Batch.of(samples, self._capture.device)
        with torch.no_grad():
            scored = batch.scored(self._capture.logits(batch))
            _, whole = batch.losses_and_gradient(scored, scored.dtype)
        first = batch.shape[1] - batch.kept
        return [
            whole[member, torch.from_numpy(sample.positions - first).to(whole.device)]
            for member, sample in enumerate(samples)
        ]

    @property
    def _tolerance(self) -> float:
        """Tolerance of the least precise dtype among the model's parameters."""
        return max(_TOLERANCES[dtype] for dtype in {parameter.dtype for parameter in self._capture.parameters})

    def _length(self, node: int) -> int:
        return len(self._samples[node].tokens)


def _captures(plan: Plan) -> list[list[int]]:
    """Return the samples of each batch of a plan."""
    return [list(step.samples) for step in plan.steps() if isinstance(step, Capture)]


def checkpointing_holds(capture: GradientCapture, probed: Probe) -> bool:
    """Return whether checkpointed blocks give the same gradients on the probe's pieces; warn if they do not."""
    holds = _checkpointing_agrees(capture, probed) and not capture.returns_cache
    if not holds:
        warn_of_slower_way("checkpointing changes the gradients of this model, so passes keep all activations")
    return holds


def _checkpointing_agrees(capture: GradientCapture, probed: Probe) -> bool:
    pieces = probed.pieces if probed.separable else probed.pieces[:1]
    plain = captured_terms(capture, pieces)
    try:
        again = captured_terms(capture, pieces, checkpoint=True)
    except (NotSeparableError, *FAILURES) as error:
        if isinstance(error, RuntimeError) and says_out_of_memory(error):
            raise
        return False
    return all(
        before.keys() == after.keys()
        and all(terms_agree(after[layer], gradient(terms)) for layer, terms in before.items())
        for before, after in zip(plain, again, strict=True)
    )


def _change(a: Tensor, b: Tensor) -> float:
    """Return ‖a - b‖ / ‖b‖; NaN if a or b is not finite."""
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def warn_of_slower_way(what: str) -> None:
    """Warn that the comparison stays exact but runs slower, and why."""
    warnings.warn(f"{what}: exact, but slower", FallbackWarning, stacklevel=2)
