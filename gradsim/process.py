"""Environment variables for processes that compute gradients; set them before the process starts."""

from collections.abc import Mapping

# By default glibc returns freed memory to the system and requests it again in the next pass, which costs up to 9 µs per
# 4 KiB page on virtual machines. These settings disable trimming and mmap, and grow the heap in steps of 64 MiB.
KEEP_FREED_MEMORY: Mapping[str, str] = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": str(1 << 26),
}

# Busy-waiting OpenMP threads take CPU time from other processes and from the step that they wait for.
JOB_VARIABLES: Mapping[str, str] = {**KEEP_FREED_MEMORY, "OMP_WAIT_POLICY": "PASSIVE"}
