"""Peers: public packages that compute what gradsim computes, each in its own environment.

Used from gradsim's environment. This module imports no peer; it starts the adapters beside it (see `exchange.py`).
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

HERE = Path(__file__).resolve().parent
TIMEOUT = 3600.0  # seconds; a hanging peer must not block the benchmark
_SHOWN_LINES = 15


class PeerError(RuntimeError):
    """A peer that is not installed, or failed."""


class Sample(Protocol):
    """Id, token ids and labels, as `gradsim.gradients.compare` takes them, in lists."""

    @property
    def id(self) -> str: ...

    @property
    def input_ids(self) -> list[int]: ...

    @property
    def labels(self) -> list[int]: ...


@dataclass(frozen=True)
class Peer:
    """A package.

    Attributes:
        name: name on PyPI.
        version: version pinned in its requirements file.
        covers: modules with layers that it covers, in one line.
        tied: what its number for a tied embedding lacks, in one line; empty if it has none.
        pads: whether it pads batches itself.
    """

    name: str
    version: str
    covers: str
    tied: str = ""
    pads: bool = False

    @property
    def requirements(self) -> Path:
        return HERE / f"requirements-{self.name}.txt"

    @property
    def script(self) -> Path:
        return HERE / f"run_{self.name.replace('-', '_')}.py"

    @property
    def environment(self) -> Path:
        """Folder of its virtual environment, below GRADSIM_PEERS if set."""
        root = os.environ.get("GRADSIM_PEERS")
        return (Path(root) if root else Path.home() / ".cache/gradsim-peers") / self.name

    def environment_python(self) -> Path | None:
        """Return the environment's interpreter, if installation finished with the current requirements."""
        mark = self.environment / INSTALLED
        if mark.is_file() and mark.read_bytes() == self.requirements.read_bytes():
            return self.environment / "bin/python"
        return None


INSTALLED = "gradsim-peer.txt"
"""File with a copy of the requirements, written as the last step of an installation."""

PEERS: tuple[Peer, ...] = (
    Peer(
        "dattri-llm",
        "0.1.0",
        "captures single samples only in linear layers, Conv1D, convolutions, embeddings and torch's own norms",
        tied="scores input and output side as two weights, without their cross terms",
    ),
    Peer("kronfluence", "1.0.1", "tracks only nn.Linear and nn.Conv2d", tied="has the output side only"),
    Peer("bergson", "2.5.1", "collects only linear layers, Conv1D and convolutions of the base model", pads=True),
)


@dataclass(frozen=True)
class PeerResult:
    """Result of a peer.

    Attributes:
        layers: parameter names as in `model.named_parameters()`, for the layers that the peer covers; `A + B` stands
            for the sum of two.
        dots: (queries, originals, layers) inner products.
        seconds: time of each repetition of the pairwise computation, without start, model loading and warm-up.
        threads: number of torch threads.
        note: the settings, and what is left out.
    """

    layers: list[str]
    dots: NDArray[np.float64]
    seconds: list[float]
    threads: int
    note: str


def write_input(
    folder: Path,
    model: PreTrainedModel,
    queries: Sequence[Sample],
    originals: Sequence[Sample],
    *,
    padding: str = "right",
) -> None:
    """Write the adapters' input: `model/` and `samples.json`; `exchange.py` describes it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "model")
    content: dict[str, object] = {
        name: [{"id": sample.id, "input_ids": sample.input_ids, "labels": sample.labels} for sample in samples]
        for name, samples in (("queries", queries), ("originals", originals))
    }
    text = json.dumps(content | {"padding": padding})
    (folder / "samples.json").write_text(text, encoding="utf-8")


def run(peer: Peer, folder: Path, repeat: int, threads: int, *, batch: int | None = None) -> PeerResult:
    """Let a peer compute all pairs of the input in `folder`, on the CPU.

    Args:
        peer: one of `PEERS`.
        folder: folder written by `write_input`.
        repeat: number of timed repetitions.
        threads: threads of torch and of the math libraries.
        batch: samples per batch; None: the adapter's choice.

    Raises:
        PeerError: the peer is not installed, or failed.
    """
    python = peer.environment_python()
    if python is None:
        raise PeerError(f"{peer.name} is not installed; run python benchmarks/peers/install.py {peer.name}")
    with tempfile.TemporaryDirectory() as workplace:
        output = Path(workplace) / "answer.npz"
        command = [str(python), str(peer.script), str(folder.resolve()), str(output), "--repeat", str(repeat)]
        if batch is not None:
            command += ["--batch", str(batch)]
        try:
            done = subprocess.run(
                command,
                cwd=workplace,
                env=_environment(threads),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"{peer.name} {peer.version} did not finish within {TIMEOUT:.0f} s") from error
        if done.returncode != 0:
            last_lines = "\n".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:])
            raise PeerError(f"{peer.name} {peer.version} failed with exit status {done.returncode}:\n{last_lines}")
        with np.load(output) as answer:
            return PeerResult(
                layers=answer["layers"].tolist(),
                dots=answer["dots"],
                seconds=answer["seconds"].tolist(),
                threads=int(answer["threads"]),
                note=str(answer["note"]),
            )


def _environment(threads: int) -> dict[str, str]:
    """Return this process's variables without Python's paths, set to CPU, offline, and without progress bars."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    count = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return inherited | count | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
