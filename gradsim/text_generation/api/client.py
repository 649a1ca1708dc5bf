"""Rewrite texts with an API: concurrent requests, journaled answers."""

import asyncio
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gradsim.progress import Progress
from gradsim.study.settings import Paraphrase
from gradsim.text_generation.api.conversation import ATTEMPTS, Conversation, UnansweredError, open_client
from gradsim.text_generation.api.costs import Budget, Cost, Limits, estimated_cost, total
from gradsim.text_generation.api.event_loop import run_beside
from gradsim.text_generation.api.failures import Address, ParaphraseError
from gradsim.text_generation.journal import Entry, Journal, open_journal, read_journal
from gradsim.text_generation.request import Answer, Request

OPENAI = "https://api.openai.com/v1"

# Maximum characters of a journal's name, and of a text quoted in an error.
_LONGEST_NAME, _SHOWN = 120, 60


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a set of requests.

    Attributes:
        host: host of the API.
        texts: number of texts.
        answered: number of texts that are already in the journal.
        cost: estimated tokens of the other texts.
        dollars: estimated price of the other texts; None if the study has no prices.
    """

    host: str
    texts: int
    answered: int
    cost: Cost
    dollars: float | None

    def __str__(self) -> str:
        """Return the estimate in one line."""
        rest = self.texts - self.answered
        before = f" ({self.answered:,} of {self.texts:,} are answered)" if self.answered else ""
        price = "" if self.dollars is None else f", about ${self.dollars:.2f}"
        tokens = f"about {self.cost.tokens:,} tokens with instructions and answers"
        return f"{rest:,} texts to {self.host}{before}: {tokens}{price}"


class Account(NamedTuple):
    """Budget and rate limits."""

    budget: Budget
    limits: Limits


class Paraphraser:
    """Client of the API for a `paraphrase` setting."""

    def __init__(
        self,
        setting: Paraphrase,
        journals: Path,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        name: str = "",
        attempts: int = ATTEMPTS,
    ) -> None:
        """Create a client without connecting.

        Args:
            setting: model, temperature, limits, prices.
            journals: folder of the journals.
            base_url: address of the API; None: OpenAI's own.
            api_key: API key; None: the environment variable OPENAI_API_KEY.
            name: name under which the journal records this setting's spending.
            attempts: maximum number of attempts per text.

        Raises:
            ParaphraseError: the address is not valid.
        """
        self._setting = setting
        self._base_url = (base_url or OPENAI).rstrip("/")
        self._api_key = api_key
        self._name = name
        self._attempts = attempts
        self._address = Address(host_of(self._base_url), setting.model)
        self._journal_path = journals / f"{_file_name(self.host, setting.model)}.jsonl"

    @property
    def host(self) -> str:
        """Host of the API."""
        return self._address.host

    def estimate(self, requests: Sequence[Request]) -> Estimate:
        """Return the estimated cost of requests without sending them.

        Raises:
            JournalError: the journal cannot be read.
        """
        return self._estimate(requests, read_journal(self._journal_path))

    def ask(
        self,
        requests: Sequence[Request],
        progress: Progress = lambda done, total: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> dict[Request, Answer]:
        """Return the answers to distinct requests; journaled answers are not requested again.

        Waits while another process uses the journal of the same model, so that no answer is paid for twice and rate
        limits hold.

        Args:
            requests: distinct texts with seeds.
            progress: called repeatedly with the number of answered texts and the total.
            say: receives a line with the estimate before anything is spent.

        Raises:
            ParaphraseError: the API key is missing, the API is unavailable or rejects the requests, or the budget is
                exhausted; the answers so far are in the journal.
            JournalError: the journal cannot be written.
        """
        with open_journal(self._journal_path, say) as journal:
            estimate = self._estimate(requests, journal.entries)
            if estimate.answered < estimate.texts:
                say(f"paraphrasing sends {estimate}")
                self._ask(requests, journal, progress)
            return {request: _answer(journal.entries[self._key(request)]) for request in requests}

    def _ask(self, requests: Sequence[Request], journal: Journal, progress: Progress) -> None:
        waiting = [request for request in requests if self._key(request) not in journal.entries]
        before, done, unanswered = len(requests) - len(waiting), 0, dict[Request, str]()

        async def ask_all() -> None:
            async with open_client(self._base_url, self._api_key, self._setting.timeout) as client:
                setting, attempts = self._setting, self._attempts
                conversation = Conversation(client, self._address, timeout=setting.timeout, attempts=attempts)
                account = self._account(waiting, journal)
                await _in_parallel(waiting, lambda each: ask(conversation, account, each), setting.concurrency)

        async def ask(conversation: Conversation, account: Account, request: Request) -> None:
            nonlocal done
            try:
                await self._answered(conversation, account, request, journal)
                done += 1
            except UnansweredError as error:
                unanswered[request] = error.problem

        run_beside(ask_all(), lambda: progress(before + done, len(requests)))
        if unanswered:
            (first, problem), more = next(iter(unanswered.items())), len(unanswered) - 1
            others = f", and {more} more" if more else ""
            raise ParaphraseError(
                f"{self.host} {problem}, {self._attempts} times, for the text {_shortened(first.text)!r}{others}; all "
                "other answers are saved: run again, or change or remove the sample"
            )

    async def _answered(self, conversation: Conversation, account: Account, request: Request, journal: Journal) -> None:
        """Get the answer to a request and journal it."""
        budget, limits = account
        estimate = self._estimated(request)

        def lost() -> None:
            """Charge the budget for a lost answer, which may have been billed, with the maximum expected cost."""
            if budget.limited:
                cost = budget.at_most(estimate)
                budget.spend(cost)
                journal.append(f"lost {uuid.uuid4().hex}", {"cost": cost, "setting": self._name})

        async with budget.reserved(estimate) as bill:
            found = await conversation.answer(
                self._messages(request), self._parameters(request), lambda: limits.admit(estimate.tokens), lost
            )
            bill.cost = Cost(
                estimate.input_tokens if found.input_tokens is None else found.input_tokens,
                estimate.output_tokens if found.output_tokens is None else found.output_tokens,
            )
            paid = {"cost": bill.cost, "estimate": estimate, "setting": self._name}
            journal.append(self._key(request), {**found._asdict(), **paid})
        await limits.settle(bill.cost.tokens - estimate.tokens)

    def _account(self, waiting: Sequence[Request], journal: Journal) -> Account:
        """Return the setting's budget, with the spending of all its runs, and its rate limits."""
        setting = self._setting
        budget = Budget(setting.prices, setting.max_cost)
        for entry in journal.entries.values():
            cost = Cost(*entry["cost"])
            if "estimate" in entry:
                budget.learn(Cost(*entry["estimate"]), cost)
            if entry["setting"] == self._name:
                budget.spend(cost)
        largest = max(self._estimated(request).tokens for request in waiting)
        return Account(budget, Limits(setting.requests_per_minute, setting.tokens_per_minute, largest))

    def _estimate(self, requests: Sequence[Request], entries: Mapping[str, Entry]) -> Estimate:
        waiting = [request for request in requests if self._key(request) not in entries]
        cost = total(map(self._estimated, waiting))
        dollars = cost.dollars(self._setting.prices) if self._setting.prices else None
        return Estimate(self.host, len(requests), len(requests) - len(waiting), cost, dollars)

    def _estimated(self, request: Request) -> Cost:
        return estimated_cost(self._setting.system_prompt, request.text)

    def _key(self, request: Request) -> str:
        """Return the journal key of a request: a digest of everything that determines its answer."""
        path = urlsplit(self._base_url).path
        asked = [self.host, path, self._setting.system_prompt, *self._parameters(request).values(), request.text]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]

    def _parameters(self, request: Request) -> dict[str, Any]:
        return {"model": self._setting.model, "temperature": self._setting.temperature, "seed": request.seed}

    def _messages(self, request: Request) -> list[dict[str, str]]:
        return [{"role": "system", "content": self._setting.system_prompt}, {"role": "user", "content": request.text}]


