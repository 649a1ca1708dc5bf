"""Length check: verifies that the model can run the longest sample before any work starts."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.gradients.capture.capture import flags_kept
from gradsim.gradients.capture.eager import experts_that_compute_in
from gradsim.gradients.capture.encoding import Encoded, Integers
from gradsim.gradients.capture.forward import Forward, without_cache
from gradsim.gradients.capture.memory import says_out_of_memory
from gradsim.models.fresh_state import FreshState, fresh_state
from gradsim.models.limits import context_length


def require_length(model: PreTrainedModel, samples: Sequence[Encoded]) -> None:
    """Check that the model can run the longest sample.

    Runs a forward pass if the sample is longer than the configured context. Position tables have many names and shapes,
    and some models compute positions, so only a forward pass shows whether the length is supported.

    Raises:
        GradientError: A sample is too long for the model.
    """
    if not samples:
        return
    longest = max(samples, key=lambda sample: len(sample.tokens)).tokens
    context = context_length(model.config)
    if context is not None and len(longest) <= context:
        return
    with flags_kept(model), without_cache(model), experts_that_compute_in(model, model.dtype):
        model.train(False)
        with fresh_state(model) as state:
            failure = partial(_failure, model, state)
            error = failure(longest)
            if error is None or failure(longest[: context or 2]):
                return  # the sample runs, or fails for a reason other than its length
            fails = bisect_left(
                range(len(longest)), True, lo=context or 2, key=lambda length: failure(longest[:length]) is not None
            )
    sample = next(sample for sample in samples if len(sample.tokens) >= fails)
    raise GradientError(
        f"sample {sample.id!r} has {len(sample.tokens)} tokens, but the model accepts at most {fails - 1} ({error}): "
        "shorten or exclude it"
    )


def _failure(model: PreTrainedModel, state: FreshState, tokens: Integers) -> str | None:
    """Return the model's error message for these tokens, or None if they run or only run out of memory."""
    state.restore()
    ids = torch.from_numpy(tokens).to(next(model.parameters()).device)[None]
    try:
        with torch.no_grad(), nullcontext() if ids.is_cpu else CheckedLookups():  # type: ignore[no-untyped-call]
            Forward(model)(ids, logits_to_keep=1)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        if says_out_of_memory(error):
            return None
        return next(filter(None, str(error).splitlines()), type(error).__name__)
    return None


class CheckedLookups(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that raises an IndexError for a lookup past the end of its table.

    On a GPU, such a lookup triggers a device-side assertion, and the process cannot use the GPU afterwards.
    """

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation after checking its indices.

        Raises:
            IndexError: An index is past the end of its table.
        """
        match function, args:
            case torch.ops.aten.embedding.default, [table, indices, *_]:
                _require_within(indices, table.shape[0])
            case torch.ops.aten.gather.default | torch.ops.aten.index_select.default, [table, dimension, indices, *_]:
                _require_within(indices, table.shape[dimension])
            case torch.ops.aten.index.Tensor, [table, indices] if all(_are_numbers(each) for each in indices):
                for dimension, chosen in enumerate(indices):
                    if chosen is not None:
                        _require_within(chosen, table.shape[dimension])
        return function(*args, **(kwargs or {}))


def _are_numbers(indices: Tensor | None) -> bool:
    """Return whether these are integer indices or None, not a mask, which indexes as many dimensions as it has."""
    return indices is None or indices.dtype not in (torch.bool, torch.uint8)


def _require_within(indices: Tensor, rows: int) -> None:
    if indices.numel() and int(indices.max()) >= rows:
        raise IndexError(f"index {int(indices.max())} is out of bounds for a table of {rows}")
