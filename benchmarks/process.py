"""One worker as a process: one thread, limits of time and memory, its line of JSON or the reason of its failure."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "BLIS_NUM_THREADS")
}
POLL = 0.05  # seconds between looks at a process


@dataclass(frozen=True)
class Limits:
    """When a process is ended."""

    seconds: float = 600.0
    megabytes: float = 8000.0


@dataclass(frozen=True)
class Outcome:
    """How a process went: `result` is what the worker printed, `failure` why there is none."""

    result: dict[str, Any] | None
    failure: str
    wall: float  # of the whole process, start and imports included
    cpu: float


def run(command: list[str], limits: Limits, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a worker to its end or its limits."""
    settings = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), **(environment or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = os.times()
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, env=settings)
        exceeded = _watch(child, began, limits)
        wall = time.perf_counter() - began
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        out.seek(0)
        err.seek(0)
        printed, complaint = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if exceeded:
        return Outcome(None, exceeded, wall, cpu)
    if child.returncode != 0:
        last = complaint.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        return Outcome(None, f"failed: {last[0][:200]}", wall, cpu)
    return Outcome(_last_json(printed), "", wall, cpu)


def _watch(child: subprocess.Popen[bytes], began: float, limits: Limits) -> str:
    """Wait for the end; end it where it exceeds its limits, and say which."""
    while True:
        try:
            child.wait(POLL)
            return ""
        except subprocess.TimeoutExpired:
            pass
        slow = time.perf_counter() - began > limits.seconds
        large = resident(child.pid) > limits.megabytes
        if slow or large:
            child.kill()
            child.wait()
            return f"over {limits.seconds:.0f} s" if slow else f"over {limits.megabytes / 1000:g} GB"


def resident(pid: int) -> float:
    """Memory of a process in megabytes; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def _last_json(printed: str) -> dict[str, Any]:
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}
