"""Estimated and actual cost of requests, a budget that limits it, and limits of their rate."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from aiolimiter import AsyncLimiter

from gradsim.dataset.token_estimate import estimated_tokens
from gradsim.study.settings import Prices
from gradsim.text_generation.api.failures import ParaphraseError

# Tokens of roles and delimiters in a request.
_FRAME_TOKENS = 12

# Minimum reservation for a request, as a multiple of its estimate.
_MARGIN = 2


class Cost(NamedTuple):
    """Input and output tokens."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Sum of input and output tokens."""
        return self.input_tokens + self.output_tokens

    def dollars(self, prices: Prices) -> float:
        """Return the price in dollars."""
        return (self.input_tokens * prices.input + self.output_tokens * prices.output) / 1e6


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    costs = list(costs)
    return Cost(sum(cost.input_tokens for cost in costs), sum(cost.output_tokens for cost in costs))


def estimated_cost(system_prompt: str, text: str) -> Cost:
    """Return the estimated cost of rewriting a text, assuming an answer of the same length."""
    tokens = estimated_tokens(text)
    return Cost(estimated_tokens(system_prompt) + tokens + _FRAME_TOKENS, tokens)


@dataclass
class Bill:
    """Cost of a request; zero until it is answered."""

    cost: Cost = field(default_factory=Cost)


class Budget:
    """Limit on dollars spent, including requests in flight.

    Each request reserves its maximum expected cost, based on the excess of earlier requests over their estimates:
    reasoning models write many more tokens than their answers contain. The first request therefore runs alone.

    Attributes:
        spent: cost so far.
    """

    def __init__(self, prices: Prices | None, most: float | None) -> None:
        """Create an unspent budget.

        Args:
            prices: prices of tokens; None: requests are free.
            most: maximum dollars; None: no limit.
        """
        self.spent = Cost()
        self._prices = prices
        self._most = math.inf if most is None else most
        self._in_flight: list[float] = []
        self._surplus: Cost | None = None
        """Maximum excess over the estimate of any request so far."""
        self._changed = asyncio.Condition()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return not math.isinf(self._most)

    def learn(self, estimate: Cost, cost: Cost) -> None:
        """Record the excess of a request's cost over its estimate, without counting it as spent."""
        before = self._surplus or Cost()
        self._surplus = Cost(
            max(before.input_tokens, cost.input_tokens - estimate.input_tokens),
            max(before.output_tokens, cost.output_tokens - estimate.output_tokens),
        )

    def spend(self, cost: Cost) -> None:
        """Add a cost to the spending."""
        self.spent = total([self.spent, cost])

    def at_most(self, estimate: Cost) -> Cost:
        """Return the maximum expected cost of a request."""
        with_surplus = total([estimate, self._surplus or Cost()])
        with_margin = Cost(_MARGIN * estimate.input_tokens, _MARGIN * estimate.output_tokens)
        return max(with_surplus, with_margin, key=self._dollars)

    @asynccontextmanager
    async def reserved(self, estimate: Cost) -> AsyncIterator[Bill]:
        """Reserve the maximum expected cost of a request during the block, then spend the cost on its bill.

        Waits for requests in flight if the budget is too small, since they may cost less than reserved.

        Raises:
            ParaphraseError: the rest of the budget is too small, and no requests are in flight.
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
            f"max_cost of ${self._most:.4g} is reached: ${spent:.4f} spent, and the next text may cost "
            f"${wanted:.4f}; paid answers are saved, raise max_cost in the study and run again to continue"
        )

    def _dollars(self, cost: Cost) -> float:
        return cost.dollars(self._prices) if self._prices else 0.0


class Limits:
    """Limits requests to an even rate, with bursts of at most one second's worth or the largest request."""

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, largest: int) -> None:
        """Create limits.

        Args:
            requests_per_minute: maximum requests; None: no limit.
            tokens_per_minute: maximum input and output tokens; None: no limit.
            largest: tokens of the largest request.
        """
        self._requests = _limiter(requests_per_minute, 1)
        self._tokens = _limiter(tokens_per_minute, largest)

    async def admit(self, tokens: int) -> None:
        """Wait until a request with this number of tokens is allowed."""
        if self._requests:
            await self._requests.acquire()
        if self._tokens:
            await self._tokens.acquire(tokens)

    async def settle(self, more: int) -> None:
        """Count tokens beyond those that a request was admitted with, waiting as the limit requires."""
        while self._tokens and more > 0:
            taken = min(more, int(self._tokens.max_rate))
            await self._tokens.acquire(taken)
            more -= taken


def _limiter(per_minute: int | None, largest: int) -> AsyncLimiter | None:
    """Return a limiter with a burst of one second's worth, or of the largest single request if that is more."""
    if per_minute is None:
        return None
    at_once = max(per_minute / 60, largest, 1)
    return AsyncLimiter(at_once, 60 * at_once / per_minute)
