"""Safety net: checks the rules against plain autograd on short pieces of samples before they are used."""

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradsim.errors import GradientError, MemoryBudgetError
from gradsim.gradients.capture.batch import Batch, Batching
from gradsim.gradients.capture.capture import GradientCapture, flags_kept, own_gradients
from gradsim.gradients.capture.copies import NotSeparableError
from gradsim.gradients.capture.encoding import Encoded
from gradsim.gradients.capture.forward import Forward, without_cache
from gradsim.gradients.capture.memory import says_out_of_memory
from gradsim.gradients.capture.profile import PassProfile, PassWatch
from gradsim.gradients.rules.terms import RowSum, Term
from gradsim.models.fresh_state import fresh_state
from gradsim.models.limits import length_boundaries

logger = logging.getLogger(__name__)

# Tolerance in units in the last place of the terms' summed magnitudes: rounding errors are a few, mistakes far more.
_ULPS = 64

# Lengths of the checked pieces in tokens: long enough to detect mistakes, and different, so that one is padded.
_PIECES = (37, 29)

# Gradients of one layer in memory at once: autograd's from each of two uses, their sum, and the one compared with it.
_GRADIENTS = 4

# Upper bound of rounding as a share of the whole gradient, for coarse dtypes.
_MOST_ROUNDING = 1e-3

# Relative change above which a gradient is noise: slightly changed embeddings change rounding entirely, and a real
# gradient hardly at all.
_WHOLLY = 0.5

# Errors of models that cannot run in a precision, in a particular way, or at all.
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_Terms = dict[int, list[Term | RowSum]]
"""Terms by layer index."""


class FallbackWarning(UserWarning):
    """Warning that the engine falls back to a slower but equally exact method."""


@dataclass(frozen=True)
class Probe:
    """Results of checking a model on pieces of samples.

    Attributes:
        by_autograd: layers for which the rule does not hold.
        separable: whether several samples can run in one batch.
        noise: layers with only rounding noise as gradient, in model order.
        pieces: checked pieces of samples; empty if no sample has finite gradients.
        batching: constraints on samples that share a batch.
        rows_per_token: number of outer-product rows per token of every module that ran, over all calls, rounded up.
        profile: memory use of a pass.
    """

    by_autograd: list[str] = field(default_factory=list)
    separable: bool = False
    noise: list[str] = field(default_factory=list)
    pieces: list[Encoded] = field(default_factory=list)
    batching: Batching = field(default_factory=Batching)
    rows_per_token: dict[nn.Module, int] = field(default_factory=dict)
    profile: PassProfile = field(default_factory=PassProfile)


def require_room(parameters: Collection[Tensor], memory_budget: int) -> None:
    """Require that the check of a model's rules fits the memory budget, in bytes.

    Raises:
        MemoryBudgetError: The check does not fit.
    """
    # Pieces alone and in a batch need the factors of all layers and the passes' activations. Gradients are held for one
    # layer at a time.
    factors = 3 * sum(_PIECES) * sum(sum(parameter.shape[-2:]) * parameter.itemsize for parameter in parameters)
    needed = factors + _GRADIENTS * max(parameter.nbytes for parameter in parameters)
    if memory_budget < needed:
        raise MemoryBudgetError(
            f"the check of the model's rules needs up to {needed:,} bytes, but memory_budget is {memory_budget:,}: "
            f"set memory_budget to at least {needed}"
        )


