"""One text asked of an API, again and again until it is answered."""

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

# With the pauses between them, over some two minutes.
ATTEMPTS = 10
_PAUSE = wait_exponential_jitter(multiplier=0.5, max=30.0, jitter=1.0)

# So many texts in a row without an answer, and the API counts as away.
_AWAY = 2

# An answer in flight is paid for: when all is over, it has so many seconds to come.
_GRACE_SECONDS = 5.0

_CONNECT_SECONDS = 10.0

Value = TypeVar("Value")


class UnansweredError(Exception):
    """A text that the API does not manage, while it does others.

    Attributes:
        problem: what came of it at last.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Conversation:
    """Asks an API; knows how it has answered so far."""

    def __init__(self, client: openai.AsyncOpenAI, address: Address, *, timeout: float, attempts: int) -> None:
        self._client = client
        self._address = address
        self._timeout = timeout
        self._attempts = attempts
        self._answered_before = False
        self._unanswered = 0
        """Texts since the last answer."""

    async def answer(
        self,
        messages: list[dict[str, str]],
        parameters: Mapping[str, Any],
        admit: Callable[[], Awaitable[None]],
        lost: Callable[[], None],
    ) -> Answer:
        """The answer to these messages; asks again where the API was busy, or what it said makes no sense.

        Args:
            messages: with role and content.
            parameters: of the request: model, temperature, seed.
            admit: waits until a request may be made.
            lost: called when a request may have been answered, and billed, for nothing.

        Raises:
            ParaphraseError: the API refuses, or is away.
            UnansweredError: it was asked often enough.
        """
        asking = AsyncRetrying(
            retry=retry_if_exception_type(BusyError),
            stop=stop_after_attempt(self._attempts),
            wait=_pause,
            reraise=True,
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
            f"{self._address.host} {problem}, {self._attempts} times in a row; what is done is kept, run again later"
        )

    async def _ask(self, messages: list[dict[str, str]], parameters: Mapping[str, Any]) -> Answer:
        """One try.

        Raises:
            ParaphraseError: there is no use in another.
            BusyError: there is.
            NotTakenError: not for this text.
        """
        create: Any = self._client.chat.completions.with_raw_response.create
        content_type = ""
        try:
            async with asyncio.timeout(self._timeout):  # the client's own is for each piece of an answer
                response = await create(messages=messages, **parameters)
            content_type = response.headers.get("content-type", "")
            answer = _answer(response.parse())
        except TimeoutError:
            failure: Exception = BusyError("did not answer in time", billed=True)
        except (openai.APIError, httpx2.HTTPError) as error:
            failure = meaning(error, self._address, answered_before=self._answered_before)
        except (ValueError, TypeError, AttributeError, LookupError):  # no JSON, or of another shape
            failure = not_a_completion(content_type, self._address, answered_before=self._answered_before)
        else:
            self._answered_before = True
            return answer
        # Raised here, outside of the handler: what a server answers may repeat the key.
        raise failure


def _answer(completion: Any) -> Answer:
    """What a completion says.

    Raises:
        TypeError, AttributeError, LookupError: it is none.
    """
    choice, usage = completion.choices[0], completion.usage
    content = choice.message.content
    if not isinstance(content, str | None):
        raise TypeError("content is no text")
    tokens = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    input_tokens, output_tokens = (count if isinstance(count, int) else None for count in tokens)
    # Half a character, as a model cut off in the middle of one may leave it, is no text that can be stored.
    text = (content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Answer(text, str(choice.finish_reason or "stop"), input_tokens, output_tokens)


def _pause(state: RetryCallState) -> float:
    """Seconds until the next try: longer each time, and at least what the API asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, BusyError) else 0.0
    return max(_PAUSE(state), asked + random.uniform(0, min(1.0, asked)))


async def _finished(call: Coroutine[Any, Any, Value]) -> Value:
    """What a call gives, also when its task is cancelled meanwhile, if it does so soon."""
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
    """A client that tries once: when to ask again is decided here.

    Raises:
        ParaphraseError: there is no key, or one that cannot be sent; or SSL_CERT_FILE cannot be read.
    """
    try:
        client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        )
    except openai.OpenAIError:
        raise ParaphraseError("there is no API key; set OPENAI_API_KEY in the environment or .env") from None
    except OSError as error:
        raise ParaphraseError(
            f"certificates cannot be read ({error.strerror}); correct SSL_CERT_FILE, or unset it"
        ) from error
    if not (client.api_key.isascii() and client.api_key.isprintable()):
        raise ParaphraseError("OPENAI_API_KEY holds signs that no key has, such as a line break; set it again")
    return client
