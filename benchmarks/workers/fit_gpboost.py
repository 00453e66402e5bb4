"""GPBoost: `GPModel` and its `fit`, with the package's defaults. Argument: the folder of the case."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gpboost  # type: ignore[import-not-found]
import numpy as np

from benchmarks import store
from benchmarks.workers import measure
from benchmarks.workers.bernoulli import bernoulli

LIKELIHOODS = {"gaussian": "gaussian", "poisson": "poisson", "logit": "bernoulli_logit"}


def main(folder: Path) -> None:
    """Read, fit, print."""
    case = store.describe(folder)
    data = bernoulli(case, store.read(folder))
    X = np.column_stack([np.ones(len(data["y"])), *(data[name] for name in case["fixed"])])
    factors = list(dict.fromkeys(term["factor"] for term in case["terms"]))
    groups = np.column_stack([data[name] for name in factors])
    slopes = [term for term in case["terms"] if term["slope"] is not None]
    options: dict[str, Any] = {}
    if slopes:
        options["group_rand_coef_data"] = np.column_stack([data[term["slope"]] for term in slopes])
        options["ind_effect_group_rand_coef"] = [factors.index(term["factor"]) + 1 for term in slopes]

    def fit() -> gpboost.GPModel:
        model = gpboost.GPModel(
            group_data=groups, likelihood=LIKELIHOODS[case["family"]], num_parallel_threads=1, **options
        )
        model.fit(y=data["y"], X=X)
        return model

    model, measured = measure.run(fit, case["repeats"])
    variances = np.ravel(model.get_cov_pars(format_pandas=False))
    found = dict(zip(("intercept", *case["fixed"]), np.ravel(model.get_coef(format_pandas=False)), strict=True))
    gaussian = case["family"] == "gaussian"
    sds = np.sqrt(variances[1:] if gaussian else variances)
    found |= dict(zip((term["label"] for term in case["terms"]), sds, strict=True))
    measure.emit(
        measured,
        found | ({"sigma": np.sqrt(variances[0])} if gaussian else {}),
        status="",
        log_likelihood=-model.get_current_neg_log_likelihood(),
        version=gpboost.__version__,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
