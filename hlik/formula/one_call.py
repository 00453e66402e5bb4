"""`hglm`: formula to fit in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hlik.estimators.base import Estimator
from hlik.formula.effects import RandomDistribution
from hlik.formula.families import FAMILIES


def hglm(
    formula: str,
    data: pd.DataFrame,
    estimator: str | Estimator = "eql",
    *,
    family: str = "gaussian",
    link: str | None = None,
    trials: Any = None,
    random: Mapping[str, RandomDistribution] | None = None,
    dispersion: str | None = None,
    random_dispersion: Mapping[str, str] | None = None,
    weights: Any = None,
    missing: str = "drop",
    env: int = 0,
    **fit_arguments: Any,
) -> Any:
    """Fit a hierarchical generalised linear model: `from_formula` and `fit` in one call.

    Parameters
    ----------
    formula, data
        As in `from_formula`.
    estimator
        As in `fit`: ``"eql"`` is what R's hglm computes; ``hlik.EQL(correction="HL11")`` is its EQL1,
        ``hlik.EQL(dispersion="estimate")`` its default for binary data and counts.
    family, link, trials, random, dispersion, random_dispersion, weights, missing, env
        As in `from_formula`; `weights` are allowed for every family here (binary data and counts with weight w count
        w times).
    **fit_arguments
        Other arguments of `fit`: ``fixed``, ``start``, ``draws``, ``progressbar``, ``random_seed``, ...

    Returns
    -------
    arviz.InferenceData
        As from `fit`. For predictions and sampling keep the model: use `from_formula` and `fit`.

    Raises
    ------
    ModelError
        As in `from_formula` and `fit`.

    Warns
    -----
    DataWarning
        Where rows with missing values are left out.
    ConvergenceWarning
        Where the fit ended otherwise than converged.

    Examples
    --------
    >>> import hlik, numpy as np, pandas as pd
    >>> data = pd.DataFrame({"y": [1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6],
    ...                      "g": np.repeat(list("abcd"), 3)})
    >>> idata = hlik.hglm("y ~ 1 + (1 | g)", data, progressbar=False)
    >>> round(float(idata.estimates["sigma"]), 4)
    0.3416
    """
    from hlik.fit import fit
    from hlik.formula.formulas import from_formula

    in_graph = weights is None or family not in FAMILIES or FAMILIES[family].weighted
    model = from_formula(
        formula,
        data,
        family=family,
        link=link,
        trials=trials,
        random=random,
        dispersion=dispersion,
        random_dispersion=random_dispersion,
        weights=weights if in_graph else None,
        missing=missing,
        env=env + 1,
    )
    if not in_graph:
        fit_arguments["weights"] = _row_weights(weights, data, model)
    return fit(model, estimator, **fit_arguments)


def _row_weights(weights: Any, data: pd.DataFrame, model: Any) -> dict[str, np.ndarray]:
    """Weights of the rows that the model kept, for the one response."""
    from hlik.formula.build import ROWS
    from hlik.formula.frame import column

    kept = data.loc[list(model.coords[ROWS])]
    values = column(weights, kept, data.index, "weights")
    return {model.observed_RVs[0].name: np.asarray(values)}
