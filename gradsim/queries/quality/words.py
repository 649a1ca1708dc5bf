"""Normalization of texts, and their words, content words and n-grams."""

import re
import unicodedata

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'"))
# No alternative may backtrack over long stretches: a text can be a single word of megabytes.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\$[^$\n]+\$|</?\w[^<>\n]*>|&#?\w{1,9};|\b\w{1,9}://\S+|(?<!\S)\S{1,64}@\S+", re.DOTALL
)

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

# Stem length in characters: "drive" and "driving" get the same stem, as do most plurals.
_STEM = 5

_FUNCTION_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can cannot could did do does doing done down during each either else even ever every few for from further get gets
    getting got had has have having he her here hers him his how i i'd i'll i'm i've if in into is it it's its just let
    like many may me might mine more most much must my neither no nor not now of off on once one only onto or other our
    ours out over own same shall she should so some still such than that that's the their theirs them then there these
    they this those through to too under until up upon us use used using very was way ways we well were what when where
    whether which while who whom whose why will with within without would yet you you're your yours
    """.split()  # noqa: SIM905 - a list would be quotation marks for the most part
)


def folded(text: str) -> str:
    """Return a text in lower case, NFKC-normalized and with straight apostrophes."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).casefold())


def without_code(text: str) -> str:
    """Return a text without marked code and formulas, tags, entities, URLs and e-mail addresses."""
    return _CODE.sub(" ", text)


def words_of(text: str) -> list[str]:
    """Return all words and numbers in lower case."""
    return _WORD.findall(folded(text))


def content_of(text: str) -> frozenset[str]:
    """Return the numbers and the stems of all words except English function words."""
    return frozenset(
        word[:_STEM] for word in words_of(text) if word not in _FUNCTION_WORDS and (len(word) > 2 or word.isdigit())
    )


def trigrams_of(text: str) -> frozenset[tuple[str, str, str]]:
    """Return all runs of three words."""
    words = words_of(text)
    return frozenset(zip(words, words[1:], words[2:], strict=False))
