"""Requests to an API, retried until they are answered."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from gradsim.text_generation.api.failures import (
    Address,
    BusyError,
    NotTakenError,
    ParaphraseError,
    meaning,
    not_a_completion,
)
from gradsim.text_generation.request import Answer

# Spread over about two minutes by the pauses in between.
ATTEMPTS = 10
_PAUSE = wait_exponential_jitter(multiplier=0.5, max=30.0, jitter=1.0)

# Number of consecutive unanswered texts after which the API counts as unavailable.
_AWAY = 2

# Seconds to wait on cancellation for an answer in flight, which is billed in any case.
_GRACE_SECONDS = 5.0

_CONNECT_SECONDS = 10.0

Value = TypeVar("Value")


class UnansweredError(Exception):
    """A text without an answer after all attempts, from an API that answers other texts.

    Attributes:
        problem: outcome of the last attempt.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Conversation:
    """Sends requests to an API and tracks whether it answers.

    Args:
        client: client of the API.
        address: address of the API.
        timeout: seconds until a request counts as lost.
        attempts: maximum number of attempts per text.
    """

    def __init__(self, client: openai.AsyncOpenAI, address: Address, *, timeout: float, attempts: int) -> None:
        self._client = client
        self._address = address
        self._timeout = timeout
        self._attempts = attempts
        self._answered_before = False
        self._unanswered = 0
        """Consecutive unanswered texts."""

    async def answer(
        self,
        messages: list[dict[str, str]],
        parameters: Mapping[str, Any],
        admit: Callable[[], Awaitable[None]],
        lost: Callable[[], None],
    ) -> Answer:
        """Return the answer to messages; retry if the API is busy or returns an invalid answer.

        Args:
            messages: messages with role and content.
            parameters: model, temperature and seed.
            admit: waits until the rate limits allow a request.
            lost: called when a request may have been billed although its answer is lost.

        Raises:
            ParaphraseError: the API rejects the request or is unavailable.
            UnansweredError: all attempts failed.
        """
        asking = AsyncRetrying(
            retry=retry_if_exception_type(BusyError), stop=stop_after_attempt(self._attempts), wait=_pause, reraise=True
        )

        async def ask() -> Answer:
            await admit()
            try:
                return await _finished(self._ask(messages, parameters))
            except BusyError as error:
                if error.billed:
                    lost()
                raise

        try:
            answer: Answer = await asking(ask)
        except NotTakenError as refusal:
            answer = Answer("", refusal.finish_reason, 0, 0)
        except BusyError as error:
            self._unanswered += 1
            raise self._given_up(error.problem) from None
        self._unanswered = 0
        return answer

    def _given_up(self, problem: str) -> UnansweredError | ParaphraseError:
        if self._unanswered < _AWAY:
            return UnansweredError(problem)
        return ParaphraseError(
            f"{self._address.host} {problem}, {self._attempts} times in a row; all answers are saved, run again later"
        )

    async def _ask(self, messages: list[dict[str, str]], parameters: Mapping[str, Any]) -> Answer:
        """Send one request.

        Raises:
            ParaphraseError: no retry can help.
            BusyError: a retry may help.
            NotTakenError: the API does not accept this text.
        """
        create: Any = self._client.chat.completions.with_raw_response.create
        content_type = ""
        try:
            async with asyncio.timeout(self._timeout):  # the client's own timeout applies to each chunk
                response = await create(messages=messages, **parameters)
            content_type = response.headers.get("content-type", "")
            answer = _answer(response.parse())
        except TimeoutError:
            failure: Exception = BusyError("did not answer in time", billed=True)
        except (openai.APIError, httpx2.HTTPError) as error:
            failure = meaning(error, self._address, answered_before=self._answered_before)
        # Not JSON, nested too deeply, or an unexpected structure.
        except (ValueError, RecursionError, TypeError, AttributeError, LookupError):
            failure = not_a_completion(content_type, self._address, answered_before=self._answered_before)
        else:
            self._answered_before = True
            return answer
        # Raised outside the handlers, so that tracebacks do not show the server's answer, which may contain the key.
        raise failure


def _answer(completion: Any) -> Answer:
    """Convert a completion.

    Raises:
        TypeError, AttributeError, LookupError: it is not a chat completion.
    """
    choice, usage = completion.choices[0], completion.usage
    content = choice.message.content
    if not isinstance(content, str | None):
        raise TypeError("content is not a string")
    tokens = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    input_tokens, output_tokens = (count if isinstance(count, int) else None for count in tokens)
    # A truncated answer can end in an unpaired surrogate, which cannot be stored as UTF-8.
    text = (content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Answer(text, str(choice.finish_reason or "stop"), input_tokens, output_tokens)


def _pause(state: RetryCallState) -> float:
    """Return the seconds until the next attempt: exponential backoff, at least what the API asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, BusyError) else 0.0
    return max(_PAUSE(state), asked + random.uniform(0, min(1.0, asked)))


async def _finished(call: Coroutine[Any, Any, Value]) -> Value:
    """Return the result of a call; on cancellation, wait briefly for an answer in flight."""
    task = asyncio.create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task], timeout=_GRACE_SECONDS)
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        task.cancel()
        raise


def open_client(base_url: str, api_key: str | None, timeout: float) -> openai.AsyncOpenAI:
    """Return a client without its own retries, which this module handles.

    Raises:
        ParaphraseError: the key is missing or malformed, or SSL_CERT_FILE cannot be read.
    """
    try:
        client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        )
    except openai.OpenAIError:
        raise ParaphraseError("the API key is missing; set OPENAI_API_KEY in the environment or .env") from None
    except OSError as error:
        raise ParaphraseError(
            f"certificates cannot be read ({error.strerror}); correct or unset SSL_CERT_FILE"
        ) from error
    if not (client.api_key.isascii() and client.api_key.isprintable()):
        raise ParaphraseError("OPENAI_API_KEY contains invalid characters, such as a line break; set it again")
    return client
