"""The safety net: the rules against plain autograd, on one sample, before anything depends on them."""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradsim.gradients.capture import GradientCapture, bad_gradient, reduced
from gradsim.gradients.encoding import Encoded
from gradsim.gradients.rules.terms import Dense, LayerTerms, RowSum, Term, gradient

logger = logging.getLogger(__name__)

# Rounding errors are a few units in the last place of the sum of the terms' magnitudes, mistakes are of its own size.
_ULPS = 64

# Parameters whose plain gradients stand in memory at once; each group costs a backward of the (short) sample.
_GROUP_BYTES = 1 << 30


class FallbackWarning(UserWarning):
    """Layers whose rule does not hold in this model: exact all the same, by autograd, but slower."""


@dataclass(frozen=True)
class Probe:
    """What one checked sample tells about a model.

    Attributes:
        node: the sample's number.
        terms: its terms, correct for every layer.
        by_autograd: layers whose rule does not hold.
        rows_per_token: output rows of every module that ran, in all its calls, for each token; rounded up.
    """

    node: int
    terms: list[LayerTerms]
    by_autograd: list[str]
    rows_per_token: dict[nn.Module, int]


def probe(model: PreTrainedModel, node: int, sample: Encoded) -> Probe:
    """GradientCapture a sample and compare every layer with plain autograd of the same forward pass.

    Raises:
        BadLossError: the sample's loss or gradient is not finite.
    """
    with GradientCapture(model, freeze=False) as capture:
        loss = capture.loss(sample)
        rows: dict[nn.Module, int] = {}
        for call in capture.calls:
            rows[call.ruled.module] = rows.get(call.ruled.module, 0) + call.rows
        terms = capture.terms(loss, retain_graph=True)
        wrong = []
        for layer, expected in _plain_gradients(loss, capture.parameters):
            if not torch.isfinite(_norm(expected)):
                raise bad_gradient(sample, capture.layers[layer])
            if not _agrees(terms[layer], expected):
                wrong.append(capture.layers[layer])
                terms[layer] = [Dense(expected)]
        without_rule = [capture.layers[layer] for layer in capture.without_rule]
    _tell(wrong, without_rule)
    rows_per_token = {module: -(-count // len(sample.tokens)) for module, count in rows.items()}
    return Probe(node, reduced(terms), wrong, rows_per_token)


def _plain_gradients(loss: Tensor, parameters: list[nn.Parameter]) -> Iterator[tuple[int, Tensor]]:
    start = 0
    while start < len(parameters):
        end, taken = start, 0
        while end < len(parameters) and (end == start or taken < _GROUP_BYTES):
            taken += parameters[end].nbytes
            end += 1
        group = parameters[start:end]
        gradients = torch.autograd.grad(loss, group, retain_graph=end < len(parameters), allow_unused=True)
        for number, (parameter, found) in enumerate(zip(group, gradients, strict=True), start):
            yield number, torch.zeros_like(parameter) if found is None else found.to_dense()
        start = end


def _agrees(terms: list[Term | RowSum], expected: Tensor) -> bool:
    if not terms:
        return not expected.any()
    magnitude = torch.stack([term.magnitude() for term in terms]).sum()
    error = _norm(gradient(terms) - expected)
    return bool(error <= _ULPS * torch.finfo(expected.dtype).eps * magnitude)


def _norm(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.float64)
    return norm


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