def host_of(base_url: str) -> str:
    """Return host and port of an API's address.

    Raises:
        ParaphraseError: the address is not valid, or contains a user or password, which must not reach logs.
    """
    try:
        place = urlsplit(base_url)
        host = place.netloc.lower() if place.scheme in {"http", "https"} and place.hostname else ""
        place.port  # noqa: B018 - raises
    except ValueError:
        host = ""
    if not host:
        raise ParaphraseError(f"OPENAI_BASE_URL is not a valid address; use one like {OPENAI}")
    if "@" in host:
        raise ParaphraseError("OPENAI_BASE_URL contains a user or password; remove it, a key belongs in OPENAI_API_KEY")
    return host


def _file_name(*parts: str) -> str:
    """Return the file name of a journal."""
    name = "_".join(re.sub(r"[^\w.-]+", "_", part) for part in parts)
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}_{digest}"


def _answer(entry: Entry) -> Answer:
    return Answer(**{name: entry[name] for name in Answer._fields})


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


async def _in_parallel(
    items: Sequence[Request], work: Callable[[Request], Coroutine[Any, Any, None]], concurrency: int
) -> None:
    """Process all items with `concurrency` workers; the first failure cancels the others.

    Raises:
        GradsimError: the first failure.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)
            task = asyncio.current_task()
            if task and task.cancelling():  # `_finished` suppressed the cancellation to keep an answer in flight
                raise asyncio.CancelledError

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(items))):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
