"""Token count estimates without a tokenizer."""

import math

# Average for English text and vocabularies of tens of thousands of tokens.
CHARACTERS_PER_TOKEN = 4

# From this code point on, a character typically stands for a syllable or a word.
_FIRST_IDEOGRAPH = "\u2e80"


def estimated_tokens(text: str) -> int:
    """Return the estimated number of tokens: one per four characters, and one per ideograph or syllable character."""
    ideographs = 0 if text.isascii() else sum(character >= _FIRST_IDEOGRAPH for character in text)
    return math.ceil((len(text) - ideographs) / CHARACTERS_PER_TOKEN) + ideographs
