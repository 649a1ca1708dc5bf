"""What an error of an API means: the end, a reason to wait and ask again, or a text that the API does not take.

Messages say how to mend it, and never repeat the server's own words, which may hold the key.
"""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import openai

from gradsim.errors import GradsimError

# An API that asks for more patience than this, in seconds, is not waited for.
LONGEST_WAIT = 300.0

_BUSY = {408, 409, 429}
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"}

# What an API says of a text that it does not take -> as which reason to have finished without a text it counts.
_NOT_TAKEN = {
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "context_length_exceeded": "length",
    "string_above_max_length": "length",
}

_REFUSED: dict[int, str] = {
    401: "refused the key (401); check OPENAI_API_KEY",
    402: "wants money (402); check the account, then run again",
    403: "does not let this key use the model {model} (403); ask for access",
    404: "knows no model {model} at this address (404); check the model and OPENAI_BASE_URL",
}


class ParaphraseError(GradsimError):
    """Paraphrases that the API does not give; what it gave before is kept."""


class BusyError(Exception):
    """The API could not answer just now.

    Attributes:
        problem: in words.
        wait: seconds that it asks for; None: it does not say.
    """

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.wait = wait


class NotTakenError(Exception):
    """The API does not take this text, whoever asks.

    Attributes:
        finish_reason: as which the answer without a text counts.
    """

    def __init__(self, finish_reason: str) -> None:
        super().__init__(finish_reason)
        self.finish_reason = finish_reason


@dataclass(frozen=True)
class Address:
    """Where an API is, and what it is asked for.

    Attributes:
        host: and port, where it is not the usual one.
        model: as the API names it.
    """

    host: str
    model: str


def meaning(
    error: openai.APIError | httpx2.HTTPError, address: Address, *, answered_before: bool
) -> ParaphraseError | BusyError | NotTakenError:
    """What to make of an error.

    Args:
        error: as the client raised it.
        address: of the API.
        answered_before: whether it has answered properly in this run: then what is not there is away for a while.
    """
    match error:
        case openai.APIStatusError():
            return _meaning_of_status(error, address)
        case openai.APITimeoutError():
            if _first(error, httpx2.ConnectTimeout) and not answered_before:
                return ParaphraseError(f"{address.host} does not answer; check OPENAI_BASE_URL and the network")
            return BusyError("did not answer in time")
        case openai.APIConnectionError() | httpx2.HTTPError():
            return _meaning_of_connection(error, address, answered_before=answered_before)
        case _:
            return BusyError("answered with something that is not a chat completion")


def not_a_completion(content_type: str, address: Address, *, answered_before: bool) -> ParaphraseError | BusyError:
    """What to make of an answer that is no chat completion: a page for people is not from an API."""
    if "json" not in content_type and not answered_before:
        return ParaphraseError(
            f"{address.host} answered with something that is not a chat completion; check OPENAI_BASE_URL"
        )
    return BusyError("answered with something that is not a chat completion")


def _meaning_of_status(error: openai.APIStatusError, address: Address) -> ParaphraseError | BusyError | NotTakenError:
    status, code = error.status_code, _word(error.code) or _word(error.type)
    if code in _NO_MONEY:
        return ParaphraseError(
            f"{address.host}: the quota is used up ({status} {code}); check the account, then run again"
        )
    if code in _NOT_TAKEN:
        return NotTakenError(_NOT_TAKEN[code])
    if status in _BUSY or status >= 500:
        wait = _seconds_to_wait(error.response.headers)
        if wait is not None and wait > LONGEST_WAIT:
            return ParaphraseError(
                f"{address.host} wants to be left alone for {wait:,.0f} seconds ({status}); run again then, or raise "
                "the account's limits"
            )
        return BusyError(f"answered with status {status}", wait)
    if status in _REFUSED:
        return ParaphraseError(f"{address.host} {_REFUSED[status].format(model=address.model)}")
    said = " ".join(part for part in (str(status), code, _word(error.param)) if part)
    return ParaphraseError(f"{address.host} does not take what is asked ({said}); check the setting's keys")


def _meaning_of_connection(error: Exception, address: Address, *, answered_before: bool) -> ParaphraseError | BusyError:
    if _first(error, ssl.SSLError) or "CERTIFICATE_VERIFY_FAILED" in "".join(map(str, _causes(error))):
        return ParaphraseError(
            f"{address.host}: its certificate cannot be verified; check OPENAI_BASE_URL, or name the file of who "
            "signed it in SSL_CERT_FILE"
        )
    if _first(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        return ParaphraseError(f"{address.host} is no address; let OPENAI_BASE_URL be like https://api.openai.com/v1")
    if _first(error, httpx2.ConnectError) and not answered_before:
        return ParaphraseError(f"{address.host} cannot be reached; check OPENAI_BASE_URL and the network")
    return BusyError("dropped the connection")


def _first(error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _word(value: object) -> str | None:
    """A name that a server gives; anything longer, or like a key, is not repeated."""
    named = isinstance(value, str) and re.fullmatch(r"[\w.\-\[\]]{1,40}", value) and not value.startswith("sk-")
    return str(value) if named else None


def _seconds_to_wait(headers: httpx2.Headers) -> float | None:
    for name, seconds in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * seconds
        except (KeyError, ValueError):
            continue
        if wait >= 0:
            return wait
    return None
