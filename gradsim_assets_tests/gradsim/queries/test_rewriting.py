"""Which texts are asked for, when they are asked for again, and what becomes of faulty ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from pydantic import Field

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.queries import MadeQueries, QueryContext, ask, make_queries
from gradsim.study.settings import Quality, Rewriting, RewritingQuality
from gradsim.text_generation.request import Answer, Request

asked: list[list[Request]] = []
REFUSAL = "I'm sorry, but I can't help with that."


class Scripted(Rewriting):
    """A method of another package, whose model answers what a test wants."""

    method: Literal["scripted"] = "scripted"
    model: str = "a-model"
    replies: dict[str, list[str]] = Field({})


@ask.register
def _ask_script(settings: Scripted, requests: Sequence[Request], context: QueryContext) -> Mapping[Request, Answer]:
    asked.append(list(requests))
    return {request: _answer(settings, request, context) for request in requests}


def _answer(settings: Scripted, request: Request, context: QueryContext) -> Answer:
    replies = settings.replies.get(request.text, [])
    attempt = request.seed - (context.seed if settings.seed is None else settings.seed)
    text = replies[min(attempt, len(replies) - 1)] if replies else f"In other words, {request.text}"
    return Answer(text, "stop" if text else "content_filter", 3, 2)


@pytest.fixture(autouse=True)
def _nothing_asked() -> None:
    asked.clear()


def samples(*dialogues: tuple[str, str]) -> pl.DataFrame:
    rows = [
        (f"s{n}", [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
        for n, (prompt, answer) in enumerate(dialogues)
    ]
    return pl.DataFrame(rows, schema=SAMPLES_SCHEMA, orient="row")


ORIGINALS = samples(
    ("How are wooden spoons cleaned?", "With hot water and a little soap, then dried standing up."),
    ("Why do cats purr at night?", "Because they are content, or because they ask for something."),
)
CONTEXT = QueryContext("study/setting", 42, ["s0", "s1"], Path("nowhere"))

Make = Callable[..., MadeQueries]


@pytest.fixture
def make() -> Make:
    def make(originals: pl.DataFrame = ORIGINALS, **keys: object) -> MadeQueries:
        return make_queries(Scripted(**keys), originals, CONTEXT)

    return make


def test_prompt_and_answer_are_rewritten_each(make: Make) -> None:
    found = make()
    assert asked == [[Request(message["content"], 42) for dialogue in ORIGINALS["messages"] for message in dialogue]]
    assert found.frame["messages"].to_list() == [
        [{**message, "content": f"In other words, {message['content']}"} for message in dialogue]
        for dialogue in ORIGINALS["messages"].to_list()
    ]
    assert found.frame["seeds"].to_list() == [[42, 42], [42, 42]]
    assert found.frame["finish_reasons"].to_list() == [["stop", "stop"], ["stop", "stop"]]
    assert (found.model, found.excluded) == ("a-model", {})
    assert found.measured == {"texts": 4, "input_tokens": 12, "output_tokens": 8}


def test_a_seed_of_its_own(make: Make) -> None:
    make(seed=7)
    assert {request.seed for request in asked[0]} == {7}


def test_equal_texts_are_asked_for_once(make: Make) -> None:
    found = make(
        samples(("Say hello to everyone here.", "Hello, everyone!"), ("Say hello to everyone here.", "Hi, all!"))
    )
    assert len(asked[0]) == 3
    prompts = [dialogue[0]["content"] for dialogue in found.frame["messages"].to_list()]
    assert prompts == ["In other words, Say hello to everyone here."] * 2


PROMPT = ORIGINALS["messages"][0][0]["content"]


def test_faulty_texts_are_kept_where_the_study_says_so(make: Make) -> None:
    found = make(replies={PROMPT: [REFUSAL, "How does one clean wooden spoons?"]})
    assert len(asked) == 1
    assert found.frame["messages"][0][0]["content"] == REFUSAL


def test_a_faulty_text_is_asked_for_again_with_another_seed(make: Make) -> None:
    replies = {PROMPT: [REFUSAL, REFUSAL, "How does one clean wooden spoons?"]}
    found = make(replies=replies, quality={"refused": "retry", "attempts": 4})
    assert asked[1:] == [[Request(PROMPT, 43)], [Request(PROMPT, 44)]]
    assert found.frame["messages"][0][0]["content"] == "How does one clean wooden spoons?"
    assert found.frame["seeds"].to_list() == [[44, 42], [42, 42]]
    assert found.excluded == {}


def test_a_text_that_stays_faulty_excludes_its_sample(make: Make) -> None:
    found = make(replies={PROMPT: [REFUSAL]}, quality={"refused": "retry", "attempts": 3})
    assert len(asked) == 3
    assert found.frame["id"].to_list() == ["s1"]
    assert found.excluded == {"s0": "its prompt: declined instead of rewritten"}


def test_excluded_without_being_asked_again(make: Make) -> None:
    found = make(replies={PROMPT: [REFUSAL]}, quality={"refused": "exclude"})
    assert len(asked) == 1
    assert found.excluded == {"s0": "its prompt: declined instead of rewritten"}


def test_an_empty_text_is_asked_for_again_by_default(make: Make) -> None:
    found = make(replies={PROMPT: ["", "How does one clean wooden spoons?"]})
    assert found.frame["messages"][0][0]["content"] == "How does one clean wooden spoons?"
    assert found.frame["finish_reasons"].to_list()[0] == ["stop", "stop"]


def test_a_choice_for_one_fault_leaves_the_others_as_they_are(make: Make) -> None:
    found = make(replies={PROMPT: ["", "How does one clean wooden spoons?"]}, quality={"refused": "retry"})
    assert found.frame["messages"][0][0]["content"] == "How does one clean wooden spoons?"


def test_all_that_excludes_a_sample_is_named(make: Make) -> None:
    found = make(replies={PROMPT: [""]}, quality={"empty": "exclude", "truncated": "exclude"})
    assert found.excluded == {"s0": "its prompt: no text came back; its prompt: broken off before its end"}


def test_one_attempt_leaves_none_to_retry() -> None:
    with pytest.raises(ValueError, match="one attempt leaves none to retry"):
        Quality(refused="retry", attempts=1)
    with pytest.raises(ValueError, match="one attempt leaves none to retry"):
        RewritingQuality(attempts=1)
    assert Quality(attempts=1).retries is False
