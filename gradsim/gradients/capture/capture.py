"""Gradient capture: one forward and backward pass of a batch yields every layer's gradient terms, sample by sample.

Hooks record the inputs of each module with a rule, and pass its output gradient to the rule as soon as autograd has
computed it, so that both are freed before the next block. The weights of these modules are frozen, so the backward pass
spends no time on their gradients. Autograd computes the gradients of parameters without a rule; in a batch, each sample
has its own copy of these parameters.

Only modules with a captured layer have a hook, and the autograd graph starts at the first of them. So the backward pass
ends at the lowest captured layer.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.gradients.capture.batch import Batch
from gradsim.gradients.capture.checkpoint import checkpointed_blocks
from gradsim.gradients.capture.copies import BatchShape, NotSeparableError, sample_copies
from gradsim.gradients.capture.encoding import Encoded
from gradsim.gradients.capture.forward import Forward, without_cache
from gradsim.gradients.capture.layers import model_layers
from gradsim.gradients.capture.precision import running_in
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.experts import batched_expert_terms
from gradsim.gradients.rules.registry import Rule, rule_for
from gradsim.gradients.rules.terms import Dense, RowSum, Term
from gradsim.models.fresh_state import FreshState, fresh_state

# A prompt without gradient is skipped if it makes up at least 1/_LEAST_PROMPT of a sample's tokens.
_LEAST_PROMPT = 5


class TakeTerm(Protocol):
    """Callback that receives each gradient term as soon as it is computed."""

    def __call__(self, layer: int, member: int, term: Term | RowSum) -> None:
        """Receive a term of a layer's gradient for one sample.

        Args:
            layer: index of the layer.
            member: index of the sample in the batch.
            term: the term, possibly a view of large tensors.
        """


@dataclass(frozen=True, eq=False)
class RuledModule:
    """A module with a rule, and the layer indices of its own parameters by their names in the module."""

    module: nn.Module
    rule: Rule
    layers: dict[str, int]


class GradientCapture:
    """Context manager that captures gradient terms of samples, and restores the model on exit.

    Args:
        model: causal language model.
        by_autograd: names of layers to compute by autograd even if they have a rule.
        layers: names of the layers to capture; None for all.

    Raises:
        GradientError: The model has no parameters or lacks a layer, is quantized, or is on several devices.
    """

    def __init__(
        self, model: PreTrainedModel, by_autograd: Collection[str] = (), layers: Collection[str] | None = None
    ) -> None:
        self._model = model
        self._restore = ExitStack()
        parameters = model_layers(model, layers)
        self.layers = list(parameters)
        self.parameters = list(parameters.values())
        self.device = self.parameters[0].device
        self.ruled = _ruled_modules(model, parameters, by_autograd)
        with_rule = {layer for ruled in self.ruled for layer in ruled.layers.values()}
        self.without_rule = [i for i in range(len(self.layers)) if i not in with_rule]
        self._head: nn.Module | None = model.get_output_embeddings()
        self._forward = Forward(model)
        self._state: FreshState | None = None
        self._batch: Batch | None = None
        self._take: TakeTerm | None = None
        self.watch: Callable[[nn.Module, Call, Tensor], None] | None = None
        """Optional callback that receives every recorded module, its call and its output."""

    def __enter__(self) -> "GradientCapture":
        with ExitStack() as stack:
            stack.enter_context(flags_kept(self._model))
            stack.enter_context(without_cache(self._model))
            stack.enter_context(own_gradients([self.parameters[layer] for layer in self.without_rule]))
            self._model.train(False)
            self._state = stack.enter_context(fresh_state(self._model))
            self._model.requires_grad_(requires_grad=False)
            for layer in self.without_rule:
                self.parameters[layer].requires_grad_()
            for ruled in self.ruled:
                handle = ruled.module.register_forward_hook(
                    partial(self._record, ruled), prepend=True, with_kwargs=True
                )
                stack.callback(handle.remove)
            if self._head is not None:
                stack.callback(self._head.register_forward_pre_hook(_in_one_piece).remove)
            self._restore = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._batch = self._take = None
        self._restore.close()

    @property
    def returns_cache(self) -> bool:
        """Whether the model has returned a cache despite `use_cache=False`."""
        return self._forward.returns_cache

    @contextmanager
    def running_in(self, dtype: torch.dtype) -> Iterator[None]:
        """Run the model, including its buffers, in another dtype inside the context."""
        before = self._state
        self._start_afresh()
        with running_in(self._model, dtype), fresh_state(self._model) as state:
            self._state = state
            try:
                yield
            finally:
                self._state = before

    def run(self, samples: Collection[Encoded], take: TakeTerm, *, checkpoint: bool = False) -> NDArray[np.float64]:
        """Run a batch of samples forward and backward.

        Args:
            samples: B samples, each with at least one label.
            take: callback for every term; a layer without terms has a zero gradient.
            checkpoint: whether to recompute every block in the backward pass to save memory.

        Returns:
            Losses, (B,). If a sample's loss is not finite, its terms are meaningless.

        Raises:
            NotSeparableError: The model cannot run several samples at once.
            GradientError: The model rejects a sample.
        """
        self._batch, self._take = Batch.of(list(samples), self.device), take
        for layer in self.without_rule:  # an interrupted pass may have left partial gradients
            self.parameters[layer].grad = None
        self._start_afresh()
        with checkpointed_blocks(self._model, enabled=checkpoint), self._copies(self._batch):
            scored = self._batch.scored(self._logits(self._batch))
            losses, gradient = self._batch.losses_and_gradient(scored, self.parameters[0].dtype)
            if scored.requires_grad:  # otherwise no captured layer took part
                scored.backward(gradient)  # type: ignore[no-untyped-call]
        for layer in self.without_rule:
            parameter = self.parameters[layer]
            if parameter.grad is not None:
                if len(samples) > 1:  # the model used the parameter itself, not the samples' copies
                    raise NotSeparableError(f"autograd sums the gradients of {self.layers[layer]} over samples")
                take(layer, 0, Dense(parameter.grad.to_dense()))
                parameter.grad = None
        self._batch = self._take = None
        return losses.double().cpu().numpy()

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of a batch, (B, at least kept, V), after resetting the model's state.

        Raises:
            GradientError: The model rejects a sample.
        """
        self._start_afresh()
        return self._logits(batch)

    def _start_afresh(self) -> None:
        if self._state:
            self._state.restore()

    def _copies(self, batch: Batch) -> AbstractContextManager[None]:
        """Give each sample its own copy of the parameters without a rule, unless the batch has only one sample."""
        if len(batch.samples) == 1 or not self.without_rule:
            return nullcontext()
        parameters = {layer: self.parameters[layer] for layer in self.without_rule}
        return sample_copies(self._model, parameters, BatchShape(*batch.shape), self._take_gradient)

    def _take_gradient(self, layer: int, member: int, gradient: Tensor) -> None:
        assert self._take is not None
        self._take(layer, member, Dense(gradient))

    def _logits(self, batch: Batch) -> Tensor:
        keywords: dict[str, Any] = {"logits_to_keep": batch.kept}
        if len(batch.samples) > 1:
            # One row per sample, so that the gradients of learned positions are not summed over the batch.
            positions = torch.arange(batch.tokens.shape[1], device=self.device)
            keywords["position_ids"] = positions.expand_as(batch.tokens)
        try:
            return self._forward(batch.tokens, **keywords)
        except IndexError as error:
            names = ", ".join(repr(sample.id) for sample in batch.samples)
            raise GradientError(f"sample {names} does not fit the model ({error}): shorten or exclude it") from error

    def _record(
        self, ruled: RuledModule, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> Any:
        if not torch.is_grad_enabled() or not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        start = output if output.requires_grad else output.detach().requires_grad_()
        call = Call(
            tuple(map(_detached, arguments)),
            {name: _detached(value) for name, value in keywords.items()},
        )
        if self.watch:
            self.watch(module, call, output)
        start.register_hook(partial(self._arrived, ruled, [call]))  # type: ignore[no-untyped-call]
        # The autograd graph starts here. Return a copy, because the model may modify the output in place, which is not
        # allowed for leaf tensors.
        return output if start is output else start.clone()

    def _arrived(self, ruled: RuledModule, calls: list[Call], delta: Tensor) -> None:
        assert self._batch is not None
        assert self._take is not None
        call = calls.pop()  # frees the inputs as soon as the rule has run
        with torch.no_grad():
            for member in range(len(self._batch.samples)):
                own_call, rows = _of_member(self._batch, member, ruled, call, delta, is_head=ruled.module is self._head)
                for name, term in ruled.rule(ruled.module, own_call, rows).items():
                    if name in ruled.layers:
                        self._take(ruled.layers[name], member, term)


def _of_member(
    batch: Batch, member: int, ruled: RuledModule, call: Call, delta: Tensor, *, is_head: bool
) -> tuple[Call, Tensor]:
    """Return one sample's part of a module's call, and of its output gradient as (rows, D).

    Raises:
        NotSeparableError: The rows cannot be assigned to samples.
    """
    size, length = batch.shape
    width = delta.shape[-1]
    per_token, beyond = divmod(len(delta), size * length) if delta.dim() == 2 else (0, 0)
    if delta.dim() > 2 and delta.shape[0] == size:
        places = slice(0, delta.shape[1])
        if delta.dim() == 3:  # with more dimensions, dimension 1 may be heads, even if its size equals the token count
            places = batch.places(member, delta.shape[1], is_head=is_head)
            places = _without_prompt(delta[member], places, batch.first_label(member, delta.shape[1]))
        if size == 1 and places == slice(0, delta.shape[1]):
            return call, delta.reshape(-1, width)
        alike = delta.shape[:2]

        def own(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dim() < 1 or value.shape[0] != size:
                return value
            mine = value[member : member + 1]
            return mine[:, places] if value.shape[:2] == alike else mine

    elif per_token and not beyond and (per_token == 1 or size > 1):
        rows: slice | Tensor
        if ruled.rule is batched_expert_terms:
            every_row = torch.arange(len(delta), device=delta.device).view(per_token, size, length)
            rows = every_row[:, member, : len(batch.samples[member].tokens)].reshape(-1)
        else:
            start = member * length * per_token
            rows = slice(start, start + len(batch.samples[member].tokens) * per_token)
            if per_token == 1:
                rows = _without_prompt(delta, rows, start + batch.first_label(member, length))

        def own(value: Any) -> Any:
            return value[rows] if isinstance(value, Tensor) and value.shape[:1] == delta.shape[:1] else value

    elif size == 1:
        return call, delta.reshape(-1, width)
    else:
        raise NotSeparableError(f"an output of shape {tuple(delta.shape)} cannot be split into {size} samples")
    keywords = {name: own(value) for name, value in call.keywords.items()}
    return Call(tuple(map(own, call.arguments)), keywords), own(delta).reshape(-1, width)


def _without_prompt(delta: Tensor, places: slice, first_label: int) -> slice:
    """Drop the positions before the first label if their gradient is zero.

    It is zero after the last attention, where no position affects another. Checked on CPU only, because the check would
    synchronize with a GPU. Short prompts are kept, because layers with a common input share its copy only if they all
    use the same positions.
    """
    prompt = slice(places.start, first_label)
    is_worthwhile = (first_label - places.start) * _LEAST_PROMPT >= places.stop - places.start
    if not is_worthwhile or delta.device.type != "cpu" or delta[first_label - 1].any() or delta[prompt].any():
        return places
    return slice(first_label, places.stop)


@contextmanager
def flags_kept(model: nn.Module) -> Iterator[None]:
    """Restore the training modes and `requires_grad` flags on exit."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def own_gradients(parameters: Collection[nn.Parameter]) -> Iterator[None]:
    """Set the caller's `.grad` tensors aside, and restore them on exit."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def _ruled_modules(
    model: nn.Module, parameters: dict[str, nn.Parameter], by_autograd: Collection[str]
) -> list[RuledModule]:
    """Return the modules with a rule, without layers that are shared with a module that has none."""
    numbers = {id(parameter): number for number, parameter in enumerate(parameters.values())}
    found = []
    excluded = {number for number, name in enumerate(parameters) if name in by_autograd}
    for module in model.modules():
        own = {
            name: numbers[id(parameter)]
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
            if id(parameter) in numbers
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


def _in_one_piece(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make the head's inputs contiguous: PyTorch would otherwise run a separate matrix product for each sample."""
    return tuple(value.contiguous() if isinstance(value, Tensor) else value for value in arguments)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
