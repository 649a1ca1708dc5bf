"""How fast a device computes gradients."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradsim.gradients.planning.plan import Plan


@dataclass(frozen=True)
class Rates:
    """How fast a device is at this work.

    Attributes:
        operations_per_second: floating-point operations of passes, gradients and products, as a plan counts them.
        bytes_per_second: of gradients that are read to compare them.
    """

    operations_per_second: float
    bytes_per_second: float

    def seconds(self, plan: "Plan") -> float:
        """Return the time that a comparison takes, without the check of the rules."""
        reading = plan.cost.moved_bytes / self.bytes_per_second
        return plan.operations_with_copies / self.operations_per_second + reading
