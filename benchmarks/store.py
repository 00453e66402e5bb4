"""Data on disk: a folder a case, ``case.json`` and one file of raw numbers a column, which Python and R read fast."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES, Case
from benchmarks.simulate import Columns


def write(case: Case, folder: Path) -> None:
    """Write the data of a case unless they are there."""
    if (folder / "case.json").exists():
        return
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    columns = case.columns()
    for name, values in columns.items():
        kind = "i32" if values.dtype == np.int32 else "f64"
        np.ascontiguousarray(values, np.int32 if kind == "i32" else np.float64).tofile(partial / f"{name}.{kind}")
    description: dict[str, Any] = {
        "name": case.name,
        "family": case.family,
        "fixed": case.fixed,
        "terms": [asdict(term) | {"label": term.label} for term in case.terms],
        "trials": case.trials,
        "repeats": case.repeats,
        "n": len(columns["y"]),
        "levels": {t.factor: int(columns[t.factor].max()) + 1 for t in case.terms},
    }
    (partial / "case.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def describe(folder: Path) -> dict[str, Any]:
    """What `case.json` says."""
    return json.loads((folder / "case.json").read_text(encoding="utf-8"))


def read(folder: Path) -> Columns:
    """All columns of a case."""
    kinds = {".f64": np.float64, ".i32": np.int32}
    return {p.stem: np.fromfile(p, kinds[p.suffix]) for p in sorted(folder.iterdir()) if p.suffix in kinds}


if __name__ == "__main__":  # a process of its own, so that the one that starts the fits stays small
    write(CASES[sys.argv[1]], Path(sys.argv[2]))
