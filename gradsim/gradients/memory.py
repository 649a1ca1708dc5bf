"""How much memory a device has to spare."""

import psutil
import torch


def default_budget(device: torch.device, working_bytes: int) -> int:
    """Nine tenths of what is free on a device, less the working memory of a pass; never negative."""
    return max(0, free_bytes(device) * 9 // 10 - working_bytes)


def free_bytes(device: torch.device) -> int:
    """Free bytes on a device, with what torch has reserved there but does not use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + idle)
    return int(psutil.virtual_memory().available)