def probe(model: PreTrainedModel, samples: Sequence[Encoded], layers: Collection[str] | None = None) -> Probe:
    """Check every layer's rule on one piece alone and on two pieces in a batch.

    Args:
        model: causal language model.
        samples: samples in order of preference, each with a label. The first two with finite gradients are checked; if
            there is none, the result is an empty `Probe`.
        layers: names of the layers to check; None for all.

    Raises:
        GradientError: The model cannot run a piece.
    """
    with GradientCapture(model, layers=layers) as capture:
        found = _finite_pair(model, capture, samples)
        if found is None:
            return Probe()
        pieces, together = found
        with PassWatch(model, capture, pieces[0]) as watch:
            alone = captured_terms(capture, pieces[:1])[0]
        names, parameters, without_rule = capture.layers, capture.parameters, capture.without_rule
    wrong: set[int] = set()
    separable = bool(together)

    def check(place: int, layer: int, expected: Tensor) -> None:
        nonlocal separable
        if place == 0 and not terms_agree(alone[layer], expected):
            wrong.add(layer)
        separable = separable and terms_agree(together[place][layer], expected)

    for place, piece in enumerate(pieces if together else pieces[:1]):
        _plain_gradients(model, parameters, piece, partial(check, place))
    by_autograd = [names[layer] for layer in sorted(wrong)]
    if wrong and together:
        separable = _separable(model, pieces, by_autograd, names)
    noise = _noise(model, parameters, pieces[0], alone)
    if noise and together:  # one sample may lack a gradient that others have, such as one with a single repeated token
        again = _noise(model, parameters, pieces[1], together[1])
        noise = [layer for layer in noise if layer in again]
    _tell(by_autograd, [names[layer] for layer in without_rule])
    return Probe(
        by_autograd=by_autograd,
        separable=separable,
        noise=[names[layer] for layer in noise],
        pieces=pieces,
        batching=Batching(boundaries=length_boundaries(model.config)),
        rows_per_token=watch.rows_per_token,
        profile=watch.profile,
    )


def _separable(
    model: PreTrainedModel, pieces: Sequence[Encoded], by_autograd: Collection[str], layers: Collection[str]
) -> bool:
    """Return whether a batch reproduces plain autograd for every piece if autograd computes the given layers."""
    with GradientCapture(model, by_autograd, layers) as capture:
        try:
            together = captured_terms(capture, pieces)
        except NotSeparableError:
            return False
    agree: list[bool] = []

    def check(terms: _Terms, layer: int, expected: Tensor) -> None:
        agree.append(terms_agree(terms[layer], expected))

    for piece, terms in zip(pieces, together, strict=True):
        _plain_gradients(model, capture.parameters, piece, partial(check, terms))
    return all(agree)


def _finite_pair(
    model: PreTrainedModel, capture: GradientCapture, samples: Sequence[Encoded]
) -> tuple[list[Encoded], list[_Terms]] | None:
    """Return pieces of the first two samples with finite gradients, and their terms in a batch.

    Returns:
        The pieces and their terms, without terms if the pieces cannot run in a batch; None if no sample has finite
        gradients.

    Raises:
        GradientError: The model cannot run a piece.
    """
    found: list[Encoded] = []
    for sample in samples:
        candidates = [*found, sample]
        pieces = [_piece(each, tokens) for each, tokens in zip(candidates, _PIECES, strict=False)]
        try:
            terms = captured_terms(capture, pieces)
        except NotSeparableError:
            return pieces, []
        except FAILURES as error:
            if isinstance(error, RuntimeError) and says_out_of_memory(error):
                raise
            if len(pieces) > 1:
                return pieces, []
            precision = str(next(model.parameters()).dtype).removeprefix("torch.")
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            raise GradientError(
                f"the model does not run sample {sample.id!r} forward and backward in {precision} ({reason}): try "
                "another precision or attention implementation"
            ) from error
        if all(_is_finite(each) for layers in terms for each in layers.values()):
            found = candidates
        if len(found) == len(_PIECES):
            return pieces, terms
    return ([_piece(found[0], _PIECES[0])], []) if found else None


def _piece(sample: Encoded, tokens: int) -> Encoded:
    """Return the last tokens of a sample up to its last label, as a separate sample."""
    end = int(sample.positions[-1]) + 2
    start = max(0, end - tokens)
    kept = sample.positions >= start
    return Encoded(sample.id, sample.tokens[start:end], sample.positions[kept] - start, sample.targets[kept])


def captured_terms(capture: GradientCapture, samples: Sequence[Encoded], *, checkpoint: bool = False) -> list[_Terms]:
    """Run all samples in one batch and return the terms of each sample's gradient by layer."""
    terms: list[_Terms] = [defaultdict(list) for _ in samples]
    capture.run(samples, lambda layer, member, term: terms[member][layer].append(term), checkpoint=checkpoint)
    return terms


def _is_finite(terms: list[Term | RowSum]) -> bool:
    return all(bool(torch.isfinite(term.magnitude())) for term in terms)


