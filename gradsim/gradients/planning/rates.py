"""Measured throughput of a device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradsim.gradients.planning.plan import Plan


@dataclass(frozen=True)
class Rates:
    """Measured throughput of a device on gradient work.

    Attributes:
        operations_per_second: floating-point operations per second, counted as in `Cost.operations`.
        bytes_per_second: gradient bytes read during comparisons, per second.
    """

    operations_per_second: float
    bytes_per_second: float

    def seconds(self, plan: "Plan") -> float:
        """Return the predicted run time of a plan in seconds, excluding the check of the gradient rules."""
        reading = plan.cost.moved_bytes / self.bytes_per_second
        return plan.operations_with_copies / self.operations_per_second + reading
