"""Memory: no dense array of observations by levels or levels by levels anywhere in a fit; large effects not drawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pymc as pm
import pytest

import hlik

resource = pytest.importorskip("resource")  # not on Windows

ROOT = Path(__file__).resolve().parents[1]

ROWS, CLASSES, SCHOOLS = 200_000, 40_000, 10_000
LEVELS = CLASSES + SCHOOLS

# Bytes. The dense arrays that must not be: ROWS x LEVELS is 80 GB, LEVELS x LEVELS 20 GB, and even a block of one
# of the terms, SCHOOLS x SCHOOLS, 800 MB. What a fit needs grows with ROWS and LEVELS: about 50 columns of ROWS
# numbers at the peak (80 MB: indices and data of Z, slots of Z'WZ, working arrays, diagnostics of the result) and a few
# dozen numbers a level (20 MB); 84 to 150 MB measured, and 77 MB more where numba has to compile its kernels first.
BOUND = 300e6

PROGRAM = f"""
import json, resource, sys
import numpy as np
import pymc as pm
import hlik

unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
rng = np.random.default_rng(1)
group = np.repeat(np.arange({CLASSES}), {ROWS // CLASSES})
school = group // {CLASSES // SCHOOLS}
x = rng.normal(size={ROWS})
u = rng.normal(0, 0.5, {CLASSES})[group] + rng.normal(0, 0.5, {SCHOOLS})[school]
y = rng.poisson(np.exp(0.5 + 0.3 * x + u))
baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
with pm.Model() as model:
    b0, b1 = pm.Normal("b0", 0, 5), pm.Normal("b1", 0, 5)
    s_class, s_school = pm.HalfNormal("s_class", 1), pm.HalfNormal("s_school", 1)
    u_class = pm.Normal("u_class", 0, s_class, shape={CLASSES})
    u_school = pm.Normal("u_school", 0, s_school, shape={SCHOOLS})
    pm.Poisson("y", pm.math.exp(b0 + b1 * x + u_class[group] + u_school[school]), observed=y)
idata = hlik.fit(model, progressbar=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps({{
    "growth": peak - baseline,
    "status": idata.fit.attrs["status"],
    "not_drawn": idata.posterior.attrs["not_drawn"],
    "drawn": sorted(map(str, idata.posterior.data_vars)),
    "sds": [float(idata.estimates["s_class"]), float(idata.estimates["s_school"])],
}}))
"""


@pytest.fixture(scope="module")
def large() -> dict:
    """The fit of a nested model with 50,000 levels, in a process of its own: a peak of memory is never taken back."""
    # The shell between is for ru_maxrss: a process starts with the peak of the one that it was forked from.
    command = ["/bin/sh", "-c", '"$0" -c "$1"', sys.executable, PROGRAM]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_peak_memory(large: dict) -> None:
    assert large["status"] == "converged"
    assert large["sds"] == pytest.approx([0.5, 0.5], abs=0.05)  # simulated values: it was this model that was fitted
    assert large["growth"] < BOUND


def test_large_effects_are_not_drawn(large: dict) -> None:
    assert large["drawn"] == ["b0", "b1", "s_class", "s_school"]
    for name in ("u_class", "u_school", "draw_large=True"):
        assert name in large["not_drawn"]


@pytest.mark.parametrize("draw_large", [False, True])
def test_draw_large(draw_large: bool) -> None:
    rng = np.random.default_rng(2)
    levels = 2_100  # just above the limit
    group = np.repeat(np.arange(levels), 2)
    with pm.Model() as model:
        mean, sigma_u, sigma = pm.Normal("mean"), pm.HalfNormal("sigma_u"), pm.HalfNormal("sigma")
        u = pm.Normal("u", 0, sigma_u, shape=levels)
        pm.Normal("y", mean + u[group], sigma, observed=rng.normal(size=levels)[group] + rng.normal(size=2 * levels))
    idata = hlik.fit(model, progressbar=False, draws=40, draw_large=draw_large, random_seed=3)
    assert ("u" in idata.posterior) == draw_large
    assert ("not_drawn" in idata.posterior.attrs) != draw_large
    if draw_large:
        assert idata.posterior["u"].shape == (4, 10, levels)
        spread = idata.posterior["u"].std(("chain", "draw"))
        ratio = float((spread / idata.standard_errors["u"]).mean())
        # 40 draws: the mean over 2,100 levels of estimated over true standard deviations is 0.99 within about 0.01;
        # sigma_u is drawn too, which only adds a little
        assert ratio == pytest.approx(1.0, abs=0.1)