def _plain_gradients(
    model: PreTrainedModel, parameters: Sequence[nn.Parameter], piece: Encoded, check: Callable[[int, Tensor], None]
) -> None:
    """Compute parameters' gradients by plain autograd and pass them to `check` one at a time, to save memory."""
    missing = set(range(len(parameters)))

    def arrived(layer: int, parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.to_dense(), None
        missing.remove(layer)
        check(layer, gradient)

    with flags_kept(model), own_gradients(parameters), without_cache(model), ExitStack() as stack:
        model.train(False)
        model.requires_grad_(requires_grad=False)
        stack.enter_context(fresh_state(model))
        for layer, parameter in enumerate(parameters):
            parameter.requires_grad_(True)
            handle = parameter.register_post_accumulate_grad_hook(partial(arrived, layer))  # type: ignore[no-untyped-call]
            stack.callback(handle.remove)
        batch = Batch.of([piece], parameters[0].device)
        scored = batch.scored(Forward(model)(batch.tokens))
        if scored.requires_grad:
            scored.backward(batch.losses_and_gradient(scored, parameters[0].dtype)[1])  # type: ignore[no-untyped-call]
        for layer in sorted(missing):
            check(layer, torch.zeros_like(parameters[layer]))


def terms_agree(terms: Sequence[Term | RowSum], expected: Tensor) -> bool:
    """Return whether the sum of terms equals a gradient, up to rounding."""
    if not terms:
        return not expected.any()
    magnitude = torch.stack([term.magnitude() for term in terms]).sum()
    return bool(_distance(terms, expected) <= _ULPS * torch.finfo(expected.dtype).eps * magnitude)


def _distance(terms: Sequence[Term | RowSum], expected: Tensor) -> Tensor:
    """Return the norm of the difference between the sum of terms and a gradient."""
    # In place, because an embedding's gradient can dominate memory use.
    difference = expected.detach().neg()
    for term in terms:
        term.add(difference)
    return _norm(difference)


def _noise(model: PreTrainedModel, parameters: Sequence[nn.Parameter], piece: Encoded, terms: _Terms) -> list[int]:
    """Return the layers with only rounding noise as gradient, such as the key bias, to which softmax is invariant.

    Recomputes the gradient with slightly changed embeddings. A layer is noise if its gradient changes entirely and its
    norm is within rounding of the norm of the model's whole gradient. This needs no copy of the model in a higher
    precision.
    """
    norms: dict[int, Tensor] = {}
    changes: dict[int, Tensor] = {}

    def compare(layer: int, changed: Tensor) -> None:
        norms[layer] = _norm(changed)
        changes[layer] = _distance(terms[layer], changed)

    with _changed_embeddings(model):
        _plain_gradients(model, parameters, piece, compare)
    rounding = min(_ULPS * torch.finfo(next(model.parameters()).dtype).eps, _MOST_ROUNDING)
    norm, change = (torch.stack([values[layer].double() for layer in sorted(values)]) for values in (norms, changes))
    changed = change > _WHOLLY * norm
    if not changed.any():
        return []
    whole = _gradient_norm(model, piece) if len(parameters) < len(list(model.parameters())) else _norm(norm)
    return torch.nonzero(changed & (norm <= rounding * whole)).flatten().tolist()


def _gradient_norm(model: PreTrainedModel, piece: Encoded) -> Tensor:
    """Return the norm of the gradient of all layers."""
    norms: list[Tensor] = []
    _plain_gradients(model, list(model.parameters()), piece, lambda _, gradient: norms.append(_norm(gradient).double()))
    return _norm(torch.stack(norms))


@contextmanager
def _changed_embeddings(model: PreTrainedModel) -> Iterator[None]:
    """Multiply the input embeddings' output by factors within 1 ± min(sqrt(eps), 3%) inside the context."""

    def change(_: nn.Module, __: object, output: Tensor) -> Tensor:
        by = min(torch.finfo(output.dtype).eps ** 0.5, 0.03)
        pattern = torch.sin(torch.arange(output.numel(), device=output.device, dtype=torch.float32))
        changed: Tensor = output * (1 + by * pattern.view(output.shape).to(output.dtype))
        return changed

    handle = model.get_input_embeddings().register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def _norm(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values)
    return norm


def _tell(wrong: list[str], without_rule: list[str]) -> None:
    if without_rule:
        logger.info("autograd computes layers without a rule: %s", ", ".join(without_rule))
    if wrong:
        warnings.warn(
            f"the gradient rules of {len(wrong)} layers do not hold in this model, so autograd computes them, "
            f"more slowly: {', '.join(wrong)}",
            FallbackWarning,
            stacklevel=2,
        )
