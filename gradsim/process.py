"""Environment variables for processes that compute gradients; they take effect only before a process starts."""

from collections.abc import Mapping

# glibc returns freed memory to the system and asks for it again in the next pass, which costs up to 9 µs for each page
# of 4 KiB on virtual machines. With these it trims nothing, maps no block on its own, and grows its heap by 64 MiB.
KEEP_FREED_MEMORY: Mapping[str, str] = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": str(1 << 26),
}

# Threads that wait actively take the processors from others: from a second process, and from the step that waits.
JOB_VARIABLES: Mapping[str, str] = {**KEEP_FREED_MEMORY, "OMP_WAIT_POLICY": "PASSIVE"}
