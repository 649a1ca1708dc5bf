"""Language identification, and texts that were rewritten in another language.

py3langid returns a probability for each of its 140 languages that takes the text's length into account: short texts,
names, numbers and program code rarely get a high one. In 24,880 sentences and lines of LIMA's English samples with at
least 30 letters it reports another language 7 times; all 7 are in that language or quote it. It misses 1% of sentences
in another language from 100 characters on, 10% of those with 60 characters, and 25% of those with 40.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from gradsim.queries.quality.rewrite import Rewrite
from gradsim.queries.quality.words import without_code

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Minimum probability of the language of a text, and of a language that may occur in it.
_SURE = 0.8
_TRACE = 0.2

# Minimum UTF-8 bytes of letters: 30 Latin, 15 Cyrillic or 10 Chinese letters.
_LEAST_BYTES = 30
_LEAST_BYTES_OF_A_TRACE = 15

# Varieties that short texts do not distinguish -> the language that they count as.
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

# The library's label for text without a language, such as program code.
_NONE = "zxx"

# Maximum number of characters to identify.
_ENOUGH = 2000

_BORDERS = re.compile(r"[\n\"“”„«»「」]+|: ")
_LETTERS = re.compile(r"[^\W\d_]+")
_NOT_LATIN = re.compile(r"[^\x00-\u024f\u1e00-\u206f]+(?:[ \t]+[^\x00-\u024f\u1e00-\u206f]+)*")


def is_in_another_language(rewrite: Rewrite) -> bool:
    """Return whether text and original are in different identified languages.

    A request for a translation contains two languages, and rewriting can change which one dominates. The text is
    therefore accepted if any part of it may be in the original's language.
    """
    before, after = language_of(rewrite.original), language_of(rewrite.text)
    return before is not None and after is not None and before != after and not has_trace(rewrite.text, before)


def language_of(text: str) -> str | None:
    """Return the ISO 639 code of a text's language; None if uncertain."""
    words = without_code(text)
    if _bytes_of_letters(words) < _LEAST_BYTES:
        return None
    probabilities = _probabilities(words[:_ENOUGH])
    language = max(probabilities, key=probabilities.__getitem__)
    return language if probabilities[language] >= _SURE and language != _NONE else None


def languages_of_parts(text: str) -> list[str]:
    """Return the identified languages of a text and of its lines, quotations and passages in other scripts."""
    languages = (language_of(part) for part in (text, *_parts(text)))
    return list(dict.fromkeys(language for language in languages if language is not None))


def has_trace(text: str, language: str) -> bool:
    """Return whether a text, or a part of it such as a quotation, may be in a language."""
    return any(
        _probabilities(part)[language] >= _TRACE
        for part in (without_code(text), *_parts(text))
        if _bytes_of_letters(part) >= _LEAST_BYTES_OF_A_TRACE
    )


def could_be(text: str, language: str) -> bool:
    """Return whether a language has at least a quarter of the highest probability, even for a short text."""
    probabilities = _probabilities(without_code(text))
    return probabilities[language] >= max(probabilities.values()) / 4


def _parts(text: str) -> list[str]:
    words = without_code(text)
    return [*_BORDERS.split(words), *_NOT_LATIN.findall(words)]


def _bytes_of_letters(text: str) -> int:
    return len("".join(_LETTERS.findall(text)).encode("utf-8", errors="surrogatepass"))


def _probabilities(text: str) -> Mapping[str, float]:
    """Return the probability of each language, with varieties merged."""
    probabilities: dict[str, float] = defaultdict(float)
    for language, probability in _identifier().rank(text):
        probabilities[_VARIETIES.get(language, language)] += probability
    return probabilities


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    """Load the library's model on first use, which takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
