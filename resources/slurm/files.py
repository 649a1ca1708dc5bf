"""Transfer of a job's inputs and results if the cluster does not share the data root, verified by checksums."""

import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from gradsim.errors import ClusterError
from gradsim.partition_job import PartitionJob
from gradsim.tables import State
from gradsim.tables.files import atomic_path
from gradsim.tables.seal import file_digest
from resources.slurm.connection import Connection

# A new file becomes visible everywhere on a network file system within about a minute.
SECONDS_TO_BE_SEEN = 90

_SECONDS_A_FILE = 3600


class RemoteFiles:
    """The site's own data root, with the same layout as the local one."""

    def __init__(self, connection: Connection, root: PurePosixPath) -> None:
        self._connection = connection
        self._root = root

    def send_inputs(self, job: PartitionJob, log: Callable[[str], None]) -> None:
        """Copy the job's input files to the cluster, except those that are already there.

        Raises:
            ClusterError: A file cannot be written there.
        """
        here = {path.relative_to(job.root): path for path in input_files(job)}
        checksums = {relative: file_digest(path) for relative, path in here.items()}
        there = self._checksums(checksums)
        missing = [relative for relative, checksum in checksums.items() if there.get(relative) != checksum]
        for relative in missing:
            self._send(here[relative], self._root / relative.as_posix(), checksums[relative])
        log(f"input files copied to {self._root}: {len(missing)} of {len(here)}")

    def fetch_results(self, job: PartitionJob, log: Callable[[str], None]) -> None:
        """Copy the job's results here, except those that are already here and fresh.

        Raises:
            ClusterError: A file is missing on the cluster, is damaged by the copy, or was made from other inputs.
            TableError: A file cannot be written here.
        """
        store = job.store()
        wanted = {
            store.path(key, partition): (key, partition)
            for key, partition in job.outputs
            if job.force or store.state(key, partition) is not State.FRESH
        }
        if wanted and job.kind == "training":
            self._fetch_model(store.model_folder, job.root)  # before the table with its digest
        checksums = self._checksums([path.relative_to(job.root) for path in wanted])
        for path, (key, partition) in wanted.items():
            relative = path.relative_to(job.root)
            there = self._root / relative.as_posix()
            if relative not in checksums:
                raise ClusterError(f"{there}: the job did not write it; run it again")
            with atomic_path(path) as partial:
                self._fetch(there, partial, checksums[relative])
                if (state := store.state(key, partition, partial)) is not State.FRESH:
                    raise ClusterError(f"{there} is {state}: it was not made from the current inputs; run it again")
        if wanted:
            log(f"results copied from {self._root}: {len(wanted)}")

    def _fetch_model(self, folder: Path, root: Path) -> None:
        relative = folder.relative_to(root)
        there = self._root / relative.as_posix()
        listed = self._connection.patiently(f"cd {shlex.quote(str(there))} && find . -type f", timeout=_SECONDS_A_FILE)
        names = listed.output.decode().splitlines()
        if not names:
            raise ClusterError(f"{there}: the job did not write it; run it again")
        checksums = self._checksums(relative / name for name in names)
        shutil.rmtree(folder, ignore_errors=True)
        for file, checksum in checksums.items():
            with atomic_path(root / file) as partial:
                self._fetch(self._root / file.as_posix(), partial, checksum)

    def _checksums(self, files: Iterable[Path]) -> dict[Path, str]:
        """Return the checksums of these files; files missing on the cluster are left out."""
        names = "".join(f"{relative.as_posix()}\0" for relative in files).encode()
        root = shlex.quote(str(self._root))
        answer = self._connection.patiently(
            f"mkdir -p {root} && cd {root} && xargs -0 sha256sum -- 2>/dev/null || true", names, timeout=_SECONDS_A_FILE
        )
        lines = [line.split("  ", 1) for line in answer.output.decode().splitlines()]
        return {Path(line[1]): line[0] for line in lines if len(line) == 2}

    def _send(self, here: Path, there: PurePosixPath, checksum: str) -> None:
        # Another run may send the same file at the same time.
        partial, quoted = shlex.quote(f"{there}.{secrets.token_hex(4)}.partial"), shlex.quote(str(there))
        command = (
            f"mkdir -p {shlex.quote(str(there.parent))} && cat > {partial} "
            f"&& echo {checksum}'  '{partial} | sha256sum -c --quiet - && mv {partial} {quoted}"
        )
        with here.open("rb") as source:
            answer = self._connection.patiently(command, source, timeout=_SECONDS_A_FILE)
        if answer.status:
            raise ClusterError(
                f"{there}: cannot be written on the cluster ({answer.errors}); make room, or set SLURM_REMOTE_BASE"
            )

    def _fetch(self, there: PurePosixPath, here: Path, checksum: str) -> None:
        with here.open("wb") as target:
            self._connection.patiently(f"cat {shlex.quote(str(there))}", target=target, timeout=_SECONDS_A_FILE)
        if file_digest(here) != checksum:
            raise ClusterError(
                f"{there}: the copy has another checksum; run it again, and let ~/.bashrc there print nothing"
            )


def input_files(job: PartitionJob) -> Iterator[Path]:
    """Yield the files that a job reads: its input tables, and the weights of a model trained by the study."""
    store = job.store()
    yield from sorted(store.path(key, partition) for key, partition in job.inputs(store))
    if job.kind != "training" and store.model_folder.is_dir():
        yield from sorted(path for path in store.model_folder.rglob("*") if path.is_file())


def wait_until_seen(job: PartitionJob, there: PurePosixPath) -> None:
    """Wait until a job's results on a shared file system are visible here.

    Raises:
        ClusterError: A result is damaged, or does not appear within `SECONDS_TO_BE_SEEN`.
    """
    store = job.store()
    end = time.monotonic() + SECONDS_TO_BE_SEEN
    for key, partition in job.outputs:
        while (state := store.state(key, partition)) is not State.FRESH:
            if time.monotonic() > end or state is State.CORRUPT:
                raise ClusterError(
                    f"{store.path(key, partition)} is {state}, although the job reports that it wrote it: "
                    f"SLURM_DATA ({there}) must be the cluster's path of GRADSIM_DATA ({job.root})"
                )
            time.sleep(1)
