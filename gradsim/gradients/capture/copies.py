"""Gradients by autograd of each sample in a batch: every sample gets a copy of the parameter.

Autograd adds the gradients of a parameter up over the samples of a batch. Inside `sample_copies`, a module finds a
`Copied` where it looks for such a parameter. Operations on it run as if for each sample alone, each sample with its own
copy, by `torch.vmap`; all other operations of the model run as before. No module is run again, and none needs to be
known: what an operation of one sample computes is what PyTorch computes for a batch of one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gradsim.errors import GradientError
from gradsim.gradients.capture.memory import says_out_of_memory


class NotSeparableError(GradientError):
    """The gradients of several samples cannot be told apart: the model runs one sample at a time."""


@dataclass(frozen=True)
class BatchShape:
    """B samples, padded to T tokens."""

    samples: int
    tokens: int

    def is_batch(self, value: Tensor) -> bool:
        """Whether a tensor holds something of each sample; its first dimension is then (B,) or (B·T,).

        Raises:
            NotSeparableError: it is unclear.
        """
        size, length = self.samples, self.tokens
        has_rows = value.dim() > 0 and value.shape[0] in (size, size * length)
        if value.requires_grad and not has_rows:
            raise NotSeparableError(f"a value of shape {tuple(value.shape)} does not tell {size} samples apart")
        if value.requires_grad or not has_rows:
            return has_rows
        # Token ids and the like; any other value may be a constant that happens to be of this size.
        if value.shape[:2] == (size, length) and size != length:
            return True
        raise NotSeparableError(f"a value of shape {tuple(value.shape)} may be a constant, or of {size} samples")


class Copied(Tensor):
    """A value that does not depend on the input: a parameter, or something computed from parameters.

    Attributes:
        copies: (B, *shape) the value of each sample, which gradients go to.
        batch: the samples.
    """

    copies: Tensor
    batch: BatchShape

    @classmethod
    def of(cls, value: Tensor, copies: Tensor, batch: BatchShape) -> "Copied":
        """A value with its copies."""
        copied = value.detach().as_subclass(cls)
        copied.copies, copied.batch = copies, batch
        return copied

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation as if for each sample alone."""
        with torch._C.DisableTorchFunctionSubclass():
            return _Operation.of(func, args, kwargs or {}).run()


@dataclass(frozen=True)
class _Operation:
    """An operation on at least one copied value."""

    function: Callable[..., Any]
    operands: list[Any]
    form: pytree.TreeSpec

    @classmethod
    def of(cls, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> "_Operation":
        return cls(function, *pytree.tree_flatten((arguments, dict(keywords))))

    def run(self) -> Any:
        if not torch.is_grad_enabled():
            return self._call(list(map(_plain, self.operands)))
        batch = next(value.batch for value in self.operands if isinstance(value, Copied))
        of_batch = [
            isinstance(value, Tensor) and not isinstance(value, Copied) and batch.is_batch(value)
            for value in self.operands
        ]
        if any(of_batch):
            return self._for_each_sample(batch, of_batch)
        value = self._call(list(map(_plain, self.operands)))
        if not any(isinstance(part, Tensor) for part in pytree.tree_leaves(value)):
            return value  # a shape, a dtype
        copies = self._vmapped([value.copies if isinstance(value, Copied) else None for value in self.operands])
        return pytree.tree_map(partial(Copied.of, batch=batch), value, copies)

    def _for_each_sample(self, batch: BatchShape, of_batch: list[bool]) -> Any:
        """The result of a batch, from those of its samples, each a batch of one."""
        rows = [
            value.unflatten(0, (batch.samples, -1)) if is_of_batch else None
            for value, is_of_batch in zip(self.operands, of_batch, strict=True)
        ]
        for place, value in enumerate(self.operands):
            if isinstance(value, Copied):
                # Only values of the batch are joined to it: this one was expanded to its size.
                is_expanded = self.function in (torch.cat, torch.concat) and value.shape[:1] == (batch.samples,)
                rows[place] = _own_rows(value.copies) if is_expanded else value.copies
        return pytree.tree_map(lambda result: result.flatten(0, 1), self._vmapped(rows))

    def _vmapped(self, values: list[Tensor | None]) -> Any:
        """The operation on what each sample has in the place of operands, given in a new first dimension."""
        copied = {place: value for place, value in enumerate(values) if value is not None}

        def of_one_sample(*own: Tensor) -> Any:
            operands = list(map(_plain, self.operands))
            for place, value in zip(copied, own, strict=True):
                operands[place] = value
            return self._call(operands)

        try:
            return torch.vmap(of_one_sample)(*copied.values())
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, RuntimeError) and says_out_of_memory(error):
                raise
            name = getattr(self.function, "__name__", str(self.function))
            raise NotSeparableError(f"{name} does not run for each sample alone: {error}") from error

    def _call(self, operands: list[Any]) -> Any:
        arguments, keywords = pytree.tree_unflatten(operands, self.form)
        return self.function(*arguments, **keywords)


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Copied) else value


def _own_rows(copies: Tensor) -> Tensor:
    """(B, B, ...) copies of a value with a row for each sample -> (B, 1, ...) the sample's own row of its copy."""
    return copies.diagonal().movedim(-1, 0).unsqueeze(1)


@contextmanager
def sample_copies(
    model: nn.Module,
    parameters: Mapping[int, nn.Parameter],
    batch: BatchShape,
    take: Callable[[int, int, Tensor], None],
) -> Iterator[None]:
    """Within, every sample has a copy of the parameters, wherever modules of the model own them.

    Args:
        model: all of whose modules are looked through.
        parameters: by the number of their layer.
        batch: the samples.
        take: gets layer, sample and gradient whenever autograd has one; they add up.

    Raises:
        NotSeparableError: the model fails with copies.
    """
    layers = {id(parameter): layer for layer, parameter in parameters.items()}
    copied = {layer: _copied(layer, parameter, batch, take) for layer, parameter in parameters.items()}
    with ExitStack() as stack:
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if id(parameter) in layers:
                    # Python finds it before it asks the module for its parameters, which stay what they are.
                    vars(module)[name] = copied[layers[id(parameter)]]
                    stack.callback(vars(module).pop, name)
        try:
            yield
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, RuntimeError) and says_out_of_memory(error):
                raise
            raise NotSeparableError(
                f"the model fails with a copy of its parameters for each sample: {error}"
            ) from error


def _copied(layer: int, parameter: nn.Parameter, batch: BatchShape, take: Callable[[int, int, Tensor], None]) -> Copied:
    copies = parameter.detach().expand(batch.samples, *parameter.shape).requires_grad_()

    def arrived(copies: Tensor) -> None:
        assert copies.grad is not None
        gradients, copies.grad = copies.grad.to_dense(), None
        for member, gradient in enumerate(gradients):
            take(layer, member, gradient)

    copies.register_post_accumulate_grad_hook(arrived)  # type: ignore[no-untyped-call]
    return Copied.of(parameter, copies, batch)
