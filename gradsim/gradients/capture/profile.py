"""What one forward and backward pass keeps in memory: measured on a piece of a sample, or estimated from shapes."""

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
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.experts import experts_per_token, stack_layout

# Tensors of a layer's width that stand at once while autograd is between two blocks: gradients come and go.
_TRANSIENT = 4


@dataclass(frozen=True)
class PassProfile:
    """Bytes that a pass needs beyond the weights and what is held.

    Attributes:
        per_token: kept for the backward by all blocks, for every token.
        per_pair: the same, for every two tokens of a sample: attention weights where they are kept.
        per_logit_token: logits, their gradients and what is kept to compute them, for every token.
        block_input: what a checkpointed block keeps, for every token.
        blocks: how many blocks can be checkpointed.
        widest: the widest output of a module, for every token.
    """

    per_token: float = 0.0
    per_pair: float = 0.0
    per_logit_token: int = 0
    block_input: int = 0
    blocks: int = 0
    widest: int = 0

    def nbytes(self, members: int, length: int, *, checkpoint: bool = False) -> int:
        """Of a batch of `members` samples padded to `length` tokens."""
        tokens = members * length
        kept = self.per_token * tokens + self.per_pair * tokens * length
        if checkpoint and self.blocks:
            kept = kept / self.blocks + self.block_input * self.blocks * tokens
        return int(kept + tokens * (self.per_logit_token + _TRANSIENT * self.widest))


class PassWatch:
    """Within, the pass of one piece is measured.

    Attributes:
        rows_per_token: rows of outer products of every module that ran, in all its calls, for each token; rounded up.
    """

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
        """Rows of outer products of every module that ran, in all its calls, for each token; rounded up."""
        return {module: -(-count // self._tokens) for module, count in self._rows.items()}

    @property
    def profile(self) -> PassProfile:
        """What the pass needs for longer samples, too."""
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
        return _profile(self._model, itemsize, linear / tokens, quadratic / tokens**2, self._widest, logits)

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
        """Count a storage once; holding the tensor keeps its address from being given to another."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._weights:
            self._kept.setdefault(address, tensor.detach())


def estimated_profile(
    model: PreTrainedModel, capture: GradientCapture, rows_per_token: Mapping[nn.Module, int]
) -> PassProfile:
    """What a pass keeps, from the model's shapes alone: its weights may be on the `meta` device.

    Counted are the inputs and the outputs of every module with a rule but the output head. Inputs that several modules
    share, as queries, keys and values do, count several times; that stands for what autograd keeps besides: the
    arguments of activations and products. Attention weights count where attention is computed by plain products.

    Args:
        model: a causal language model.
        capture: of it.
        rows_per_token: how often modules run for each token, where that is not once.
    """
    itemsize = capture.parameters[0].itemsize
    head: nn.Module | None = model.get_output_embeddings()
    elements = widest = 0
    for ruled in capture.ruled:
        if ruled.module is not head:
            shapes = [capture.parameters[layer].shape for layer in ruled.layers.values()]
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
    """Return the width of a model's hidden states; that of its input embeddings where the configuration has none."""
    words: Any = model.get_input_embeddings()
    size: int = getattr(model.config.get_text_config(), "hidden_size", None) or words.weight.shape[1]
    return size


def _widths(module: nn.Module, shapes: Sequence[torch.Size]) -> tuple[int, int]:
    """Elements of a module's inputs and outputs for one row, and of its widest output; biases add nothing."""
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
    """A profile, given bytes that the blocks keep, elements of the widest output, bytes kept of one token's logits."""
    wide = max(itemsize, 4)
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    return PassProfile(
        per_token=per_token,
        per_pair=per_pair,
        # Logits; their gradient in at least float32, and in the model's format; twice what changes them on the way.
        per_logit_token=model_limits(model).outputs * (itemsize + wide + (itemsize if itemsize < wide else 0))
        + 2 * logits,
        block_input=hidden_size(model) * itemsize,
        blocks=len(blocks),
        widest=widest * itemsize,
    )
