"""Stacks of experts: the weights of all experts of a mixture-of-experts layer in one parameter each.

Transformers keeps them in one module that is called with the hidden states and, for every token, the experts that it
goes to and their weights. Shapes: T tokens (rows of the call's flattened input), H wide, k experts for each; E experts
that are F wide; N <= T·k entries, each a token at one of its experts. Expert e computes for an entry n of token t

    z_n = x_t U_eᵀ + b_e,    a_n = gate(z_n),    y_t += w_n (a_n D_eᵀ + c_e)

where U (E, 2F or F, H) is `gate_up_proj` or, without a gate, `up_proj`, and D (E, H, F) is `down_proj`. All that the
gradients need is computed again here, from what the module was called with: nothing of it is recorded.

Llama 4 calls its stack with the hidden states of all tokens for every expert, (E·T, H) expert by expert, each times its
weight: zero where a token does not go to an expert. There every row is an entry of its own, and w is one.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.embedding import summed_by_token
from gradsim.gradients.rules.terms import ExpertOuter, Term


@dataclass(frozen=True)
class StackLayout:
    """How a module keeps its experts.

    Attributes:
        up: name of the parameter U.
        gated: whether `gate` is the module's `_apply_gate`, from 2F to F; else it is its `act_fn`.
        transposed: whether both weights are kept as (E, inputs, outputs).
        biased: whether b (E, 2F or F) and c (E, H) are there, named as the weights with `_bias` behind.
        batched: whether it is called with rows for every expert, as Llama 4's, and `gate` is x, y -> y · act_fn(x).
    """

    up: str
    gated: bool
    transposed: bool
    biased: bool
    batched: bool = False


def stack_layout(module: nn.Module) -> StackLayout | None:
    """The layout of a stack of experts; None if the module is anything else.

    It must have these parameters, in shapes that fit each other, no others even in modules of its own, and a forward
    of three arguments. Structure alone proves nothing: `check` compares the first gradient of every layer with
    autograd's.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    gated = "gate_up_proj" in shapes
    arguments = len(inspect.signature(type(module).forward).parameters) if gated or "up_proj" in shapes else 0
    batched = gated and arguments == len(("self", "hidden"))
    layout = StackLayout(
        up="gate_up_proj" if gated else "up_proj",
        gated=gated,
        transposed=batched or bool(getattr(module, "is_transposed", False)),
        biased="down_proj_bias" in shapes,
        batched=batched,
    )
    if (
        shapes == _expected_shapes(layout, shapes.get("down_proj", ()))
        and callable(getattr(module, "_apply_gate" if gated and not batched else "act_fn", None))
        and not getattr(module, "has_post_expert_norm", False)
        and (batched or arguments == len(("self", "hidden", "experts", "weights")))
    ):
        return layout
    return None


def _expected_shapes(layout: StackLayout, down: tuple[int, ...]) -> dict[str, tuple[int, ...]] | None:
    if len(down) != 3:
        return None
    experts = down[0]
    inner, hidden = down[1:] if layout.transposed else (down[2], down[1])
    outer = 2 * inner if layout.gated else inner
    up = (experts, hidden, outer) if layout.transposed else (experts, outer, hidden)
    shapes: dict[str, tuple[int, ...]] = {layout.up: up, "down_proj": down}
    if layout.biased:
        shapes[f"{layout.up}_bias"] = (experts, outer)
        shapes["down_proj_bias"] = (experts, hidden)
    return shapes


@dataclass(frozen=True, eq=False)
class ExpertFactors:
    """What the gradients of one call's weights are made of; entries ascend by expert, then by token.

    Attributes:
        layout: of the module.
        count: E.
        inputs: x (T, H).
        delta: δ = ∂L/∂y (T, H).
        tokens: (N,) row of `inputs` and `delta` of each entry; a token at whose output δ is zero has none.
        experts: (N,) expert of each entry.
        weights: w (N,).
        up_delta: ∂L/∂z (N, 2F or F).
        inner: w_n a_n (N, F).
    """

    layout: StackLayout
    count: int
    inputs: Tensor
    delta: Tensor
    tokens: Tensor
    experts: Tensor
    weights: Tensor
    up_delta: Tensor
    inner: Tensor

    def terms(self) -> dict[str, Term]:
        """The sums over the entries n of each expert e, t being the token of n.

        ∂L/∂U_e = Σ_n (∂L/∂z_n) x_tᵀ, ∂L/∂D_e = Σ_n δ_t (w_n a_n)ᵀ, ∂L/∂b_e = Σ_n ∂L/∂z_n, ∂L/∂c_e = Σ_n w_n δ_t.
        The biases are rows that are looked up by the expert, as an embedding's are by the token.
        """
        layout = self.layout
        counts = _entries_of_experts(self.experts, self.count)
        terms: dict[str, Term] = {
            layout.up: ExpertOuter(counts, self.tokens, self.up_delta, self.inputs, own_first=not layout.transposed),
            "down_proj": ExpertOuter(counts, self.tokens, self.inner, self.delta, own_first=layout.transposed),
        }
        if layout.biased:
            weighted = _weighted(self.delta[self.tokens], self.weights)
            terms[f"{layout.up}_bias"] = summed_by_token(self.experts, self.up_delta, self.count)
            terms["down_proj_bias"] = summed_by_token(self.experts, weighted, self.count)
        return terms


