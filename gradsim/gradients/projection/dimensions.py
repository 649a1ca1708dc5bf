"""How many dimensions of a projected gradient each layer gets."""

from collections.abc import Mapping

from gradsim.errors import GradientError


def published_dimension(share: float, elements: int) -> int:
    """Dimension of a layer for a share of its parameters: max(512, 512·round(share·n/512)), as published."""
    return max(512, 512 * round(share * elements / 512))


def dimensions_of_total(total: int, elements: Mapping[str, int]) -> dict[str, int]:
    """Dimensions in proportion to the layers' sizes that add up to `total`: at least one, at most the layer's size.

    Fractions are given to those with the largest, the first of equals (Hamilton's method).

    Raises:
        GradientError: less than one dimension a layer, or more than all parameters.
    """
    parameters = sum(elements.values())
    if not len(elements) <= total <= parameters:
        raise GradientError(
            f"{total:,} dimensions cannot be spread over {len(elements)} layers of {parameters:,} parameters: "
            f"give {len(elements):,} to {parameters:,}"
        )
    # Exact integers: total·n does not fit a float.
    spare = total - len(elements)
    room = {layer: n - 1 for layer, n in elements.items()}
    whole = parameters - len(elements)
    shares = {layer: divmod(spare * n, max(whole, 1)) for layer, n in room.items()}
    left = spare - sum(quotient for quotient, _ in shares.values())
    by_remainder = sorted(shares, key=lambda layer: -shares[layer][1])
    larger = set(by_remainder[:left])
    return {layer: 1 + quotient + (layer in larger) for layer, (quotient, _) in shares.items()}
