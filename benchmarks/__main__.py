"""Run the benchmarks: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import figures, records, report, startup, store
from benchmarks.cases import CASES, Case
from benchmarks.process import ROOT, Limits, run
from benchmarks.records import Record
from benchmarks.summary import summarise
from benchmarks.systems import SYSTEMS, System, available

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parent / ".data"
WARM_UP = ("poisson-1e4", "nested-1e5", "insteval")  # between them they need every compiled kernel


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare data, warm up, run all processes in turn, write the results."""
    options = parse(arguments)
    limits = Limits(options.seconds, options.gigabytes * 1000)
    started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    systems, missing = available(options.systems)
    if missing:
        print(f"not installed here: {', '.join(missing)}")
    old = records.read(options.output / "runs.csv")
    new: list[Record] = []
    if not options.no_warm_up and any(case.repeats == 1 for case in options.cases):
        warm_up([SYSTEMS["hlik"]], limits)
    if options.startup:
        new += startup.measure(max(options.repetitions, 3), started, limits, say)
        save(options.output, old, new)
    for case in options.cases:
        new += run_case(case, systems, options.repetitions, started, limits)
        save(options.output, old, new)
    if options.report_only:
        save(options.output, old, new)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line to settings."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default: all but the slow ones")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--repetitions", type=int, default=3, help="processes of each case and system (3)")
    parser.add_argument("--quick", action="store_true", help="small cases only, one repetition")
    parser.add_argument("--slow", action="store_true", help="the slow cases too")
    parser.add_argument("--seconds", type=float, default=600, help="limit of a process (600)")
    parser.add_argument("--gigabytes", type=float, default=8, help="memory limit of a process (8)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (benchmarks/results)")
    parser.add_argument("--startup", action="store_true", help="measure cold start too (without --cases: always)")
    parser.add_argument("--no-warm-up", action="store_true", help="do not fill numba's cache first")
    parser.add_argument("--report-only", action="store_true", help="run nothing: write the report from runs.csv")
    options = parser.parse_args(arguments)
    options.startup = (options.startup or not options.cases) and not options.report_only
    if options.quick:
        options.repetitions = 1
    names = options.cases or [c.name for c in CASES.values() if (c.quick or not options.quick)]
    slow = options.slow or bool(options.cases)
    options.cases = [CASES[name] for name in names if slow or not CASES[name].slow]
    if options.report_only:
        options.cases = []
    return options


def prepare(case: Case) -> Path:
    """The folder of a case's data, written by another process."""
    folder = DATA / case.name
    if not (folder / "case.json").exists():
        subprocess.run([sys.executable, "-m", "benchmarks.store", case.name, str(folder)], cwd=ROOT, check=True)
    return folder


def warm_up(systems: Sequence[System], limits: Limits) -> None:
    """Fit uncounted, so that numba's cache is full."""
    for system in systems:
        for name in WARM_UP:
            outcome = run(system.command(CASES[name], prepare(CASES[name])), limits)
            say(f"{'warm-up':14} {name:14} {outcome.wall:8.2f} s  {outcome.failure}")


def run_case(case: Case, systems: Sequence[System], repetitions: int, started: str, limits: Limits) -> list[Record]:
    """All repetitions of a case, the systems taking turns; one that exceeds its limits is not tried again."""
    folder = prepare(case)
    n = store.describe(folder)["n"]
    found: list[Record] = []
    given_up: set[str] = set()
    for repetition in range(repetitions):
        for system in systems:
            if system.name in given_up or system.obstacle(case):
                continue
            outcome = run(system.command(case, folder), limits)
            record = records.from_outcome(
                outcome, case=case.name, system=system.name, repetition=repetition, run=started, n=n
            )
            if record.failure.startswith("over"):
                given_up.add(system.name)
            found.append(record)
            say(
                f"{case.name:14} {system.name:14} {record.seconds:8.3f} s, {record.cpu:8.3f} s CPU, "
                f"{record.peak_mb:6.0f} MB  {record.failure or record.status}"
            )
    return found


def save(output: Path, old: Sequence[Record], new: Sequence[Record]) -> None:
    """Write the records, the figure and the page."""
    merged = records.merge(old, new)
    records.write(output / "runs.csv", merged)
    summaries = summarise(merged)
    figure = "growth.png" if figures.growth(summaries, output / "growth.png") else None
    (output / "benchmarks.md").write_text(report.text(summaries, figure), encoding="utf-8")


def say(line: str) -> None:
    """Tell what has been done."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
