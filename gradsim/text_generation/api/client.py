"""Has an API rewrite texts: many at a time, every answer journaled at once."""

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
from gradsim.text_generation.api.costs import Budget, Cost, estimated_cost, total
from gradsim.text_generation.api.event_loop import run_beside
from gradsim.text_generation.api.failures import Address, ParaphraseError
from gradsim.text_generation.api.limits import Limits
from gradsim.text_generation.journal import Entry, Journal, open_journal, read_journal
from gradsim.text_generation.request import Answer, Request

OPENAI = "https://api.openai.com/v1"

# Of journals' names, in characters; and of a text in an error.
_LONGEST_NAME, _SHOWN = 120, 60


@dataclass(frozen=True)
class Estimate:
    """What asking would take.

    Attributes:
        host: that would be asked.
        texts: that are wanted.
        answered: of these, before now.
        cost: of the others, about.
        dollars: the same; None where the study knows no prices.
    """

    host: str
    texts: int
    answered: int
    cost: Cost
    dollars: float | None

    def __str__(self) -> str:
        """In a line."""
        rest = self.texts - self.answered
        before = f" ({self.answered:,} of {self.texts:,} are answered)" if self.answered else ""
        price = "" if self.dollars is None else f", about ${self.dollars:.2f}"
        tokens = f"about {self.cost.tokens:,} tokens with instructions and answers"
        return f"{rest:,} texts to {self.host}{before}: {tokens}{price}"


class Account(NamedTuple):
    """What may be spent, and how fast."""

    budget: Budget
    limits: Limits


class Paraphraser:
    """A client of the API that a setting names."""

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
        """A client.

        Args:
            setting: model, temperature, limits, prices.
            journals: folder of the journals.
            base_url: of the API; None: OpenAI's own.
            api_key: None: from the environment's OPENAI_API_KEY.
            name: of the setting, as the journal knows for whom an answer was paid.
            attempts: how often a text is asked for.

        Raises:
            ParaphraseError: the address is none.
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
        """Where texts go."""
        return self._address.host

    def estimate(self, requests: Sequence[Request]) -> Estimate:
        """What asking for these would take; nothing is asked."""
        return self._estimate(requests, read_journal(self._journal_path))

    def ask(
        self,
        requests: Sequence[Request],
        progress: Progress = lambda done, total: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> dict[Request, Answer]:
        """The answers to these requests, of which no two are equal.

        What the journal holds is not asked for. While another process asks the same model, it is waited for: so no
        answer is paid for twice, and limits hold.

        Args:
            requests: texts with seeds.
            progress: called with texts answered and in all, from time to time.
            say: is told what is about to be spent.

        Raises:
            ParaphraseError: no key, a refusal, an API that is away, or texts that it does not manage; what was answered
                is in the journal.
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
                "others are done and kept: run again, or change or remove its sample"
            )

    async def _answered(self, conversation: Conversation, account: Account, request: Request, journal: Journal) -> None:
        """Have a request answered, and journal it."""
        budget, limits = account
        estimate = self._estimated(request)

        def lost() -> None:
            """It may have been answered and billed for nothing; what that was is only known by what others cost."""
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
        """What is left of the setting's budget after all its runs, and its limits."""
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
        """The same for requests that ask for the same."""
        path = urlsplit(self._base_url).path
        asked = [self.host, path, self._setting.system_prompt, *self._parameters(request).values(), request.text]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]

    def _parameters(self, request: Request) -> dict[str, Any]:
        return {"model": self._setting.model, "temperature": self._setting.temperature, "seed": request.seed}

    def _messages(self, request: Request) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": self._setting.system_prompt},
            {"role": "user", "content": request.text},
        ]


def host_of(base_url: str) -> str:
    """Host and port of an API's address.

    Raises:
        ParaphraseError: it is none, or holds a password, which has no place in logs and journals.
    """
    try:
        place = urlsplit(base_url)
        host = place.netloc.lower() if place.scheme in {"http", "https"} and place.hostname else ""
        place.port  # noqa: B018 - raises
    except ValueError:
        host = ""
    if not host:
        raise ParaphraseError(f"OPENAI_BASE_URL is no address; let it be like {OPENAI}")
    if "@" in host:
        raise ParaphraseError("OPENAI_BASE_URL holds a user or a password; remove it, a key belongs in OPENAI_API_KEY")
    return host


def _file_name(*parts: str) -> str:
    """Of a journal."""
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
    """Work on all items, so many at a time; the first failure ends it.

    Raises:
        GradsimError: the first failure.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)
            task = asyncio.current_task()
            if task and task.cancelling():  # it was let finish what was in flight
                raise asyncio.CancelledError

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(items))):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
