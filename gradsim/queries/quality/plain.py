"""Normalization of texts for word matching."""

import re
import unicodedata

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'"))
# No alternative may backtrack over long stretches: a text can be a single word of megabytes.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\$[^$\n]+\$|</?\w[^<>\n]*>|&#?\w{1,9};|\b\w{1,9}://\S+|(?<!\S)\S{1,64}@\S+", re.DOTALL
)


def folded(text: str) -> str:
    """Return a text in lower case, NFKC-normalized and with straight apostrophes."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).casefold())


def without_code(text: str) -> str:
    """Return a text without marked code and formulas, tags, entities, URLs and e-mail addresses."""
    return _CODE.sub(" ", text)
