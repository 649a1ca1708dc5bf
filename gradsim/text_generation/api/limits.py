"""Rate limits in requests and tokens per minute."""

from aiolimiter import AsyncLimiter


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
