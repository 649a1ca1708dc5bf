"""Classification of API errors: fatal, retryable, or specific to a text that the API does not accept.

Messages name the fix and never quote the server's own text, which may contain the API key.
"""

import errno
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
import openai

from gradsim.errors import GradsimError

# Maximum `Retry-After` in seconds; a longer one is an error.
LONGEST_WAIT = 300.0

_BUSY = {408, 409, 429}
_CANNOT_TAKE = {400, 413, 422}
_TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"}

# Error code of a text that the API does not accept -> finish reason of its empty answer.
_NOT_TAKEN = {
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "context_length_exceeded": "length",
    "string_above_max_length": "length",
}

# Messages of servers without such error codes; matched, never quoted.
_TOO_LONG = re.compile(r"context[ _]length|maximum context|max_model_len|too long", re.IGNORECASE)

_REFUSED: dict[int, str] = {
    401: "refused the key (401); check OPENAI_API_KEY",
    402: "requires payment (402); check the account, then run again",
    403: "does not allow this key to use the model {model} (403); ask for access",
    404: "has no model {model} at this address (404); check the model and OPENAI_BASE_URL",
    405: "is not a chat completions API (405); check OPENAI_BASE_URL",
}


class ParaphraseError(GradsimError):
    """Paraphrases cannot be completed; the answers so far are in the journal."""


class BusyError(Exception):
    """The API could not answer; a retry may help.

    Attributes:
        problem: description that completes a sentence with the host as subject.
        wait: seconds to wait, as requested by the API.
        billed: whether the request may have been billed.
    """

    def __init__(self, problem: str, wait: float = 0.0, *, billed: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.wait = wait
        self.billed = billed


class NotTakenError(Exception):
    """The API does not accept this text.

    Attributes:
        finish_reason: finish reason of the empty answer.
    """

    def __init__(self, finish_reason: str) -> None:
        super().__init__(finish_reason)
        self.finish_reason = finish_reason


@dataclass(frozen=True)
class Address:
    """Host and model of requests.

    Attributes:
        host: host, with the port if it is not the default one.
        model: name of the model in the API.
    """

    host: str
    model: str


def meaning(
    error: openai.APIError | httpx2.HTTPError, address: Address, *, answered_before: bool
) -> ParaphraseError | BusyError | NotTakenError:
    """Classify an error raised by the client.

    Args:
        error: the error.
        address: address of the API.
        answered_before: whether the API has answered in this run, so that connection errors are temporary.

    Returns:
        The exception to raise.
    """
    match error:
        case openai.APIStatusError():
            return _meaning_of_status(error, address)
        case openai.APITimeoutError():
            if _first(error, httpx2.ConnectTimeout) and not answered_before:
                return ParaphraseError(f"{address.host} does not answer; check OPENAI_BASE_URL and the network")
            return BusyError("did not answer in time", billed=True)
        case openai.APIConnectionError() | httpx2.HTTPError():
            return _meaning_of_connection(error, address, answered_before=answered_before)
        case _:
            return _no_completion()


def not_a_completion(content_type: str, address: Address, *, answered_before: bool) -> ParaphraseError | BusyError:
    """Classify an answer that is not a chat completion; a first answer that is not JSON suggests a wrong address."""
    if "json" not in content_type and not answered_before:
        return ParaphraseError(
            f"{address.host} answered with something that is not a chat completion; check OPENAI_BASE_URL"
        )
    return _no_completion()


def _no_completion() -> BusyError:
    return BusyError("answered with something that is not a chat completion", billed=True)


def _meaning_of_status(error: openai.APIStatusError, address: Address) -> ParaphraseError | BusyError | NotTakenError:
    status, code = error.status_code, _word(error.code) or _word(error.type)
    if code in _NO_MONEY:
        return ParaphraseError(
            f"{address.host}: the quota is used up ({status} {code}); check the account, then run again"
        )
    if code in _NOT_TAKEN or (status in _CANNOT_TAKE and _TOO_LONG.search(error.message)):
        return NotTakenError(_NOT_TAKEN.get(code or "", "length"))
    if status in _BUSY or status >= 500:
        return _busy(status, _seconds_to_wait(error.response.headers), address)
    if status in _REFUSED:
        return ParaphraseError(f"{address.host} {_REFUSED[status].format(model=address.model)}")
    said = " ".join(part for part in (str(status), code, _word(error.param)) if part)
    return ParaphraseError(f"{address.host} rejected the request ({said}); check the setting's keys")


def _busy(status: int, wait: float, address: Address) -> ParaphraseError | BusyError:
    if wait > LONGEST_WAIT:
        return ParaphraseError(
            f"{address.host} asks to wait {wait:,.0f} seconds ({status}); run again then, or raise the account's limits"
        )
    return BusyError(f"answered with status {status}", wait)


def _meaning_of_connection(error: Exception, address: Address, *, answered_before: bool) -> ParaphraseError | BusyError:
    if _first(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in "".join(map(str, _causes(error))):
        return ParaphraseError(
            f"{address.host}: its certificate cannot be verified; check OPENAI_BASE_URL, or set SSL_CERT_FILE to the "
            "certificate of its issuer"
        )
    if any(isinstance(cause, OSError) and cause.errno in _TOO_MANY_FILES for cause in _causes(error)):
        return ParaphraseError("too many open connections (ulimit -n); lower concurrency or raise that limit")
    if _first(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        return ParaphraseError(
            f"{address.host} is not a valid address; set OPENAI_BASE_URL to one like https://api.openai.com/v1"
        )
    if not _first(error, httpx2.ConnectError):
        return BusyError("dropped the connection", billed=True)
    if answered_before:
        return BusyError("can no longer be reached")
    way = "does not speak TLS as expected" if _first(error, ssl.SSLError) else "cannot be reached"
    return ParaphraseError(f"{address.host} {way}; check OPENAI_BASE_URL and the network")


def _first(error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _word(value: object) -> str | None:
    """Return a server's identifier if it has only letters, `_`, `.` and brackets; other text may contain the key."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z_.\[\]]{1,40}", value) else None


def _seconds_to_wait(headers: httpx2.Headers) -> float:
    """Return the seconds in `Retry-After`, which may be a number or a date; 0 if absent."""
    for name, seconds in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        if value := headers.get(name):
            try:
                return max(0.0, float(value) * seconds)
            except ValueError:
                return _seconds_until(value)
    return 0.0


def _seconds_until(date: str) -> float:
    try:
        return max(0.0, (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
