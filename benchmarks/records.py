"""The table of all runs. A new run of a (case, system) replaces the old ones; nothing else is ever thrown away."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median

from benchmarks.process import Outcome


@dataclass(frozen=True)
class Record:
    """One process. Empty numbers are NaN; times in seconds, memory in megabytes."""

    case: str
    system: str
    repetition: int
    run: str  # when the command was started that this process was part of
    n: int
    failure: str = ""  # why there is no result
    status: str = ""  # what the system says of its convergence
    seconds: float = float("nan")  # the fit; the median of the warm ones where there are several
    cpu: float = float("nan")
    first: float = float("nan")  # the first fit of the process
    first_cpu: float = float("nan")
    process: float = float("nan")  # the whole process, imports included
    process_cpu: float = float("nan")
    reading: float = float("nan")  # hlik: the part of `seconds` in which the graph is read
    building: float = float("nan")  # hlik: `with pm.Model()`, before the fit
    before_mb: float = float("nan")  # when the fit began: interpreter, imports and data
    peak_mb: float = float("nan")
    log_likelihood: float = float("nan")
    iterations: int = 0
    version: str = ""
    estimates: str = "{}"  # JSON

    @property
    def values(self) -> dict[str, float]:
        """The estimates by label."""
        return json.loads(self.estimates)


def from_outcome(outcome: Outcome, *, case: str, system: str, repetition: int, run: str, n: int) -> Record:
    """The record of a process."""
    record = Record(case, system, repetition, run, n, process=outcome.wall, process_cpu=outcome.cpu)
    found = outcome.result
    if not found:
        return replace(record, failure=outcome.failure or "failed: printed no result")
    later = slice(1, None) if len(found["seconds"]) > 1 else slice(None)
    nan = float("nan")
    return replace(
        record,
        status=found.get("status", ""),
        seconds=median(found["seconds"][later]),
        cpu=median(found["cpu"][later]),
        first=found["seconds"][0],
        first_cpu=found["cpu"][0],
        reading=found.get("reading", nan),
        building=found.get("building", nan),
        before_mb=found["before_mb"],
        peak_mb=found["peak_mb"],
        log_likelihood=found.get("log_likelihood", nan),
        iterations=found.get("iterations", 0),
        version=found.get("version", ""),
        estimates=json.dumps(found["estimates"]),
    )


def read(path: Path) -> list[Record]:
    """All records of a file; none where there is no file."""
    if not path.exists():
        return []
    kinds = {"int": int, "float": float, "str": str}
    convert = {field.name: kinds[str(field.type)] for field in fields(Record)}
    with path.open(newline="", encoding="utf-8") as file:
        return [Record(**{name: convert[name](value) for name, value in row.items()}) for row in csv.DictReader(file)]


def merge(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """The new records, and those of the old whose case and system have not been run again."""
    new = list(new)
    renewed = {(record.case, record.system) for record in new}
    return [record for record in old if (record.case, record.system) not in renewed] + new


def write(path: Path, records: Iterable[Record]) -> None:
    """Write a file of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Record)], lineterminator="\n")
        writer.writeheader()
        for record in records:
            row = asdict(record)
            writer.writerow({k: f"{v:.10g}" if isinstance(v, float) else v for k, v in row.items()})
