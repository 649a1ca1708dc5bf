"""What requests cost, before they are made and after, and a budget that they must not exceed."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from gradsim.dataset.token_estimate import estimated_tokens
from gradsim.study.settings import Prices
from gradsim.text_generation.api.failures import ParaphraseError

# Of what surrounds the messages of a request: roles, delimiters.
_FRAME_TOKENS = 12

# What is set aside for a request at least, which may turn out longer than most; times its estimate.
_MARGIN = 2


class Cost(NamedTuple):
    """Tokens read and written by a model."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens

    def dollars(self, prices: Prices) -> float:
        """Its price."""
        return (self.input_tokens * prices.input + self.output_tokens * prices.output) / 1e6


def total(costs: Iterable[Cost]) -> Cost:
    """All together."""
    costs = list(costs)
    return Cost(sum(cost.input_tokens for cost in costs), sum(cost.output_tokens for cost in costs))


def estimated_cost(system_prompt: str, text: str) -> Cost:
    """About what rewriting a text takes: the answer is about as long as the text."""
    tokens = estimated_tokens(text)
    return Cost(estimated_tokens(system_prompt) + tokens + _FRAME_TOKENS, tokens)


@dataclass
class Bill:
    """What a request came to; nothing as long as it has no answer."""

    cost: Cost = field(default_factory=Cost)


class Budget:
    """Dollars that may be spent, counting what is in flight.

    For a request as much is set aside as it may cost by what others did, so that the first is made alone: models that
    think at length write many more tokens than their texts tell.

    Attributes:
        spent: so far.
    """

    def __init__(self, prices: Prices | None, most: float | None) -> None:
        """A budget of which nothing is spent.

        Args:
            prices: None: nothing is counted.
            most: dollars in all; None: no limit.
        """
        self.spent = Cost()
        self._prices = prices
        self._most = math.inf if most is None else most
        self._in_flight: list[float] = []
        self._surplus: Cost | None = None
        """Tokens above the estimate, the most of any request so far."""
        self._changed = asyncio.Condition()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return not math.isinf(self._most)

    def learn(self, estimate: Cost, cost: Cost) -> None:
        """See what a request did cost, whoever paid for it."""
        before = self._surplus or Cost()
        self._surplus = Cost(
            max(before.input_tokens, cost.input_tokens - estimate.input_tokens),
            max(before.output_tokens, cost.output_tokens - estimate.output_tokens),
        )

    def spend(self, cost: Cost) -> None:
        """Count what was paid."""
        self.spent = total([self.spent, cost])

    def at_most(self, estimate: Cost) -> Cost:
        """What a request may cost."""
        with_surplus = total([estimate, self._surplus or Cost()])
        with_margin = Cost(_MARGIN * estimate.input_tokens, _MARGIN * estimate.output_tokens)
        return max(with_surplus, with_margin, key=self._dollars)

    @asynccontextmanager
    async def reserved(self, estimate: Cost) -> AsyncIterator[Bill]:
        """Set aside what a request may cost while the block lasts; then what its bill says is spent.

        Waits for requests in flight, which may turn out cheaper than what is set aside for them.

        Raises:
            ParaphraseError: there is no room left, and none will come.
        """
        if not self.limited:
            yield Bill()
            return
        async with self._changed:
            await self._changed.wait_for(lambda: not self._in_flight or self._has_room(estimate))
            if not self._has_room(estimate):
                self._refuse(estimate)
            set_aside = self._dollars(self.at_most(estimate))
            self._in_flight.append(set_aside)
        bill = Bill()
        try:
            yield bill
        finally:
            async with self._changed:
                self._in_flight.remove(set_aside)
                if bill.cost.tokens:  # it was answered
                    self.learn(estimate, bill.cost)
                    self.spend(bill.cost)
                self._changed.notify_all()

    def _has_room(self, estimate: Cost) -> bool:
        wanted = self._dollars(self.at_most(estimate))
        if wanted and self._surplus is None and self._in_flight:
            return False
        return self._dollars(self.spent) + sum(self._in_flight) + wanted <= self._most

    def _refuse(self, estimate: Cost) -> None:
        spent, wanted = self._dollars(self.spent), self._dollars(self.at_most(estimate))
        raise ParaphraseError(
            f"max_cost of ${self._most:.4g} is reached: ${spent:.4f} are spent, and the next text may cost "
            f"${wanted:.4f}; what is paid for is kept, raise max_cost in the study and run again to go on"
        )

    def _dollars(self, cost: Cost) -> float:
        return cost.dollars(self._prices) if self._prices else 0.0
