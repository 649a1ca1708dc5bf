"""Registry of gradient rules for module types."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.embedding import changed_rows_terms, changes_rows, embedding_terms
from gradsim.gradients.rules.experts import batched_expert_terms, expert_terms, stack_layout
from gradsim.gradients.rules.linear import computes_product, conv1d_terms, linear_terms
from gradsim.gradients.rules.norm import looks_like_norm, norm_terms
from gradsim.gradients.rules.terms import RowSum, Term

Rule = Callable[[Any, Call, Tensor], Mapping[str, Term | RowSum]]
"""Function of a module, one of its calls and the output gradient (T, D); returns terms by parameter name."""


def rule_for(module: nn.Module) -> Rule | None:
    """Return the gradient rule for a module's own parameters, or None if they must be left to autograd.

    Subclasses are tested individually because they may override the computation; instances with a replaced `forward`
    have no rule.
    """
    if "forward" in vars(module):
        return None
    if isinstance(module, nn.Embedding) and (module.max_norm or module.scale_grad_by_freq):
        return None
    for applies, rule in _RULES:
        if applies(module):
            return rule
    return None


def _is_a(kind: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: type(module) is kind


def _is_stack(module: nn.Module, *, batched: bool) -> bool:
    layout = stack_layout(module)
    return layout is not None and layout.batched == batched


_RULES: tuple[tuple[Callable[[nn.Module], bool], Rule], ...] = (
    (_is_a(nn.Linear), linear_terms),
    (_is_a(Conv1D), conv1d_terms),
    (_is_a(nn.Embedding), embedding_terms),
    (computes_product, linear_terms),
    (changes_rows, changed_rows_terms),
    (partial(_is_stack, batched=False), expert_terms),
    (partial(_is_stack, batched=True), batched_expert_terms),
    (looks_like_norm, norm_terms),
)
