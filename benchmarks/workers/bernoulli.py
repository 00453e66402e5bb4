"""Binomial counts for systems that know only binary responses."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.simulate import Columns


def bernoulli(case: dict[str, Any], data: Columns) -> Columns:
    """Binomial counts as one row a trial: the same likelihood but for a constant."""
    if not case["trials"]:
        return data
    trials, successes = data[case["trials"]].astype(int), data["y"].astype(int)
    rows = np.repeat(np.arange(len(trials)), trials)
    position = np.arange(len(rows)) - np.repeat(np.cumsum(trials) - trials, trials)
    return {name: values[rows] for name, values in data.items()} | {"y": (position < successes[rows]).astype(float)}
