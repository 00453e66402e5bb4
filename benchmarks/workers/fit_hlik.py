"""hlik: the case as an ordinary PyMC model. Arguments: the folder of the case, the name of the estimator."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm

import hlik
from benchmarks import store
from benchmarks.simulate import Columns
from benchmarks.workers import measure


def build(case: dict[str, Any], data: Columns) -> pm.Model:
    """The model as a user would write it."""
    X = np.column_stack([np.ones(case["n"]), *(data[name] for name in case["fixed"])])
    with pm.Model() as model:
        eta = X @ pm.Normal("beta", 0, 10, shape=X.shape[1])
        for k, term in enumerate(case["terms"]):
            sd = pm.HalfNormal(f"sd{k}", 1)
            u = pm.Normal(f"u{k}", 0, sd, shape=case["levels"][term["factor"]])
            effect = u[data[term["factor"]]]
            eta = eta + (effect if term["slope"] is None else effect * data[term["slope"]])
        if case["family"] == "gaussian":
            pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=data["y"])
        elif case["family"] == "poisson":
            pm.Poisson("y", pm.math.exp(eta), observed=data["y"].astype(int))
        elif case["trials"]:
            pm.Binomial("y", data[case["trials"]].astype(int), logit_p=eta, observed=data["y"].astype(int))
        else:
            pm.Bernoulli("y", logit_p=eta, observed=data["y"].astype(int))
    return model


def estimates(case: dict[str, Any], idata: Any) -> dict[str, float]:
    """Under the labels of the tables."""
    beta = idata.estimates["beta"].values
    found = dict(zip(("intercept", *case["fixed"]), beta, strict=True))
    found |= {term["label"]: float(idata.estimates[f"sd{k}"]) for k, term in enumerate(case["terms"])}
    return found | ({"sigma": float(idata.estimates["sigma"])} if case["family"] == "gaussian" else {})


def main(folder: Path, estimator: str) -> None:
    """Read, build, fit, print."""
    case = store.describe(folder)
    data = store.read(folder)
    began = time.perf_counter()
    model = build(case, data)
    building = time.perf_counter() - began
    idata, measured = measure.run(lambda: hlik.fit(model, estimator, progressbar=False), case["repeats"])
    attrs = idata.fit.attrs
    measure.emit(
        measured,
        estimates(case, idata),
        status=attrs["status"],
        iterations=int(attrs["n_iterations"]),
        reading=float(attrs["seconds_reading"]),
        building=building,
        log_likelihood=float(idata.fit["p_bv_h" if case["family"] == "gaussian" else "p_v_h"]),
        version=hlik.__version__,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
