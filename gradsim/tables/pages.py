"""HTML pages with provenance."""

import hashlib
import re
from pathlib import Path

from pydantic import ValidationError

from gradsim.errors import TableError
from gradsim.tables.files import atomic_path, corrupt
from gradsim.tables.provenance import Provenance
from gradsim.tables.seal import verify, with_seal

_COMMENT = re.compile(r"<!-- gradsim (\{.*\}) -->\s*\Z")


def write_page(page: str, path: Path, provenance: Provenance) -> Provenance:
    """Write a page atomically, with its provenance in a comment at the end.

    Returns:
        The provenance with the page's data version.

    Raises:
        TableError: the folder is not writable, or the disk is full.
    """
    version = hashlib.sha256(page.encode()).hexdigest()[:16]
    provenance = provenance.model_copy(update={"data_version": version})
    # Two hyphens would end the comment, so one of them is escaped.
    text = with_seal(provenance.model_dump_json()).replace("--", "-\\u002d")
    with atomic_path(path) as partial:
        partial.write_text(f"{page}\n<!-- gradsim {text} -->\n", encoding="utf-8")
    return provenance


def read_page_provenance(path: Path) -> Provenance:
    """Return the provenance at the end of a page.

    Raises:
        TableError: the page is missing or damaged.
    """
    try:
        verify(path)
        found = _COMMENT.search(path.read_text(encoding="utf-8"))
        return Provenance.model_validate_json(found[1] if found else "", context=path)
    except FileNotFoundError as error:
        raise TableError(f"{path}: does not exist; create it with gradsim report") from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise corrupt(path, error) from error
