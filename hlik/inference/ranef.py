"""`ranef`: the table of the random effects."""

from __future__ import annotations

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.tables import labels, model_of
from hlik.links import LINKS


def ranef(idata: az.InferenceData, level: float = 0.95) -> pd.DataFrame:
    """Table of the random effects.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        A row a level, indexed by label; columns ``term``, ``estimate`` and ``se`` on the scale of the variable
        itself (u), ``v`` and ``v_se`` on the scale of the linear predictor (for a non-centred effect z that is
        scale times z), ``lower`` and ``upper``: Wald on the scale of the value variable, mapped to u. The errors
        are those of prediction: the dispersion parameters count as known.

    Raises
    ------
    ModelError
        Where `idata` is not a result of `hlik.fit`, the model has no random effects, or `level` is no number between 0
        and 1.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, lam = pm.Normal("beta", 0, 5), pm.HalfNormal("lam", 1)
    ...     u = pm.Gamma("u", 1 / lam, 1 / lam, shape=3)
    ...     mu = pm.math.exp(beta) * u[np.repeat([0, 1, 2], 3)]
    ...     _ = pm.Poisson("y", mu, observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> hlik.ranef(hlik.fit(model, progressbar=False))["estimate"].round(3).tolist()
    [0.33, 1.876, 0.794]
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    described = model_of(idata)
    quantile = float(stats.norm.ppf(0.5 + level / 2))
    tables = []
    for term in described["random_effects"]:
        estimate, error = idata["estimates"][term["name"]], idata["standard_errors"][term["name"]]
        own = idata["unconstrained_estimates"][term["value_name"]].values.ravel()
        own_error = idata["unconstrained_standard_errors"][term["value_name"]].values.ravel()
        v, v_se = (idata["diagnostics"][f"{term['name']}_{part}"].values.ravel() for part in ("v", "v_se"))
        if own.size != estimate.size:  # effects that sum to zero have fewer values on PyMC's scale
            own, own_error = v, v_se = estimate.values.ravel(), error.values.ravel()
        inverse = LINKS[term["scale"]].inverse if term["scale"] else LINKS["identity"].inverse
        with np.errstate(all="ignore"):
            ends = np.stack([inverse(own - quantile * own_error), inverse(own + quantile * own_error)])
        tables.append(
            pd.DataFrame(
                {
                    "term": term["name"],
                    "estimate": estimate.values.ravel(),
                    "se": error.values.ravel(),
                    "v": v,
                    "v_se": v_se,
                    "lower": ends.min(axis=0),
                    "upper": ends.max(axis=0),
                },
                index=pd.Index(labels(estimate), name="label"),
            )
        )
    if not tables:
        raise ModelError("The model has no random effects.")
    return pd.concat(tables)
