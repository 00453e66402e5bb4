"""The benchmarks run, keep failures, and write tables that show the estimates: small, without peers."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import process, records, report, store
from benchmarks.__main__ import parse
from benchmarks.cases import CASES
from benchmarks.process import Limits
from benchmarks.records import Record
from benchmarks.summary import exponent, summarise

ROOT = Path(__file__).resolve().parents[1]

GOOD = Record(
    "seeds",
    "hlik",
    0,
    "today",
    21,
    seconds=0.5,
    cpu=0.25,
    peak_mb=300,
    estimates='{"intercept": -0.5, "sd plate": 0.3}',
)


def test_one_case_end_to_end(tmp_path: Path) -> None:
    arguments = ["--cases", "seeds", "--systems", "hlik", "--repetitions", "1", "--output", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    with (tmp_path / "runs.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["failure"] == "" and row["status"] == "converged"
    assert float(row["cpu"]) > 0 and float(row["peak_mb"]) > float(row["before_mb"]) * 0.9
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "| hlik | -0.5422 | 1.3385 |" in page  # EQL's estimates of the seeds, as models/seeds.py has them


@pytest.mark.parametrize("name", [c.name for c in CASES.values() if c.quick])
def test_data_on_disk(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    store.write(case, tmp_path / "data")
    columns, read = case.columns(), store.read(tmp_path / "data")
    assert set(columns) == set(read)
    for column, values in columns.items():
        np.testing.assert_array_equal(read[column], values)
    described = store.describe(tmp_path / "data")
    assert described["n"] == len(columns["y"])
    for term in case.terms:
        assert set(np.unique(columns[term.factor])) == set(range(described["levels"][term.factor]))


def test_limits_end_a_process() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert process.run(sleep, Limits(seconds=0.3)).failure == "over 0 s"
    failing = process.run([sys.executable, "-c", "raise ValueError('no such thing')"], Limits())
    assert failing.result is None and failing.failure == "failed: ValueError: no such thing"


def test_failures_are_kept_and_counted(tmp_path: Path) -> None:
    bad = Record("seeds", "lme4", 0, "today", 21, failure="over 600 s")
    records.write(tmp_path / "runs.csv", [GOOD, replace(GOOD, repetition=1, cpu=0.75), bad])
    read = records.read(tmp_path / "runs.csv")
    assert read[0].values == GOOD.values and read[2].failure == bad.failure
    page = report.text(summarise(read), None)
    assert "| hlik | 0.5 | 0.5 | 1 |" in page  # medians of 0.25 and 0.75
    assert "1, 1 failed (over 600 s)" in page


def test_new_runs_replace_old() -> None:
    other = replace(GOOD, case="bacteria")
    merged = records.merge([GOOD, other], [replace(GOOD, cpu=1.0)])
    assert [(r.case, r.cpu) for r in merged] == [("bacteria", 0.25), ("seeds", 1.0)]


def test_exponent() -> None:
    assert exponent([10, 100, 1000], [2 * 10**1.5, 2 * 100**1.5, 2 * 1000**1.5]) == pytest.approx(1.5)


def test_slow_cases_are_run_on_request() -> None:
    assert not any(case.slow for case in parse([]).cases)
    assert any(case.slow for case in parse(["--slow"]).cases)
    assert [case.name for case in parse(["--cases", "movies-1e6"]).cases] == ["movies-1e6"]
    assert all(case.quick for case in parse(["--quick"]).cases)
