"""Free memory of a device, detection of out-of-memory errors, and allocator settings."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch


def default_budget(device: torch.device) -> int:
    """Return the default memory budget in bytes: nine tenths of the device's free memory."""
    return free_bytes(device) * 9 // 10


def free_bytes(device: torch.device) -> int:
    """Return the free bytes on a device, including memory that PyTorch has reserved but does not use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + idle)
    free = int(psutil.virtual_memory().available)
    limit = _limit_of_this_job()
    return free if limit is None else max(0, min(free, limit - psutil.Process().memory_info().rss))


def _limit_of_this_job() -> int | None:
    """Return the memory limit of the batch job or container in bytes, or None without a limit."""
    limits = []
    a_node, a_core = (int(os.environ.get(f"SLURM_MEM_PER_{what}", "0")) << 20 for what in ("NODE", "CPU"))
    if slurm := a_node or a_core * int(os.environ.get("SLURM_CPUS_ON_NODE", "1")):
        limits.append(slurm)
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(file).read_text(encoding="ascii").strip() if Path(file).is_file() else ""
        if text.isdigit():
            limits.append(int(text))
    return min(limits, default=None)


def says_out_of_memory(error: Exception) -> bool:
    """Return whether an error is a failed allocation; PyTorch has no specific exception for the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Make the C library keep freed memory inside the context, and return it to the system on exit.

    By default, glibc returns the top of its heap to the system whenever a batch of tensors is freed, and requests the
    same pages again in the next pass. On a virtual machine, this costs up to a tenth of a pass. `MALLOC_*` environment
    variables take precedence. No effect on other C libraries and on GPUs.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None or any(name.startswith("MALLOC_") for name in os.environ):
        yield
        return
    for parameter, value in _KEEP:
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _GIVE_BACK:
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") else None


# Parameters of mallopt(3). To keep freed memory: no trimming, no separate mappings, heap growth by 64 MiB.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP = ((_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0), (_TOP_PAD, 1 << 26))

# Values that glibc's dynamic adjustment reaches in a process that has freed a large tensor.
_GIVE_BACK = ((_TRIM_THRESHOLD, 1 << 26), (_MMAP_THRESHOLD, 1 << 25), (_MMAP_MAX, 1 << 16), (_TOP_PAD, 1 << 17))
