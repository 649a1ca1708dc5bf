"""How much memory a device has to spare, and what it says when there is none."""

import os
from pathlib import Path

import psutil
import torch


def default_budget(device: torch.device) -> int:
    """Nine tenths of what is free on a device."""
    return free_bytes(device) * 9 // 10


def free_bytes(device: torch.device) -> int:
    """Free bytes on a device, with what torch has reserved there but does not use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + idle)
    free = int(psutil.virtual_memory().available)
    limit = _limit_of_this_job()
    return free if limit is None else max(0, min(free, limit - psutil.Process().memory_info().rss))


def _limit_of_this_job() -> int | None:
    """Bytes that a batch system or a container lets this process have; None: all there are."""
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
    """Whether an allocation failed; a processor's has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
