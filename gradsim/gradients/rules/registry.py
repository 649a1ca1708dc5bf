"""Which rule a module's parameters follow."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.embedding import embedding_terms
from gradsim.gradients.rules.experts import expert_terms, stack_layout
from gradsim.gradients.rules.linear import conv1d_terms, linear_terms
from gradsim.gradients.rules.norm import looks_like_norm, norm_terms
from gradsim.gradients.rules.terms import RowSum, Term

Rule = Callable[[nn.Module, Call, Tensor], Mapping[str, Term | RowSum]]
"""(module, one call of it, gradient of its output as (T, D)) -> a term for each of its own parameters, by its name."""

_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear_terms,  # type: ignore[dict-item]
    Conv1D: conv1d_terms,  # type: ignore[dict-item]
    nn.Embedding: embedding_terms,  # type: ignore[dict-item]
}


def rule_for(module: nn.Module) -> Rule | None:
    """The rule that gives the gradients of a module's own parameters; None: only autograd can.

    Types must match exactly, because a subclass, or an instance with a forward of its own, may compute anything.
    """
    if "forward" in vars(module):
        return None
    if isinstance(module, nn.Embedding) and (module.max_norm or module.scale_grad_by_freq):
        return None
    if rule := _RULES.get(type(module)):
        return rule
    if stack_layout(module):
        return expert_terms
    return norm_terms if looks_like_norm(module) else None
