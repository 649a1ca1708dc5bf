"""Per-sample gradients of a batch by autograd: every sample has its own copy of a parameter.

Autograd sums the gradients of a parameter over the samples of a batch. Inside `sample_copies`, modules see a `Copied`
tensor in place of such a parameter. `torch.vmap` runs operations on it for each sample separately, with that sample's
copy; all other operations run unchanged. Modules run only once and need no special support, because each operation
computes for one sample exactly what PyTorch computes for a batch of one.
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
    """Error for gradients of batched samples that cannot be separated; the samples must run one at a time."""


@dataclass(frozen=True)
class BatchShape:
    """Shape of a batch: number of samples B, each padded to T tokens."""

    samples: int
    tokens: int

    def is_batch(self, value: Tensor) -> bool:
        """Return whether a tensor holds values of each sample, with a first dimension of B or B·T.

        Raises:
            NotSeparableError: The tensor is ambiguous.
        """
        size, length = self.samples, self.tokens
        has_rows = value.dim() > 0 and value.shape[0] in (size, size * length)
        if value.requires_grad and not has_rows:
            raise NotSeparableError(f"a value of shape {tuple(value.shape)} cannot be split into {size} samples")
        if value.requires_grad or not has_rows:
            return has_rows
        # Token ids and similar inputs; any other tensor may be a constant that happens to have this size.
        if value.shape[:2] == (size, length) and size != length:
            return True
        raise NotSeparableError(f"a value of shape {tuple(value.shape)} may be a constant or a batch of {size} samples")


class Copied(Tensor):
    """Tensor that does not depend on the input: a parameter, or a value computed only from parameters.

    Attributes:
        copies: (B, *shape) value of each sample, which receives the sample's gradient.
        batch: shape of the batch.
    """

    copies: Tensor
    batch: BatchShape

    @classmethod
    def of(cls, value: Tensor, copies: Tensor, batch: BatchShape) -> "Copied":
        """Return a value with its per-sample copies attached."""
        copied = value.detach().as_subclass(cls)
        copied.copies, copied.batch = copies, batch
        return copied

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation for each sample separately."""
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
        """Return the result for a batch, computed for each of its samples as a batch of one."""
        rows = [
            value.unflatten(0, (batch.samples, -1)) if is_of_batch else None
            for value, is_of_batch in zip(self.operands, of_batch, strict=True)
        ]
        for place, value in enumerate(self.operands):
            if isinstance(value, Copied):
                # Concatenation needs batch-sized operands, so this value was expanded to the batch size.
                is_expanded = self.function in (torch.cat, torch.concat) and value.shape[:1] == (batch.samples,)
                rows[place] = _own_rows(value.copies) if is_expanded else value.copies
        return pytree.tree_map(lambda result: result.flatten(0, 1), self._vmapped(rows))

    def _vmapped(self, values: list[Tensor | None]) -> Any:
        """Run the operation for each sample, with the given operands replaced by the sample's own values.

        Args:
            values: for each operand, the samples' values stacked in a new first dimension, or None to keep the operand.

        Raises:
            NotSeparableError: The operation cannot run on each sample separately.
        """
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
            raise NotSeparableError(f"{name} cannot run on each sample separately: {error}") from error

    def _call(self, operands: list[Any]) -> Any:
        arguments, keywords = pytree.tree_unflatten(operands, self.form)
        return self.function(*arguments, **keywords)


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Copied) else value


def _own_rows(copies: Tensor) -> Tensor:
    """Select each sample's own row of its copy: (B, B, ...) -> (B, 1, ...)."""
    return copies.diagonal().movedim(-1, 0).unsqueeze(1)


@contextmanager
def sample_copies(
    model: nn.Module,
    parameters: Mapping[int, nn.Parameter],
    batch: BatchShape,
    take: Callable[[int, int, Tensor], None],
) -> Iterator[None]:
    """Give every sample its own copy of the parameters, in all modules of the model, inside the context.

    Args:
        model: model to replace the parameters in.
        parameters: parameters by layer index.
        batch: shape of the batch.
        take: callback that receives layer, sample and gradient; the gradients of several calls add up.

    Raises:
        NotSeparableError: The model fails with copies.
    """
    layers = {id(parameter): layer for layer, parameter in parameters.items()}
    copied = {layer: _copied(layer, parameter, batch, take) for layer, parameter in parameters.items()}
    with ExitStack() as stack:
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if id(parameter) in layers:
                    # An instance attribute takes precedence over the module's registered parameter, which is unchanged.
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
