"""The C library's heap: memory of long arrays that are freed and asked for again within one fit."""

from __future__ import annotations

import numpy as np

LONG = 20_000  # rows: shorter columns come from the heap anyhow
LARGEST = 2**25 - 2**16  # bytes: above 32 MB glibc takes no notice of what is freed


def keep_freed_memory(n_rows: int) -> None:
    """Make glibc keep freed memory of up to 64 MB for the next arrays, where columns are long.

    It gives blocks above its thresholds back to the system when they are freed, and the system clears every page that
    it hands out again: a sixth of the time of a fit to 200,000 rows. The thresholds rise to the size of the largest
    block of up to 32 MB that was ever freed (mallopt(3), "dynamic mmap threshold"), which one block that nobody writes
    to is enough for. Other C libraries take no notice.
    """
    if n_rows > LONG:
        np.empty(LARGEST, dtype=np.uint8)
