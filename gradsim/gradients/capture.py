"""One forward and one backward of one sample: the terms of every layer's gradient.

Hooks record what each module with a rule is called with; autograd gives the gradient of its output; the rule makes
terms of the two. The weights themselves are frozen, so that the backward spends nothing on their gradients. Parameters
without a rule keep requiring a gradient and get it from autograd.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.gradients.encoding import Encoded
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.registry import Rule, rule_for
from gradsim.gradients.rules.terms import Dense, LayerTerms, RowSum, Term

RawTerms = list[list[Term | RowSum]]
"""Terms of every layer, as the rules give them."""


class BadLossError(GradientError):
    """A sample whose loss or gradient is not finite."""


def bad_loss(sample: Encoded, loss: float) -> BadLossError:
    """The loss is not finite."""
    return BadLossError(f"sample {sample.id!r} has a loss of {loss}: {_MEND}")


def bad_gradient(sample: Encoded, layer: str) -> BadLossError:
    """The gradient is not finite."""
    return BadLossError(f"sample {sample.id!r} has a gradient that is not finite in layer {layer}: {_MEND}")


def no_label(sample: Encoded) -> BadLossError:
    """There is nothing to take the mean over."""
    return BadLossError(f"sample {sample.id!r} has no unmasked label after its first token: {_MEND}")


_MEND = 'mend or exclude it (on_bad_loss="exclude")'


@dataclass(frozen=True, eq=False)
class RuledModule:
    """A module with a rule, and the layers of its own parameters by their names in the module."""

    module: nn.Module
    rule: Rule
    layers: dict[str, int]


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """A call of a module with a rule, and the place of its output in the graph."""

    ruled: RuledModule
    call: Call
    output: GradientEdge
    rows: int


class GradientCapture:
    """A context in which samples of a model are captured; the model is as it was before when it ends.

    Args:
        model: a causal language model.
        by_autograd: layers that autograd computes although they have a rule.
        freeze: whether parameters with a rule are frozen; plain autograd beside it needs them unfrozen.

    Raises:
        GradientError: a model without parameters, with quantized ones, or on several devices.
    """

    def __init__(self, model: PreTrainedModel, by_autograd: Collection[str] = (), *, freeze: bool = True) -> None:
        self._model = model
        self._freeze = freeze
        self._restore = ExitStack()
        parameters = dict(model.named_parameters())
        check_parameters(parameters)
        self.layers = list(parameters)
        self.parameters = list(parameters.values())
        self.ruled = _ruled_modules(model, parameters, by_autograd)
        with_rule = {layer for ruled in self.ruled for layer in ruled.layers.values()}
        self.without_rule = [i for i in range(len(self.layers)) if i not in with_rule]
        self.calls: list[RecordedCall] = []
        """Calls of the last forward pass whose terms were not taken yet."""

    def __enter__(self) -> "GradientCapture":
        with ExitStack() as stack:
            stack.enter_context(_flags_kept(self._model))
            self._model.train(False)
            for layer, parameter in enumerate(self.parameters):
                parameter.requires_grad_(not self._freeze or layer in self.without_rule)
            for ruled in self.ruled:
                handle = ruled.module.register_forward_hook(self._recorder(ruled), prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            self._restore = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.calls.clear()
        self._restore.close()

    def __call__(self, sample: Encoded) -> list[LayerTerms]:
        """One forward and backward: the terms of every layer in model order.

        Raises:
            BadLossError: the loss is not finite.
            GradientError: the model refuses the sample.
        """
        return reduced(self.terms(self.loss(sample)))

    def loss(self, sample: Encoded) -> Tensor:
        """Forward: the mean cross-entropy over the unmasked labels, the same for every model family."""
        self.calls.clear()
        device = self.parameters[0].device
        tokens = torch.from_numpy(sample.tokens).to(device)
        positions = torch.from_numpy(sample.positions).to(device)
        targets = torch.from_numpy(sample.targets).to(device)
        try:
            logits = self._model(input_ids=tokens[None], use_cache=False).logits[0, positions]
            if logits.dtype != torch.float64:
                logits = logits.float()
            loss = nn.functional.cross_entropy(logits, targets)
        except IndexError as error:
            raise GradientError(
                f"sample {sample.id!r} does not fit the model ({error}): shorten or exclude it"
            ) from error
        if not torch.isfinite(loss):
            raise bad_loss(sample, loss.item())
        return loss

    def terms(self, loss: Tensor, *, retain_graph: bool = False) -> RawTerms:
        """Backward: the terms of every layer; none where the loss does not depend on the layer."""
        inputs: list[Any] = [recorded.output for recorded in self.calls]
        inputs += [self.parameters[layer] for layer in self.without_rule]
        gradients: list[Tensor | None] = list(
            torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=retain_graph)
        )
        terms: RawTerms = [[] for _ in self.layers]
        for layer in reversed(self.without_rule):
            if (gradient := gradients.pop()) is not None:
                terms[layer].append(Dense(gradient.to_dense()))
        for place, recorded in enumerate(self.calls):
            delta, gradients[place] = gradients[place], None
            if delta is not None:
                for layer, term in _apply_rule(recorded, delta):
                    terms[layer].append(term)
        self.calls.clear()
        return terms

    def _recorder(self, ruled: RuledModule) -> Callable[..., Any]:
        def record(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return output
            start = output if output.requires_grad else output.detach().requires_grad_()
            call = Call(
                tuple(map(_detached, arguments)),
                {name: _detached(value) for name, value in keywords.items()},
            )
            rows = output.numel() // max(1, output.shape[-1])
            self.calls.append(RecordedCall(ruled, call, get_gradient_edge(start), rows))
            # The graph begins here. A copy, because models may change an output in place, and a leaf forbids that.
            return output if start is output else start.clone()

        return record


def check_parameters(parameters: dict[str, nn.Parameter]) -> None:
    """Refuse models whose gradients cannot be computed as they are."""
    if not parameters:
        raise GradientError("the model has no parameters: load one that has")
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise GradientError(
                f"layer {name} holds {parameter.dtype}, so it has no gradient: load the model unquantized"
            )
    devices = sorted({str(parameter.device) for parameter in parameters.values()})
    if len(devices) > 1:
        raise GradientError(f"the model lies on {', '.join(devices)}: load it on one device (no device_map)")


def reduced(terms: RawTerms) -> list[LayerTerms]:
    """Terms as they are kept: sums of rows summed."""
    return [tuple(Dense(term.gradient()) if isinstance(term, RowSum) else term for term in layer) for layer in terms]


@contextmanager
def _flags_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _ruled_modules(
    model: nn.Module, parameters: dict[str, nn.Parameter], by_autograd: Collection[str]
) -> list[RuledModule]:
    """Modules with a rule for layers that no module without a rule owns as well."""
    numbers = {id(parameter): number for number, parameter in enumerate(parameters.values())}
    found = []
    excluded = {number for number, name in enumerate(parameters) if name in by_autograd}
    for module in model.modules():
        own = {
            name: numbers[id(parameter)]
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        }
        if rule := rule_for(module):
            found.append((module, rule, own))
        else:
            excluded.update(own.values())
    return [
        RuledModule(module, rule, layers)
        for module, rule, own in found
        if (layers := {name: layer for name, layer in own.items() if layer not in excluded})
    ]


def _apply_rule(recorded: RecordedCall, delta: Tensor) -> Iterator[tuple[int, Term | RowSum]]:
    ruled = recorded.ruled
    rows = delta.reshape(-1, delta.shape[-1])
    for name, term in ruled.rule(ruled.module, recorded.call, rows).items():
        if name in ruled.layers:
            yield ruled.layers[name], term


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
