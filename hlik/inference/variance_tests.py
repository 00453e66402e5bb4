"""`variance_tests`: one-sided Wald tests of the variances of random effects."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.delta_method import delta_variance
from hlik.errors import ModelError
from hlik.inference.averages import variance_of_v
from hlik.inference.correlated import correlated_rows, is_packed
from hlik.inference.tables import model_of
from hlik.random_families import RANDOM_FAMILIES

COLUMNS = ("estimate", "se", "statistic", "p_value")


def variance_tests(idata: az.InferenceData) -> pd.DataFrame:
    r"""One-sided Wald tests that the variance of a random effect is zero.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, also one read back from NetCDF.

    Returns
    -------
    pandas.DataFrame
        A row a variance, indexed by ``variance``; columns ``estimate``, ``se`` (delta method), ``statistic``
        (estimate / se) and ``p_value``, ``P(Z > statistic)`` of a standard normal Z: half the two-sided one. Rows: a
        random effect whose levels share a variance, its variance on the scale of v; one whose levels do not, or that
        has a correlation structure, the mean over the observations of ``Var(z'v)`` (``variance[<effect>]`` of
        `hlik.variance_partition`); correlated effects with an LKJ covariance, the variance of each, as ``u[x]``. NaN
        where the density of an effect has no variance in closed form here.

    Raises
    ------
    ModelError
        Where the model has no random effects.

    See Also
    --------
    lr_test : the likelihood-ratio test of the same hypothesis, with its distribution at the boundary.

    Notes
    -----
    mcemGLM and glmm print these tests. They are approximate, and often badly so: under the hypothesis the variance is
    on the boundary of its range, its estimate is zero half the time, and its standard error grows with the estimate, so
    that a large variance with few levels is told from zero with difficulty. A variance that is estimated at zero has no
    standard error, and no test. `hlik.lr_test` of the fits with and without the effect is better in all of this, and
    does not depend on whether the variance or the standard deviation is tested.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=4)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat(np.arange(4), 3)]), observed=y)
    >>> hlik.variance_tests(hlik.fit(model, "laplace", progressbar=False)).round(3).loc["u"].to_dict()
    {'estimate': 1.079, 'se': 0.978, 'statistic': 1.103, 'p_value': 0.135}
    """
    described = model_of(idata)
    if not described["random_effects"]:
        raise ModelError("The model has no random effects.")
    correlated = _correlated(idata, described)
    rows: dict[str, tuple[float, float]] = {}
    for effect in described["random_effects"]:
        own = {label: row for label, row in correlated.items() if label.startswith(f"{effect['name']}[")}
        rows |= own or {effect["name"]: _variance(idata, effect)}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "se"]).rename_axis("variance")
    positive = (table["estimate"] > 0) & (table["se"] > 0)
    table["statistic"] = (table["estimate"] / table["se"]).where(positive)
    table["p_value"] = stats.norm.sf(table["statistic"])
    return table[list(COLUMNS)]


def _correlated(idata: az.InferenceData, described: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Variances and their errors of effects with an LKJ covariance: those of the deviations in `hlik.summary`."""
    found = {}
    for parameter in described["parameters"]:
        if is_packed(idata, parameter):
            for row in correlated_rows(idata, parameter, 0.95):
                if row["label"].startswith("sd("):
                    label, deviation = row["label"][3:].replace(")[", "[", 1), row["estimate"]
                    found[label] = (deviation**2, 2 * deviation * row["se"])
    return found


def _variance(idata: az.InferenceData, effect: dict[str, Any]) -> tuple[float, float]:
    """The variance of v, or the mean of Var(z'v), and its error.

    The error comes from the variance component of a response that the effect stands in: where levels share a variance,
    that is a multiple of it.
    """
    fit = idata["fit"]
    at = [str(name) for name in fit["component"].values].index(effect["name"])
    values = fit["variance_components"].values[:, at]
    responses = np.flatnonzero(values > 0)
    if not responses.size:
        return (0.0 if np.any(values == 0) else np.nan), np.nan
    component = float(values[responses[0]])
    gradient = fit["variance_gradient"].values[responses[0], at]
    error = float(np.sqrt(delta_variance(gradient[None, :], fit["covariance_matrix"].values)[0]))
    shared = _shared(idata, effect)
    return (component, error) if shared is None else (shared, error * shared / component)


def _shared(idata: az.InferenceData, effect: dict[str, Any]) -> float | None:
    """The variance of v that all levels have; None where they differ or are correlated."""
    key = f"{effect['name']}_dispersion"
    if effect["family"] is None or key not in idata["diagnostics"]:
        return None
    lam = idata["diagnostics"][key].values.ravel()
    if lam.min() != lam.max():
        return None
    return float(variance_of_v(RANDOM_FAMILIES[effect["family"]], lam[:1])[0])
