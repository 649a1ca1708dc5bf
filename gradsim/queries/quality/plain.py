"""Texts without what hinders looking for words in them."""

import re
import unicodedata

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'"))
# Nothing here may search through the same characters twice: a text may be one word of megabytes.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\$[^$\n]+\$|</?\w[^<>\n]*>|&#?\w{1,9};|\b\w{1,9}://\S+|(?<!\S)\S{1,64}@\S+", re.DOTALL
)


def folded(text: str) -> str:
    """A text in small letters, with one way of writing each character, and with straight apostrophes."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).casefold())


def without_code(text: str) -> str:
    """A text without program code and formulas that are marked as such, addresses and tags."""
    return _CODE.sub(" ", text)
