"""Memory profile of a forward and backward pass, measured on a piece of a sample or estimated from shapes."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.encoding import Encoded, model_limits
from gradsim.gradients.capture.layers import passed_layers
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.experts import experts_per_token, stack_layout

# Temporary tensors of a layer's width, such as gradients, in memory at once between two blocks.
_TRANSIENT = 4


@dataclass(frozen=True)
class PassProfile:
    """Bytes that a pass needs in addition to the weights and the held samples.

    Attributes:
        per_token: bytes per token that all blocks keep for the backward pass.
        per_pair: bytes per pair of tokens of a sample that all blocks keep, such as attention weights.
        per_logit_token: bytes per token for the logits, their gradients and intermediate values.
        block_input: bytes per token that a checkpointed block keeps.
        blocks: number of blocks that can be checkpointed.
        widest: bytes per token of the widest module output.
    """

    per_token: float = 0.0
    per_pair: float = 0.0
    per_logit_token: int = 0
    block_input: int = 0
    blocks: int = 0
    widest: int = 0

    def nbytes(self, members: int, length: int, *, checkpoint: bool = False) -> int:
        """Return the bytes for a batch of `members` samples padded to `length` tokens."""
        tokens = members * length
        kept = self.per_token * tokens + self.per_pair * tokens * length
        if checkpoint and self.blocks:
            kept = kept / self.blocks + self.block_input * self.blocks * tokens
        return int(kept + tokens * (self.per_logit_token + _TRANSIENT * self.widest))


class PassWatch:
    """Context manager that measures the pass of one piece of a sample."""

    def __init__(self, model: PreTrainedModel, capture: GradientCapture, piece: Encoded) -> None:
        self._model, self._capture, self._tokens = model, capture, len(piece.tokens)
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._kept: dict[int, Tensor] = {}
        self._rows: dict[nn.Module, int] = {}
        self._widest = 0
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        self._hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(self._saved, lambda tensor: tensor))
        self._capture.watch = self._called
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.watch = None
        self._hooks.close()

    @property
    def rows_per_token(self) -> dict[nn.Module, int]:
        """Number of outer-product rows per token of every module that ran, over all its calls, rounded up."""
        return {module: -(-count // self._tokens) for module, count in self._rows.items()}

    @property
    def profile(self) -> PassProfile:
        """Profile of the measured pass, extrapolated to samples of any length."""
        tokens, outputs = self._tokens, model_limits(self._model).outputs
        linear = quadratic = logits = 0
        for tensor in self._kept.values():
            if tensor.dim() and tensor.shape[-1] == outputs:
                logits += tensor.shape[-1] * tensor.itemsize
            elif sum(size == tokens for size in tensor.shape) > 1:
                quadratic += tensor.untyped_storage().nbytes()
            else:
                linear += tensor.untyped_storage().nbytes()
        itemsize = self._capture.parameters[0].itemsize
        # Modules of other layers are not watched, but their outputs have gradients, too.
        widest = max(self._widest, estimated_profile(self._model, self._capture, {}).widest // itemsize)
        return _profile(self._model, itemsize, linear / tokens, quadratic / tokens**2, widest, logits)

    def _saved(self, tensor: Tensor) -> Tensor:
        self._keep(tensor)
        return tensor

    def _called(self, module: nn.Module, call: Call, output: Tensor) -> None:
        rows = output.numel() // max(1, output.shape[-1])
        if stack_layout(module):
            rows *= experts_per_token(call)
        self._rows[module] = self._rows.get(module, 0) + rows
        if module is not self._model.get_output_embeddings():
            self._widest = max(self._widest, output.numel() // self._tokens)
        for value in (*call.arguments, *call.keywords.values()):
            if isinstance(value, Tensor):
                self._keep(value)

    def _keep(self, tensor: Tensor) -> None:
        """Count a storage once; holding the tensor prevents the reuse of its address."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._weights:
            self._kept.setdefault(address, tensor.detach())


def estimated_profile(
    model: PreTrainedModel, capture: GradientCapture, rows_per_token: Mapping[nn.Module, int]
) -> PassProfile:
    """Estimate the profile of a pass from the model's shapes; its weights may be on the `meta` device.

    Counts the inputs and outputs of every module with a rule that the backward pass goes through, except the output
    head. Inputs shared by several modules, such as the query, key and value projections, count several times; the
    excess accounts for other tensors that autograd saves, the arguments of activations and products. Attention weights
    count only for eager attention.

    Args:
        model: causal language model.
        capture: capture of this model.
        rows_per_token: runs per token of modules that do not run exactly once.
    """
    itemsize = capture.parameters[0].itemsize
    head: nn.Module | None = model.get_output_embeddings()
    elements = widest = 0
    passed = GradientCapture(model, layers=passed_layers(model, capture.layers))
    for ruled in passed.ruled:
        if ruled.module is not head:
            shapes = [passed.parameters[layer].shape for layer in ruled.layers.values()]
            width, output = _widths(ruled.module, shapes)
            elements += rows_per_token.get(ruled.module, 1) * width
            widest = max(widest, output)
    configuration = model.config.get_text_config()
    weights = 0
    if getattr(configuration, "_attn_implementation", "eager") == "eager":
        # Scores, and their softmax.
        weights = 2 * getattr(configuration, "num_attention_heads", 0) * getattr(configuration, "num_hidden_layers", 0)
    return _profile(model, itemsize, float(elements * itemsize), float(weights * itemsize), widest)


def hidden_size(model: PreTrainedModel) -> int:
    """Return the hidden size of a model, or the width of its input embeddings if the configuration has none."""
    words: Any = model.get_input_embeddings()
    size: int = getattr(model.config.get_text_config(), "hidden_size", None) or words.weight.shape[1]
    return size


def _widths(module: nn.Module, shapes: Sequence[torch.Size]) -> tuple[int, int]:
    """Return the total width of a module's inputs and outputs, and the width of its output, ignoring biases."""
    dimensions = max(map(len, shapes))
    weights = [shape for shape in shapes if len(shape) == dimensions]
    if isinstance(module, nn.Embedding):
        return weights[0][1], weights[0][1]
    if dimensions == 1:
        return 2 * weights[0][0], weights[0][0]
    output = weights[0][-1] if isinstance(module, Conv1D) else weights[0][-2]
    return sum(shape[-2] + shape[-1] for shape in weights), output


def _profile(
    model: PreTrainedModel, itemsize: int, per_token: float, per_pair: float, widest: int, logits: int = 0
) -> PassProfile:
    """Assemble a profile.

    Args:
        model: causal language model.
        itemsize: bytes per element of the model's dtype.
        per_token: bytes per token that the blocks keep.
        per_pair: bytes per pair of tokens that the blocks keep.
        widest: elements per token of the widest module output.
        logits: bytes per token of logit-sized tensors that autograd keeps.
    """
    wide = max(itemsize, 4)
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    return PassProfile(
        per_token=per_token,
        per_pair=per_pair,
        # Logits; their gradient in at least float32 and in the model's dtype; saved logit-sized tensors twice.
        per_logit_token=model_limits(model).outputs * (itemsize + wide + (itemsize if itemsize < wide else 0))
        + 2 * logits,
        block_input=hidden_size(model) * itemsize,
        blocks=len(blocks),
        widest=widest * itemsize,
    )
