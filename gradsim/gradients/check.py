"""The safety net: the rules against plain autograd, on short pieces of samples, before anything depends on them."""

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradsim.errors import MemoryBudgetError
from gradsim.gradients.batch import Batch
from gradsim.gradients.capture import GradientCapture, flags_kept, own_gradients
from gradsim.gradients.copies import NotSeparableError
from gradsim.gradients.encoding import Encoded
from gradsim.gradients.profile import PassProfile, PassWatch
from gradsim.gradients.rules.terms import RowSum, Term

logger = logging.getLogger(__name__)

# Rounding errors are a few units in the last place of the sum of the terms' magnitudes, mistakes are of its own size.
_ULPS = 64

# Tokens of the pieces that are checked: enough to tell, and of different lengths, so that one is padded.
_PIECES = (37, 29)

# One layer's gradients that stand together: by autograd from each of two uses, their sum, and what is compared with it.
_GRADIENTS = 4

_Terms = dict[int, list[Term | RowSum]]
"""By layer."""


class FallbackWarning(UserWarning):
    """Layers whose rule does not hold in this model: exact all the same, by autograd, but slower."""


@dataclass(frozen=True)
class Probe:
    """What checked pieces of samples tell about a model.

    Attributes:
        by_autograd: layers whose rule does not hold.
        separable: whether several samples can run at once.
        rows_per_token: rows of outer products of every module that ran, in all its calls, for each token; rounded up.
        profile: what a pass keeps in memory.
    """

    by_autograd: list[str] = field(default_factory=list)
    separable: bool = False
    rows_per_token: dict[nn.Module, int] = field(default_factory=dict)
    profile: PassProfile = field(default_factory=PassProfile)


def require_room(parameters: Collection[Tensor], memory_budget: int) -> None:
    """That the check of a model's rules fits a memory budget in bytes, before it begins.

    Raises:
        MemoryBudgetError: it does not.
    """
    # Of pieces alone and in a batch: all layers' factors, and what their passes keep. A layer's gradients come and go.
    factors = 3 * sum(_PIECES) * sum(sum(parameter.shape[-2:]) * parameter.itemsize for parameter in parameters)
    needed = factors + _GRADIENTS * max(parameter.nbytes for parameter in parameters)
    if memory_budget < needed:
        raise MemoryBudgetError(
            f"the check of the model's rules needs up to {needed:,} bytes, but memory_budget is {memory_budget:,}: "
            f"set memory_budget to at least {needed}"
        )


def probe(model: PreTrainedModel, samples: Sequence[Encoded]) -> Probe:
    """Check every layer's rule, for a piece alone and for two in a batch.

    Args:
        model: a causal language model.
        samples: in order of preference, each with a label; the first two that have finite gradients are checked. If
            none has, nothing is known.
    """
    with GradientCapture(model) as capture:
        found = _finite_pair(capture, samples)
        if found is None:
            return Probe()
        pieces, together = found
        with PassWatch(model, capture, pieces[0]) as watch:
            alone = _captured(capture, pieces[:1])[0]
        layers, without_rule = capture.layers, capture.without_rule
    wrong: set[int] = set()
    separable = bool(together)

    def check(place: int, layer: int, expected: Tensor) -> None:
        nonlocal separable
        if place == 0 and not _agrees(alone[layer], expected):
            wrong.add(layer)
        separable = separable and _agrees(together[place][layer], expected)

    for place, piece in enumerate(pieces if together else pieces[:1]):
        _plain_gradients(model, piece, partial(check, place))
    by_autograd = [layers[layer] for layer in sorted(wrong)]
    _tell(by_autograd, [layers[layer] for layer in without_rule])
    return Probe(by_autograd, separable and not wrong, watch.rows_per_token, watch.profile)


def _finite_pair(capture: GradientCapture, samples: Sequence[Encoded]) -> tuple[list[Encoded], list[_Terms]] | None:
    """Pieces of the first two samples with finite gradients, and their terms in a batch if that is possible."""
    found: list[Encoded] = []
    for sample in samples:
        candidates = [*found, sample]
        pieces = [_piece(each, tokens) for each, tokens in zip(candidates, _PIECES, strict=False)]
        try:
            terms = _captured(capture, pieces)
        except NotSeparableError:
            return pieces, []
        if all(_is_finite(each) for layers in terms for each in layers.values()):
            found = candidates
        if len(found) == len(_PIECES):
            return pieces, terms
    return ([_piece(found[0], _PIECES[0])], []) if found else None


def _piece(sample: Encoded, tokens: int) -> Encoded:
    """The end of a sample up to its last label, as a sample of its own."""
    end = int(sample.positions[-1]) + 2
    start = max(0, end - tokens)
    kept = sample.positions >= start
    return Encoded(sample.id, sample.tokens[start:end], sample.positions[kept] - start, sample.targets[kept])


def _captured(capture: GradientCapture, pieces: Sequence[Encoded]) -> list[_Terms]:
    terms: list[_Terms] = [defaultdict(list) for _ in pieces]
    capture.run(pieces, lambda layer, member, term: terms[member][layer].append(term))
    return terms


def _is_finite(terms: list[Term | RowSum]) -> bool:
    return all(bool(torch.isfinite(term.magnitude())) for term in terms)


def _plain_gradients(model: PreTrainedModel, piece: Encoded, check: Callable[[int, Tensor], None]) -> None:
    """Every layer's gradient by plain autograd, one at a time as they come, so that they never stand together."""
    parameters = list(model.parameters())
    missing = set(range(len(parameters)))

    def arrived(layer: int, parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.to_dense(), None
        missing.remove(layer)
        check(layer, gradient)

    with flags_kept(model), own_gradients(parameters), ExitStack() as stack:
        model.train(False)
        for layer, parameter in enumerate(parameters):
            parameter.requires_grad_(True)
            handle = parameter.register_post_accumulate_grad_hook(partial(arrived, layer))  # type: ignore[no-untyped-call]
            stack.callback(handle.remove)
        batch = Batch.of([piece], parameters[0].device)
        scored = batch.scored(model(input_ids=batch.tokens, use_cache=False).logits)
        scored.backward(batch.losses_and_gradient(scored, parameters[0].dtype)[1])  # type: ignore[no-untyped-call]
        for layer in sorted(missing):
            check(layer, torch.zeros_like(parameters[layer]))


def _agrees(terms: list[Term | RowSum], expected: Tensor) -> bool:
    if not terms:
        return not expected.any()
    magnitude = torch.stack([term.magnitude() for term in terms]).sum()
    # In place: an embedding's gradient can be large beside everything else.
    difference = expected.detach().neg()
    for term in terms:
        term.add(difference)
    return bool(torch.linalg.vector_norm(difference) <= _ULPS * torch.finfo(expected.dtype).eps * magnitude)


def _tell(wrong: list[str], without_rule: list[str]) -> None:
    if without_rule:
        logger.info("autograd computes layers without a rule: %s", ", ".join(without_rule))
    if wrong:
        warnings.warn(
            f"the rules of {len(wrong)} layers do not hold in this model, so autograd computes them, "
            f"slower: {', '.join(wrong)}",
            FallbackWarning,
            stacklevel=2,
        )
