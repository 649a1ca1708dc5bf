"""Texts of samples, to be read by people; decoding is in `gradsim_assets/test_dataset_formats.py`."""

from gradsim.notebook.texts import text_of
from gradsim.study.datasets import MASKED_TOKENS, TEXT, TOKENS


def test_messages_of_a_conversation_begin_with_their_role() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb"}]
    assert text_of(messages) == "system: Be brief.\n\nuser: a\nb"


def test_texts_and_decoded_tokens_are_as_they_are() -> None:
    assert text_of([{"role": TEXT, "content": "a text"}]) == "a text"
    assert text_of([{"role": MASKED_TOKENS, "content": "How"}, {"role": TOKENS, "content": " so?"}]) == "How so?"
