"""Choose the dimension of each layer's projected gradient."""

from collections.abc import Mapping

from gradsim.errors import GradientError


def published_dimension(share: float, elements: int) -> int:
    """Return the dimension for a share of a layer's n parameters, max(512, 512·round(share·n/512)), as published."""
    return max(512, 512 * round(share * elements / 512))


def dimensions_of_total(total: int, elements: Mapping[str, int]) -> dict[str, int]:
    """Return dimensions proportional to the layers' sizes that add up to `total`.

    Each layer gets at least one dimension and at most its size. Remaining dimensions go to the layers with the largest
    fractional parts, the first of equal ones (Hamilton's method).

    Raises:
        GradientError: The total is less than one dimension per layer, or exceeds the number of parameters.
    """
    parameters = sum(elements.values())
    if not len(elements) <= total <= parameters:
        raise GradientError(
            f"{total:,} dimensions cannot be distributed over {len(elements)} layers with {parameters:,} parameters: "
            f"choose a total from {len(elements):,} to {parameters:,}"
        )
    # Use exact integers: floats cannot represent total·n.
    spare = total - len(elements)
    room = {layer: n - 1 for layer, n in elements.items()}
    whole = parameters - len(elements)
    shares = {layer: divmod(spare * n, max(whole, 1)) for layer, n in room.items()}
    left = spare - sum(quotient for quotient, _ in shares.values())
    by_remainder = sorted(shares, key=lambda layer: -shares[layer][1])
    larger = set(by_remainder[:left])
    return {layer: 1 + quotient + (layer in larger) for layer, (quotient, _) in shares.items()}
