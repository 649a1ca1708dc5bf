"""Has an API rewrite texts: many at a time, every answer journaled at once."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gradsim.journal import Entry, Journal, open_journal, read_journal
from gradsim.paraphrase.conversation import ATTEMPTS, Conversation, open_client
from gradsim.paraphrase.costs import Budget, Cost, estimated_cost, total
from gradsim.paraphrase.failures import Address, ParaphraseError
from gradsim.paraphrase.limits import Limits
from gradsim.queries.by_api import OPENAI
from gradsim.queries.rewriting import Answer, Request

if TYPE_CHECKING:
    from gradsim.queries import Paraphrase


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


class Paraphraser:
    """A client of the API that a setting names."""

    def __init__(
        self,
        setting: "Paraphrase",
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
        place = urlsplit(self._base_url)
        if place.scheme not in {"http", "https"} or not place.hostname:
            raise ParaphraseError(f"OPENAI_BASE_URL is no address; let it be like {OPENAI}")
        self._address = Address(place.netloc.rpartition("@")[2], setting.model)
        file = "_".join(re.sub(r"[^\w.-]+", "_", part) for part in (self._address.host, setting.model))
        self._journal_path = journals / f"{file}.jsonl"

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
        progress: Callable[[int, int], None] = lambda done, total: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> dict[Request, Answer]:
        """The answers to these requests, of which no two are equal.

        What the journal holds is not asked for. While another process asks the same model, it is waited for: so no
        answer is paid for twice, and limits hold.

        Args:
            requests: texts with seeds.
            progress: called with texts answered and in all.
            say: is told what is about to be spent.

        Raises:
            ParaphraseError: no key, a refusal, or an API that is away; what was answered is in the journal.
            JournalError: the journal cannot be written.
        """
        with open_journal(self._journal_path, say) as journal:
            estimate = self._estimate(requests, journal.entries)
            if estimate.answered < estimate.texts:
                say(f"paraphrasing sends {estimate}")
                asyncio.run(self._ask(requests, journal, progress))
            return {request: _answer(journal.entries[self._key(request)]) for request in requests}

    async def _ask(self, requests: Sequence[Request], journal: Journal, progress: Callable[[int, int], None]) -> None:
        setting = self._setting
        waiting = [request for request in requests if self._key(request) not in journal.entries]
        costs = {request: estimated_cost(setting.system_prompt, request.text) for request in waiting}
        budget = self._budget(journal.entries)
        limits = Limits(
            setting.requests_per_minute, setting.tokens_per_minute, max(cost.tokens for cost in costs.values())
        )
        done = len(requests) - len(waiting)

        async def answer(conversation: Conversation, request: Request) -> None:
            nonlocal done
            cost = costs[request]
            async with budget.reserved(cost) as bill:
                found = await conversation.answer(
                    self._messages(request), self._parameters(request), lambda: limits.admit(cost.tokens)
                )
                bill.cost = Cost(
                    cost.input_tokens if found.input_tokens is None else found.input_tokens,
                    cost.output_tokens if found.output_tokens is None else found.output_tokens,
                )
                paid = {"cost": bill.cost, "estimate": cost, "setting": self._name}
                journal.append(self._key(request), {**found._asdict(), **paid})
            done += 1
            progress(done, len(requests))

        async with open_client(self._base_url, self._api_key, setting.timeout) as client:
            conversation = Conversation(client, self._address, self._attempts)
            await _in_parallel(waiting, lambda request: answer(conversation, request), setting.concurrency)

    def _estimate(self, requests: Sequence[Request], entries: Mapping[str, Entry]) -> Estimate:
        waiting = [request for request in requests if self._key(request) not in entries]
        cost = total(estimated_cost(self._setting.system_prompt, request.text) for request in waiting)
        dollars = cost.dollars(self._setting.prices) if self._setting.prices else None
        return Estimate(self.host, len(requests), len(requests) - len(waiting), cost, dollars)

    def _budget(self, entries: Mapping[str, Entry]) -> Budget:
        """What is left of the setting's budget after all its runs."""
        budget = Budget(self._setting.prices, self._setting.max_cost)
        for entry in entries.values():
            cost = Cost(*entry["cost"])
            budget.learn(Cost(*entry["estimate"]), cost)
            if entry["setting"] == self._name:
                budget.spend(cost)
        return budget

    def _key(self, request: Request) -> str:
        """The same for requests that ask for the same."""
        asked = [self._base_url, self._setting.system_prompt, *self._parameters(request).values(), request.text]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]

    def _parameters(self, request: Request) -> dict[str, Any]:
        return {"model": self._setting.model, "temperature": self._setting.temperature, "seed": request.seed}

    def _messages(self, request: Request) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": self._setting.system_prompt},
            {"role": "user", "content": request.text},
        ]


def _answer(entry: Entry) -> Answer:
    return Answer(**{name: entry[name] for name in Answer._fields})


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
