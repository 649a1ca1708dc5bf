"""How much memory a device has to spare, and what it says when there is none."""

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
    return int(psutil.virtual_memory().available)


def says_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed; a processor's has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