def expert_terms(module: nn.Module, call: Call, delta: Tensor) -> dict[str, Term]:
    """The gradients of a stack of experts, see `ExpertFactors.terms`; δ (T, H). Nothing for a call of another form."""
    factors = expert_factors(module, call, delta)
    return factors.terms() if factors else {}


def expert_factors(module: nn.Module, call: Call, delta: Tensor) -> ExpertFactors | None:
    """Compute a call's z and a again, and ∂L/∂z_n = gate'(z_n)ᵀ (w_n D_eᵀ δ_t).

    None if the call is not with hidden states (T, H), experts and weights (T, k).
    """
    layout = stack_layout(module)
    arguments = (*call.arguments, *call.keywords.values())
    if layout is None or layout.batched or len(arguments) != 3 or not _is_routing(*arguments[1:], tokens=len(delta)):
        return None
    gate = getattr(module, "_apply_gate" if layout.gated else "act_fn")
    return _factors(module, layout, gate, call.rows(), delta, *arguments[1:])


def batched_expert_terms(module: nn.Module, call: Call, delta: Tensor) -> dict[str, Term]:
    """The gradients of a stack that is called with (E·T, H) rows, expert by expert; δ (E·T, H)."""
    layout, inputs = stack_layout(module), call.rows()
    count = len(module.down_proj)  # type: ignore[arg-type]
    if layout is None or len(inputs) != len(delta) or len(inputs) % count:
        return {}
    experts = torch.arange(count, device=inputs.device).repeat_interleave(len(inputs) // count)[:, None]
    # A row of zeros adds nothing.
    weights = inputs.any(dim=1)[:, None].to(inputs.dtype)

    def gate(gate_up: Tensor) -> Tensor:
        first, second = gate_up.chunk(2, dim=-1)
        inner: Tensor = second * module.act_fn(first)  # type: ignore[operator]
        return inner

    return _factors(module, layout, gate, inputs, delta, experts, weights).terms()


def _factors(
    module: nn.Module,
    layout: StackLayout,
    gate: Callable[[Tensor], Tensor],
    inputs: Tensor,
    delta: Tensor,
    experts: Tensor,
    weights: Tensor,
) -> ExpertFactors:
    """The factors of rows (T, H) that go to experts (T, k) with weights (T, k)."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    up, down = parameters[layout.up], parameters["down_proj"]
    if layout.transposed:
        up, down = up.mT, down.mT
    tokens, experts, weights = _entries(experts, weights, delta, len(up))
    counts = _entries_of_experts(experts, len(up))
    z = _product_by_expert(inputs[tokens], up.mT, counts)
    if layout.biased:
        z += parameters[f"{layout.up}_bias"][experts]
    inner_delta = _product_by_expert(_weighted(delta[tokens], weights), down, counts)
    with torch.enable_grad():
        inner = gate(z.requires_grad_())
    (up_delta,) = torch.autograd.grad(inner, z, inner_delta)
    inner = _weighted(inner.detach(), weights)
    return ExpertFactors(layout, len(up), inputs, delta, tokens, experts, weights, up_delta, inner)


def experts_per_token(call: Call) -> int:
    """How many entries a row has in a call of a stack: k, or one where experts have rows of their own."""
    _, *routing = (*call.arguments, *call.keywords.values())
    return routing[0].shape[-1] if routing else 1


def _is_routing(experts: object, weights: object, *, tokens: int) -> bool:
    return (
        isinstance(experts, Tensor)
        and isinstance(weights, Tensor)
        and not experts.is_floating_point()
        and experts.dim() == 2
        and experts.shape == weights.shape
        and len(experts) == tokens
    )


def _entries(experts: Tensor, weights: Tensor, delta: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token, expert and weight of every entry, by expert and then token.

    Entries that add nothing are left out: where δ or the weight is exactly zero, and where the expert is none of these
    (transformers' sign for one that lies on another device).
    """
    used = delta.any(dim=1)[:, None] & (weights != 0) & (experts < count)
    place = torch.nonzero(used.reshape(-1)).squeeze(1)
    chosen, order = torch.sort(experts.reshape(-1)[place].long(), stable=True)
    place = place[order]
    return place // experts.shape[1], chosen, weights.reshape(-1)[place]


def _entries_of_experts(experts: Tensor, count: int) -> tuple[int, ...]:
    """How many entries each expert has, given the ascending experts of all entries: the one wait for the device."""
    ends = torch.searchsorted(experts, torch.arange(count, device=experts.device), right=True)
    return tuple(torch.diff(ends, prepend=ends.new_zeros(1)).tolist())


def _product_by_expert(rows: Tensor, weights: Tensor, counts: Sequence[int]) -> Tensor:
    """rows_n W_e for every entry n of expert e: rows (N, A), weights (E, A, B) -> (N, B)."""
    products = rows.new_empty(len(rows), weights.shape[2])
    end = 0
    for weight, count in zip(weights, counts, strict=True):
        start, end = end, end + count
        if count:
            torch.mm(rows[start:end], weight, out=products[start:end])
    return products


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Each row times its weight, whose type may be another."""
    return (rows * weights[:, None]).to(rows.dtype)
