"""Requests and tokens a minute that an API is asked for at most."""

from aiolimiter import AsyncLimiter


class Limits:
    """Lets requests through at an even pace: no minute has more than allowed, but for those of its first second."""

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, largest: int) -> None:
        """Limits; None: none.

        Args:
            requests_per_minute: in any minute.
            tokens_per_minute: of questions and answers.
            largest: tokens of the largest request.
        """
        self._requests = _limiter(requests_per_minute, 1)
        self._tokens = _limiter(tokens_per_minute, largest)

    async def admit(self, tokens: int) -> None:
        """Wait until a request of so many tokens may be made."""
        if self._requests:
            await self._requests.acquire()
        if self._tokens:
            await self._tokens.acquire(tokens)

    async def settle(self, more: int) -> None:
        """Count tokens that a request took beyond those that it was admitted with; waits as long as they take."""
        while self._tokens and more > 0:
            taken = min(more, int(self._tokens.max_rate))
            await self._tokens.acquire(taken)
            more -= taken


def _limiter(per_minute: int | None, largest: int) -> AsyncLimiter | None:
    """At most a second's worth at once, or the largest single thing where that is more."""
    if per_minute is None:
        return None
    at_once = max(per_minute / 60, largest, 1)
    return AsyncLimiter(at_once, 60 * at_once / per_minute)
