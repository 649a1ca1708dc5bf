import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.queries.quality import Rewrite, find_faults


def is_unchanged(original: str, text: str) -> bool:
    return "unchanged" in find_faults(Rewrite("assistant", original, text, "", "stop"))


@pytest.mark.parametrize(
    ("original", "text"),
    [
        ("Why is it so?", "why   is it\nso"),
        ("It’s a “test”…", "It's a 'test'..."),
        ("Straße", "STRASSE"),
        ("ﬁne ½", "fine 1⁄2"),
        ("cafe\u0301", "café"),
        ("a\u200bb", "ab"),
        ("- one\n- two", "one, two"),
        ("全角ＡＢＣ！", "全角abc!"),
    ],
)
def test_differences_that_are_none(original: str, text: str) -> None:
    assert is_unchanged(original, text)


@pytest.mark.parametrize(
    ("original", "text"),
    [
        ("a + b", "a - b"),
        ("2 < 3", "2 > 3"),
        ("resume", "résumé"),
        ("one two", "two one"),
        ("5 €", "5 $"),
        ("no", "now"),
    ],
)
def test_differences_that_count(original: str, text: str) -> None:
    assert not is_unchanged(original, text)


separators = st.text(st.sampled_from(" \n\t.,;:!?'\"()-—…。"), min_size=1, max_size=3)


@given(st.lists(st.text(st.sampled_from("abcxyzäé09+"), min_size=1), min_size=1), separators, separators)
def test_case_blanks_and_punctuation_do_not_matter(words: list[str], before: str, after: str) -> None:
    assert is_unchanged(before.join(words), after.join(words).upper() + after)
