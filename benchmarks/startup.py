"""Cold start: what the demonstration's fit adds to ``import pymc``, in fresh processes with an empty numba cache."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace

from benchmarks.process import Limits, run
from benchmarks.records import Record

CASE = "cold start"
IMPORT = "import pymc; print('{}')"
FIT = "import hlik; from models import seeds; hlik.fit(seeds.build(seeds.load()), progressbar=False); print('{}')"


def measure(repetitions: int, run_name: str, limits: Limits, tell: Callable[[str], None]) -> list[Record]:
    """Both programs in turn."""
    records = []
    for repetition in range(repetitions):
        for system, program in (("import pymc", IMPORT), ("demo fit", FIT)):
            with tempfile.TemporaryDirectory() as cache:
                outcome = run([sys.executable, "-c", program], limits, {"NUMBA_CACHE_DIR": cache})
            tell(f"{CASE:14} {system:14} {outcome.wall:8.2f} s, {outcome.cpu:8.2f} s CPU  {outcome.failure}")
            record = Record(CASE, system, repetition, run_name, 21, outcome.failure)
            records.append(replace(record, process=outcome.wall, process_cpu=outcome.cpu))
    return records
