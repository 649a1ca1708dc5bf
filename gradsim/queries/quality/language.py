"""Which language a text is in, and texts that came back in another one.

py3langid gives each of its 140 languages a probability that takes the text's length into account: it is sure of hardly
any short text, name, number or piece of program code. Of 24,880 sentences and lines of LIMA's English samples, each of
at least thirty letters, it takes seven for another language, and these are in it or quote it. Of sentences in
another language it misses one in a hundred from a hundred characters on, one in ten of sixty, one in four of forty.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from gradsim.queries.quality.plain import without_code
from gradsim.queries.quality.rewrite import Rewrite

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# The least probability of the language that a text is surely in, and of one that may be somewhere in it.
_SURE = 0.8
_TRACE = 0.2

# Bytes of UTF-8 that the letters of a text take: thirty Latin letters, fifteen Cyrillic or ten Chinese ones.
_LEAST_BYTES = 30
_LEAST_BYTES_OF_A_TRACE = 15

# Varieties that a text of few sentences is not told apart by: they count as the language beside them.
_VARIETIES = {
    "arz": "ar",
    "ary": "ar",
    "bs": "hr",
    "sr": "hr",
    "ms": "id",
    "nn": "no",
    "pcm": "en",
    "wuu": "zh",
    "yue": "zh",
}

# What the library calls program code and the like.
_NONE = "zxx"

# So much of a text says in which language it is.
_ENOUGH = 2000

_BORDERS = re.compile(r"[\n\"“”„«»「」]+|: ")
_LETTERS = re.compile(r"[^\W\d_]+")
_NOT_LATIN = re.compile(r"[^\x00-\u024f\u1e00-\u206f]+(?:[ \t]+[^\x00-\u024f\u1e00-\u206f]+)*")


def is_in_another_language(rewrite: Rewrite) -> bool:
    """Whether the languages of text and original are sure and differ.

    A text that asks for a translation is in two languages, and rewriting may change which of them prevails. So nothing
    of the text may be in what the original is in.
    """
    before, after = language_of(rewrite.original), language_of(rewrite.text)
    return before is not None and after is not None and before != after and not has_trace(rewrite.text, before)


def language_of(text: str) -> str | None:
    """The ISO 639 code of the language that a text is surely in, or None."""
    words = without_code(text)
    if _bytes_of_letters(words) < _LEAST_BYTES:
        return None
    probabilities = _probabilities(words[:_ENOUGH])
    language = max(probabilities, key=probabilities.__getitem__)
    return language if probabilities[language] >= _SURE and language != _NONE else None


def languages_of_parts(text: str) -> list[str]:
    """The languages that a text, or a line, a quotation, or what is in another script of it is surely in."""
    languages = (language_of(part) for part in (text, *_parts(text)))
    return list(dict.fromkeys(language for language in languages if language is not None))


def has_trace(text: str, language: str) -> bool:
    """Whether a text, or a part of it such as a quotation, may be in a language."""
    return any(
        _probabilities(part)[language] >= _TRACE
        for part in (without_code(text), *_parts(text))
        if _bytes_of_letters(part) >= _LEAST_BYTES_OF_A_TRACE
    )


def could_be(text: str, language: str) -> bool:
    """Whether a text, however short, is about as likely in this language as in any other."""
    probabilities = _probabilities(without_code(text))
    return probabilities[language] >= max(probabilities.values()) / 4


def _parts(text: str) -> list[str]:
    words = without_code(text)
    return [*_BORDERS.split(words), *_NOT_LATIN.findall(words)]


def _bytes_of_letters(text: str) -> int:
    return len("".join(_LETTERS.findall(text)).encode("utf-8", errors="surrogatepass"))


def _probabilities(text: str) -> Mapping[str, float]:
    """Language -> its probability."""
    probabilities: dict[str, float] = defaultdict(float)
    for language, probability in _identifier().rank(text):
        probabilities[_VARIETIES.get(language, language)] += probability
    return probabilities


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    """The library's model, read when it is first needed: that takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
