"""Encoding of the data embedded in a page for its script."""

import base64
import gzip
import json

from markupsafe import Markup


def packed(content: bytes) -> str:
    """Return content compressed with gzip and encoded as base64, deterministically."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def script_json(value: object) -> Markup:
    """Return a value as JSON that is safe inside a `script` element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
