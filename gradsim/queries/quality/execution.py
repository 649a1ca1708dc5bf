"""Prompts that were executed or answered instead of rewritten, found by signs that need no model.

Sufficient signs: the rewritten prompt repeats the original's answer, is in the answer's language, is as long as an
essay, or begins with yes or no. If the original makes a request and the rewritten prompt does not, weaker signs count
too: words of the answer, greater length, more lines, or the prompt's material without its instruction.

Not found: answers in other words that are as short as the question (a joke for a joke), and stories in place of a
prompt that is a story. Requests are recognized in English only, apart from questions with a question mark.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from gradsim.queries.quality.language import could_be, has_trace, language_of, languages_of_parts
from gradsim.queries.quality.requests import asks, is_open_request, is_request, sentences_of
from gradsim.queries.quality.rewrite import Rewrite, is_unchanged, relative_length
from gradsim.queries.quality.words import content_of, trigrams_of, words_of

_YES_OR_NO = re.compile(r"\W*(?:yes\b|no[,!;:]|no\.(?!\s*\d))", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]+)[\"”“»]")


def is_executed(rewrite: Rewrite) -> bool:
    """Return whether a rewritten prompt reads like an answer to the original."""
    if rewrite.role != "user" or is_unchanged(rewrite):
        return False
    return any(sign(rewrite) for sign in _SIGNS) or (
        _asks_no_more(rewrite) and any(sign(rewrite) for sign in _SIGNS_WITHOUT_A_REQUEST)
    )


def _repeats_the_answer(rewrite: Rewrite) -> bool:
    """Return whether the text is the answer, or a quarter (at least five) of its trigrams are from the answer only."""
    words = words_of(rewrite.text)
    if words and words == words_of(rewrite.answer):
        return True
    runs = trigrams_of(rewrite.text)
    taken = runs & (trigrams_of(rewrite.answer) - trigrams_of(rewrite.original))
    return len(taken) >= max(5, len(runs) / 4)


def _is_translated(rewrite: Rewrite) -> bool:
    """Return whether the text is in the answer's language and has no trace of another language of the prompt."""
    language = language_of(rewrite.text)
    if language is None or language != language_of(rewrite.answer):
        return False
    others = [other for other in languages_of_parts(rewrite.original) if other != language]
    return any(not has_trace(rewrite.text, other) for other in others)


def _is_an_essay(rewrite: Rewrite) -> bool:
    """Return whether the text is three times as long as the prompt, without a request at its beginning or end."""
    if relative_length(rewrite) < 3:
        return False
    sentences = sentences_of(rewrite.text)
    return not any(is_open_request(sentence) for sentence in (*sentences[:1], *sentences[-1:]))


def _says_yes_or_no(rewrite: Rewrite) -> bool:
    """Return whether the text begins with yes or no although the prompt, which makes a request, does not."""
    return bool(_YES_OR_NO.match(rewrite.text)) and not _YES_OR_NO.match(rewrite.original) and asks(rewrite.original)


def _asks_no_more(rewrite: Rewrite) -> bool:
    """Return whether the prompt, in English, makes a request and the text makes none."""
    return asks(rewrite.original) and not asks(rewrite.text) and could_be(rewrite.original, "en")


def _has_words_of_the_answer(rewrite: Rewrite) -> bool:
    """Return whether a quarter (at least three) of the content words, or a number, are from the answer only."""
    content = content_of(rewrite.text)
    taken = content & (content_of(rewrite.answer) - content_of(rewrite.original))
    return len(taken) >= max(3, len(content) / 4) or any(word.isdigit() for word in taken)


def _is_longer(rewrite: Rewrite) -> bool:
    """Return whether the text is at least 1.8 times as long as the prompt."""
    return relative_length(rewrite) >= 1.8


def _has_more_lines(rewrite: Rewrite) -> bool:
    """Return whether the text has at least two more lines than the prompt, as verses, lists and letters do."""
    return _lines(rewrite.text) >= _lines(rewrite.original) + 2


def _lacks_the_instruction(rewrite: Rewrite) -> bool:
    """Return whether the text keeps the material of the prompt but almost nothing of its instruction.

    Material is what the prompt quotes or says in sentences that are not requests. The text keeps it if three, or half,
    of its content words are from it.
    """
    requests = [sentence for sentence in sentences_of(rewrite.original) if is_request(sentence)]
    others = [sentence for sentence in sentences_of(rewrite.original) if not is_request(sentence)]
    material = content_of("\n".join([*others, *_QUOTED.findall(rewrite.original)]))
    instruction = content_of("\n".join(requests)) - material
    content = content_of(rewrite.text)
    kept = len(content & material)
    return (
        len(material) >= 4
        and len(instruction) >= 2
        and len(content & instruction) <= len(instruction) / 10
        and kept >= min(3, len(content) / 2)
    )


def _lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


_Sign: TypeAlias = Callable[[Rewrite], bool]
_SIGNS: tuple[_Sign, ...] = (_repeats_the_answer, _is_an_essay, _says_yes_or_no, _is_translated)
_SIGNS_WITHOUT_A_REQUEST: tuple[_Sign, ...] = (
    _has_words_of_the_answer,
    _is_longer,
    _has_more_lines,
    _lacks_the_instruction,
)
