"""Files and folders that a study names, and digests of their contents."""

import hashlib
from pathlib import Path

from pydantic import BaseModel

from gradsim.errors import StudyError
from gradsim.study import Chat, FileDataset, ReferenceModel
from gradsim.study.settings import QueryMethod


def named_file(section: BaseModel) -> Path | None:
    """Return the file that a section of the study names, if any."""
    match section:
        case FileDataset(path=path):
            return path
        case Chat(file=file):
            return file
        case QueryMethod(file=file):
            return file
        case ReferenceModel(reference=architecture):
            return architecture.tokenizer / "tokenizer.json" if architecture.tokenizer else None
        case _:
            return None


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the Arrow files of a folder.

    Raises:
        StudyError: It cannot be read.
    """
    try:
        if path.is_dir():  # saved by `datasets`, whose other files differ each time
            return hashlib.sha256("".join(map(content_digest, sorted(path.glob("*.arrow")))).encode()).hexdigest()
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); correct the path in the study file") from error
