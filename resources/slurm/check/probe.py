"""A standalone script that reports what a job finds on a compute node: `python probe.py DATA TOKEN RESULT`.

DATA is a folder in the shared data root, or empty; TOKEN is the expected content of its file `from-here`; RESULT is
the JSON file to write.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Write the findings to RESULT."""
    data, token, result = sys.argv[1:]
    found = {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "cpus": int(os.environ.get("SLURM_CPUS_ON_NODE") or os.cpu_count() or 0),
        "memory_mb": int(os.environ.get("SLURM_MEM_PER_NODE") or 0),
        **_environment(),
        **_gpus(),
        "data": _exchange(Path(data), token) if data else "",
    }
    # Atomic, because the check polls for the file.
    partial = Path(f"{result}.partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.rename(result)


def _environment() -> dict[str, Any]:
    from gradsim.partition_job import code_version  # noqa: PLC0415 - may fail

    return {"code_version": code_version()}


def _gpus() -> dict[str, Any]:
    import torch  # noqa: PLC0415 - may fail

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    trouble = ""
    try:
        for index in range(len(names)):  # a driver may list GPUs that this torch build does not support
            torch.ones(1, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        trouble = str(error).splitlines()[0]
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": names, "gpu_trouble": trouble}


def _exchange(data: Path, token: str) -> str:
    """Return what is wrong with the shared data root; empty if nothing is."""
    try:
        seen = (data / "from-here").read_text(encoding="utf-8") == token
        (data / "from-a-node").write_text(token, encoding="utf-8")
    except OSError as error:
        return f"{data}: {error.strerror}"
    return "" if seen else f"{data}: another file"


if __name__ == "__main__":
    main()
