"""Tar archives of small files to send to the cluster."""

import io
import tarfile
from collections.abc import Mapping


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of these files (name -> content), readable by their owner only."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o600
            writer.addfile(header, io.BytesIO(content))
    return buffer.getvalue()
