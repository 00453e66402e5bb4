"""What all Python workers share: time and memory of a call, and the line of JSON they print."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEGABYTE = 2**20


def memory(field: str) -> float:
    """A field of the process's memory in megabytes: VmRSS (now) or VmHWM (the peak)."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE
    line = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
    return float(line.split()[1]) * 1024 / MEGABYTE


def run(fit: Callable[[], Any], repeats: int) -> tuple[Any, dict[str, Any]]:
    """Call `fit` several times; the last result, and the time and memory of all calls."""
    before = memory("VmRSS")
    seconds, cpu, result = [], [], None
    for _ in range(repeats):
        result = None
        wall, used = time.perf_counter(), time.process_time()
        result = fit()
        seconds.append(time.perf_counter() - wall)
        cpu.append(time.process_time() - used)
    return result, {"seconds": seconds, "cpu": cpu, "before_mb": before, "peak_mb": memory("VmHWM")}


def emit(measured: dict[str, Any], estimates: dict[str, float], **more: Any) -> None:
    """Print the line that the parent process reads."""
    values = {label: float(value) for label, value in estimates.items()}
    print(json.dumps(measured | more | {"estimates": values}), flush=True)
