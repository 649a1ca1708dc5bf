"""Data that a page carries for its script, packed."""

import base64
import gzip
import json

from markupsafe import Markup


def packed(content: bytes) -> str:
    """Compressed and as base64, the same for the same content."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def script_json(value: object) -> Markup:
    """JSON that can stand inside a `script` element, whatever its texts are."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
