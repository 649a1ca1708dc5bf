import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.queries.quality import FAULTS, Rewrite, find_faults

PROMPT = "Which tea goes well with a lemon cake?"
ANSWER = "A light black tea, such as a first flush Darjeeling, since it has a note of citrus itself."

# Also halves of surrogate pairs, which are no text, but which a JSON answer can bring.
anything = st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from("aé你。?!.`$<&\"'\n\u200b \ud800"))
rewrites = st.builds(
    Rewrite,
    role=st.sampled_from(["user", "assistant", "system"]),
    original=anything,
    text=anything,
    answer=anything,
    finish_reason=st.sampled_from([None, "stop", "length", "content_filter"]),
)


def test_names_and_their_order() -> None:
    assert list(FAULTS) == ["empty", "truncated", "refused", "executed", "unchanged", "language", "length"]
    assert all(FAULTS.values())


@pytest.mark.parametrize("text", ["", " ", "\n\t\r ", "\u3000", "\u200b\ufeff", "\x00"])
@pytest.mark.parametrize(("finish_reason", "also"), [("stop", []), (None, []), ("content_filter", ["truncated"])])
def test_of_an_empty_text_nothing_else_is_said(text: str, finish_reason: str | None, also: list[str]) -> None:
    assert find_faults(Rewrite("user", PROMPT, text, ANSWER, finish_reason)) == ["empty", *also]


@pytest.mark.parametrize(
    ("finish_reason", "expected"),
    [(None, []), ("stop", []), ("length", ["truncated"]), ("content_filter", ["truncated"]), ("", ["truncated"])],
)
def test_whoever_was_stopped_left_a_truncated_text(finish_reason: str | None, expected: list[str]) -> None:
    text = "What kind of tea would you drink with lemon cake?"
    assert find_faults(Rewrite("user", PROMPT, text, ANSWER, finish_reason)) == expected


def test_a_text_can_have_several_faults_in_their_order() -> None:
    text = "Es tut mir leid, aber ich kann dabei nicht helfen, weil ich keinen Kuchen essen kann. " * 4
    original = "Which kinds of tea go well with a cake that has lemon in it?"
    assert find_faults(Rewrite("user", original, text, ANSWER, "length")) == [
        "truncated",
        "refused",
        "executed",
        "language",
        "length",
    ]


@settings(max_examples=300)
@given(rewrites)
def test_any_text_can_be_looked_at(rewrite: Rewrite) -> None:
    faults = find_faults(rewrite)
    assert faults == [name for name in FAULTS if name in faults]
    assert faults == find_faults(rewrite)


@given(rewrites, st.text(st.sampled_from(" \n\t\r\u00a0\u3000"), max_size=50))
def test_blanks_at_the_end_make_no_fault(rewrite: Rewrite, blanks: str) -> None:
    assert find_faults(rewrite._replace(text=rewrite.text + blanks)) == find_faults(rewrite)


@given(rewrites)
def test_what_came_back_as_it_was_is_unchanged_and_nothing_else(rewrite: Rewrite) -> None:
    back = rewrite._replace(text=rewrite.original, finish_reason="stop")
    assert find_faults(back) in (["unchanged"], ["empty"])
