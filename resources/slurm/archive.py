"""Small files on their way to the cluster, as tar writes them."""

import io
import tarfile
from collections.abc import Mapping


def archive(files: Mapping[str, bytes]) -> bytes:
    """An archive of files that only their owner may read: name -> content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o600
            writer.addfile(header, io.BytesIO(content))
    return buffer.getvalue()
