"""One text asked of an API, again and again until it is answered."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import httpx2
import openai
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from gradsim.paraphrase.failures import (
    Address,
    BusyError,
    NotTakenError,
    ParaphraseError,
    meaning,
    not_a_completion,
)
from gradsim.queries.rewriting import Answer

# Over some two minutes, before an API counts as away.
ATTEMPTS = 10
_PAUSE = wait_exponential_jitter(multiplier=0.5, max=30.0, jitter=1.0)

# An answer in flight is paid for: when all is over, it has so many seconds to come.
_GRACE_SECONDS = 5.0

_CONNECT_SECONDS = 10.0

Value = TypeVar("Value")


class Conversation:
    """Asks an API; knows whether it has ever answered properly."""

    def __init__(self, client: openai.AsyncOpenAI, address: Address, attempts: int) -> None:
        self._client = client
        self._address = address
        self._attempts = attempts
        self._answered_before = False

    async def answer(
        self, messages: list[dict[str, str]], parameters: Mapping[str, Any], admit: Callable[[], Awaitable[None]]
    ) -> Answer:
        """The answer to these messages; asks again where the API was busy, or what it said makes no sense.

        Args:
            messages: with role and content.
            parameters: of the request: model, temperature, seed.
            admit: waits until a request may be made.

        Raises:
            ParaphraseError: the API refuses, or it was asked often enough.
        """
        asking = AsyncRetrying(
            retry=retry_if_exception_type(BusyError),
            stop=stop_after_attempt(self._attempts),
            wait=_pause,
            reraise=True,
        )

        async def ask() -> Answer:
            await admit()
            return await _unhurried(self._ask(messages, parameters))

        try:
            return await asking(ask)
        except NotTakenError as refusal:
            return Answer("", refusal.finish_reason, 0, 0)
        except BusyError as error:
            problem = error.problem
        raise ParaphraseError(
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
        try:
            response = await create(messages=messages, **parameters)
            completion = response.parse()
        except (openai.APIError, httpx2.HTTPError) as error:
            failure: Exception = meaning(error, self._address, answered_before=self._answered_before)
        except json.JSONDecodeError:
            failure = BusyError("answered with something that is not a chat completion")
        else:
            if isinstance(completion, ChatCompletion) and completion.choices and completion.choices[0].message:
                self._answered_before = True
                return _answer(completion)
            content_type = response.headers.get("content-type", "")
            failure = not_a_completion(content_type, self._address, answered_before=self._answered_before)
        # Raised here, outside of the handler: what a server answers may repeat the key.
        raise failure


def _answer(completion: ChatCompletion) -> Answer:
    choice, usage = completion.choices[0], completion.usage
    return Answer(
        choice.message.content or "",
        choice.finish_reason or "stop",
        usage.prompt_tokens if usage else None,
        usage.completion_tokens if usage else None,
    )


def _pause(state: RetryCallState) -> float:
    """Seconds until the next try: what the API asks for and a little more, else longer from time to time."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, BusyError) and error.wait is not None:
        return error.wait + random.uniform(0, 1) * min(1.0, error.wait)
    return _PAUSE(state)


async def _unhurried(call: Coroutine[Any, Any, Value]) -> Value:
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
        ParaphraseError: there is no key.
    """
    try:
        return openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        )
    except openai.OpenAIError:
        raise ParaphraseError("there is no API key; set OPENAI_API_KEY in the environment or .env") from None
