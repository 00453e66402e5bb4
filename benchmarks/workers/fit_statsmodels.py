"""statsmodels: `MixedLM` for normal responses, the variational Bayesian mixed GLMs for the others.

Argument: the folder of the case.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import statsmodels  # type: ignore[import-not-found]
import statsmodels.api as sm  # type: ignore[import-not-found]

from benchmarks import store
from benchmarks.simulate import Columns
from benchmarks.workers import measure
from benchmarks.workers.bernoulli import bernoulli


def fit_gaussian(case: dict[str, Any], data: Columns) -> Any:
    """REML; terms after the first, and slopes, as independent variance components inside the first term's groups."""
    frame = pd.DataFrame(data)
    first, *others = case["terms"]
    components = {
        term["label"]: f"0 + C({term['factor']})" if term["slope"] is None else f"0 + {term['slope']}"
        for term in others
    }
    formula = "y ~ " + " + ".join(("1", *case["fixed"]))
    return sm.MixedLM.from_formula(
        formula, frame, groups=first["factor"], re_formula="1", vc_formula=components or None
    ).fit(reml=True)


def gaussian_estimates(case: dict[str, Any], result: Any) -> dict[str, float]:
    """Under the labels of the tables."""
    first, *others = case["terms"]
    sds = {first["label"]: float(np.sqrt(result.cov_re.iloc[0, 0]))}
    sds |= dict(zip(sorted(term["label"] for term in others), np.sqrt(result.vcomp), strict=True))
    return sds | {"sigma": float(np.sqrt(result.scale))}


def fit_other(case: dict[str, Any], data: Columns) -> Any:
    """Variational Bayes with the package's default priors: an approximation of another thing, for its time."""
    X = np.column_stack([np.ones(len(data["y"])), *(data[name] for name in case["fixed"])])
    blocks = [_indicator(data, term) for term in case["terms"]]
    identity = np.repeat(np.arange(len(blocks)), [b.shape[1] for b in blocks])
    classes = {"poisson": sm.genmod.PoissonBayesMixedGLM, "logit": sm.genmod.BinomialBayesMixedGLM}
    return classes[case["family"]](data["y"], X, sp.hstack(blocks).tocsr(), identity).fit_vb()


def _indicator(data: Columns, term: dict[str, Any]) -> sp.csr_matrix:
    levels, n = data[term["factor"]], len(data["y"])
    values = np.ones(n) if term["slope"] is None else data[term["slope"]]
    return sp.csr_matrix((values, (np.arange(n), levels)))


def main(folder: Path) -> None:
    """Read, fit, print."""
    case = store.describe(folder)
    data = bernoulli(case, store.read(folder))
    gaussian = case["family"] == "gaussian"
    fit = fit_gaussian if gaussian else fit_other
    result, measured = measure.run(lambda: fit(case, data), case["repeats"])
    names = ("intercept", *case["fixed"])
    found = dict(zip(names, result.fe_params if gaussian else result.fe_mean, strict=True))
    if gaussian:
        found |= gaussian_estimates(case, result)
    else:
        found |= dict(zip((t["label"] for t in case["terms"]), np.exp(result.vcp_mean), strict=True))
    status = "" if not gaussian or result.converged else "not converged"
    measure.emit(measured, found, status=status, version=statsmodels.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
