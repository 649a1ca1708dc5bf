"""Gradient rules for stacks of experts: mixture-of-experts layers that store all experts' weights in one parameter.

Transformers calls such a module with the hidden states and with each token's experts and routing weights. Shapes: T
tokens (rows of the call's flattened input) of width H with k experts each; E experts of width F; N <= T·k entries, each
a token at one of its experts. Expert e computes for an entry n of token t

    z_n = x_t U_eᵀ + b_e,    a_n = gate(z_n),    y_t += w_n (a_n D_eᵀ + c_e)

where U (E, 2F or F, H) is `gate_up_proj` or, without a gate, `up_proj`, and D (E, H, F) is `down_proj`. The rules
recompute all intermediate values from the module's arguments instead of recording them.

Llama 4 calls its stack with the hidden states of all tokens for every expert, (E·T, H) in expert order. Each row is
already multiplied by its routing weight, which is zero if the token is not routed to the expert. In this case every
non-zero row is an entry with w = 1.
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
    """Storage layout of a stack of experts.

    Attributes:
        up: name of the parameter U.
        gated: whether `gate` is the module's `_apply_gate`, from 2F to F, instead of its `act_fn`.
        transposed: whether both weights are stored as (E, inputs, outputs).
        biased: whether the biases b (E, 2F or F) and c (E, H) exist, named after the weights with the suffix `_bias`.
        batched: whether calls contain rows for every expert, as in Llama 4, and `gate` is x, y -> y · act_fn(x).
    """

    up: str
    gated: bool
    transposed: bool
    biased: bool
    batched: bool = False


def stack_layout(module: nn.Module) -> StackLayout | None:
    """Return the layout of a stack of experts, or None if the module is not one.

    A stack has exactly the parameters described above, in consistent shapes and none in submodules, and a forward with
    three arguments (one if batched). This is only a structural test; `probe` later compares each layer's rule with
    autograd.
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
    """Factors of the gradients of one call, with entries sorted by expert, then by token.

    Attributes:
        layout: layout of the module.
        count: number of experts E.
        inputs: x (T, H).
        delta: δ = ∂L/∂y (T, H).
        tokens: (N,) row of `inputs` and `delta` for each entry; tokens with δ = 0 have no entries.
        experts: (N,) expert of each entry.
        weights: w (N,), routing weights.
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
        """Return the terms by parameter name, as sums over the entries n of each expert e with token t.

        ∂L/∂U_e = Σ_n (∂L/∂z_n) x_tᵀ, ∂L/∂D_e = Σ_n δ_t (w_n a_n)ᵀ, ∂L/∂b_e = Σ_n ∂L/∂z_n, ∂L/∂c_e = Σ_n w_n δ_t.
        Biases are treated as embedding rows that are looked up by expert instead of by token.
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
    """Return the terms of a stack of experts, given δ (T, H); empty if the call has another form.

    See `ExpertFactors.terms` for the formulas.
    """
    factors = expert_factors(module, call, delta)
    return factors.terms() if factors else {}


def expert_factors(module: nn.Module, call: Call, delta: Tensor) -> ExpertFactors | None:
    """Return the factors of a call: recompute z and a, and compute ∂L/∂z_n = gate'(z_n)ᵀ (w_n D_eᵀ δ_t).

    The result is None unless the arguments are hidden states (T, H), experts (T, k) and weights (T, k).
    """
    layout = stack_layout(module)
    arguments = (*call.arguments, *call.keywords.values())
    if layout is None or layout.batched or len(arguments) != 3 or not _is_routing(*arguments[1:], tokens=len(delta)):
        return None
    gate = getattr(module, "_apply_gate" if layout.gated else "act_fn")
    return _factors(module, layout, gate, call.rows(), delta, *arguments[1:])


def batched_expert_terms(module: nn.Module, call: Call, delta: Tensor) -> dict[str, Term]:
    """Return the terms of a stack that is called with rows (E·T, H) in expert order, given δ (E·T, H)."""
    layout, inputs = stack_layout(module), call.rows()
    count = len(module.down_proj)  # type: ignore[arg-type]
    if layout is None or len(inputs) != len(delta) or len(inputs) % count:
        return {}
    experts = torch.arange(count, device=inputs.device).repeat_interleave(len(inputs) // count)[:, None]
    # Zero rows contribute nothing.
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
    """Return the factors for rows (T, H) that are routed to experts (T, k) with weights (T, k)."""
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
    """Return the number of entries per row of a call: k, or 1 if each expert has its own rows."""
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
    """Return the token, expert and weight of every entry, sorted by expert, then by token.

    Entries that contribute nothing are dropped: those with δ or weight exactly zero, and those with an expert index of
    `count` or more, by which transformers marks experts on another device.
    """
    used = delta.any(dim=1)[:, None] & (weights != 0) & (experts < count)
    place = torch.nonzero(used.reshape(-1)).squeeze(1)
    chosen, order = torch.sort(experts.reshape(-1)[place].long(), stable=True)
    place = place[order]
    return place // experts.shape[1], chosen, weights.reshape(-1)[place]


def _entries_of_experts(experts: Tensor, count: int) -> tuple[int, ...]:
    """Return the number of entries of each expert, given all entries' experts in ascending order.

    This is the only synchronization with the device.
    """
    ends = torch.searchsorted(experts, torch.arange(count, device=experts.device), right=True)
    return tuple(torch.diff(ends, prepend=ends.new_zeros(1)).tolist())


def _product_by_expert(rows: Tensor, weights: Tensor, counts: Sequence[int]) -> Tensor:
    """Return rows_n W_e for every entry n of expert e, (N, B), given rows (N, A) and weights (E, A, B)."""
    products = rows.new_empty(len(rows), weights.shape[2])
    end = 0
    for weight, count in zip(weights, counts, strict=True):
        start, end = end, end + count
        if count:
            torch.mm(rows[start:end], weight, out=products[start:end])
    return products


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Return each row times its weight, in the dtype of the rows."""
    return (rows * weights[:, None]).to(rows.dtype)
