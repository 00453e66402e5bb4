"""hlik: the case as an ordinary PyMC model. Arguments: the folder of the case, the name of the estimator."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import scipy.sparse as sp

import hlik
from benchmarks import store
from benchmarks.simulate import Columns
from benchmarks.workers import measure
from hlik.distributions import CAR, Relationship


def build(case: dict[str, Any], data: Columns) -> pm.Model:
    """The model as a user would write it."""
    X = np.column_stack([np.ones(case["n"]), *(data[name] for name in case["fixed"])])
    with pm.Model() as model:
        eta = X @ pm.Normal("beta", 0, 10, shape=X.shape[1])
        for k, term in enumerate(case["terms"]):
            effect = effects(k, term, case["levels"][term["factor"]], data)[data[term["factor"]]]
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


def effects(k: int, term: dict[str, Any], levels: int, data: Columns) -> Any:
    """The random effects of a term."""
    if term["structure"] == "grid":
        tau, rho = pm.HalfNormal(f"tau{k}", 1), pm.Uniform(f"rho{k}", -0.25, 0.25)
        return CAR(f"u{k}", D=neighbours(math.isqrt(levels)), rho=rho, tau=tau)
    sd = pm.HalfNormal(f"sd{k}", 1)
    if term["structure"] == "pedigree":
        family = hlik.Pedigree.of(np.arange(levels), *(np.where(data[p] < 0, np.nan, data[p]) for p in ("sire", "dam")))
        return Relationship(f"u{k}", sigma=sd, pedigree=family)
    return pm.Normal(f"u{k}", 0, sd, shape=levels)


def neighbours(side: int) -> sp.csc_array:
    """The neighbour matrix of a square grid."""
    path = sp.diags_array([np.ones(side - 1)] * 2, offsets=[-1, 1])
    return sp.csc_array(sp.kron(path, sp.eye_array(side)) + sp.kron(sp.eye_array(side), path))


def estimates(case: dict[str, Any], idata: Any) -> dict[str, float]:
    """Under the labels of the tables."""
    beta = idata.estimates["beta"].values
    found = dict(zip(("intercept", *case["fixed"]), beta, strict=True))
    for k, term in enumerate(case["terms"]):
        if term["structure"] == "grid":
            found |= {f"{name} {term['factor']}": float(idata.estimates[f"{name}{k}"]) for name in ("tau", "rho")}
        else:
            found[term["label"]] = float(idata.estimates[f"sd{k}"])
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
