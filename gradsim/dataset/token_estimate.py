"""How many tokens a text has, about, where there is no tokenizer to ask."""

import math

# Of English text, for tokenizers of some ten thousand entries.
CHARACTERS_PER_TOKEN = 4

# From here on scripts write syllables or words with a character.
_FIRST_IDEOGRAPH = "\u2e80"


def estimated_tokens(text: str) -> int:
    """A token for four characters, and for each that stands for a syllable or a word."""
    ideographs = 0 if text.isascii() else sum(character >= _FIRST_IDEOGRAPH for character in text)
    return math.ceil((len(text) - ideographs) / CHARACTERS_PER_TOKEN) + ideographs
