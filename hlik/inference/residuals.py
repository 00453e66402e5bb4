"""Residuals of a fit, from its InferenceData alone."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.errors import ModelError
from hlik.inference.quantile_residuals import quantile_residuals
from hlik.inference.tables import model_of

KINDS = ("deviance", "pearson", "studentised", "quantile", "response")


def residuals(
    idata: az.InferenceData,
    kind: str = "deviance",
    *,
    response: str | None = None,
    model: Any = None,
    random_seed: int | np.random.Generator | None = None,
) -> xr.DataArray:
    r"""Residuals given the predicted random effects.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    kind
        With mu the fitted mean, d the deviance component, phi the dispersion, w the prior weight, h the leverage:

        ``"deviance"``
            ``sign(y - mu) sqrt(w d)``
        ``"pearson"``
            ``(y - mu) sqrt(w / V(mu))``
        ``"studentised"``
            deviance residuals divided by ``sqrt(phi (1 - h))``
        ``"quantile"``
            ``Phi^-1(P(Y < y) + U P(Y = y))``, U uniform where the response has mass at y (Dunn & Smyth 1996): standard
            normal where the model holds and its parameters are known. Through the distribution function: that of
            SciPy for the families of EQL, else PyMC's. Where PyMC has none it is simulated, which needs `model`.
        ``"response"``
            ``y - mu``; of a Binomial proportions.
    response
        Name of the response; may be left out where there is one.
    model
        The model, for quantile residuals by simulation.
    random_seed
        Seed of U, and of the simulation.

    Returns
    -------
    xarray.DataArray
        With the dims and coords of the response.

    Raises
    ------
    ModelError
        Where the result does not have what the kind needs.

    Notes
    -----
    The predicted effects follow the data, so that residuals vary a little less than they would around the true ones: by
    the leverages, which only "studentised" allows for.

    References
    ----------
    Dunn, P. K. & Smyth, G. K. (1996). Randomized quantile residuals. J. Computational and Graphical Statistics 5.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> idata = hlik.fit(model, progressbar=False)
    >>> hlik.residuals(idata, "pearson").values.round(2).tolist()
    [-0.29, -1.15, 0.58, 0.62, -0.49, 0.25, -0.01, -0.58, 0.57]
    >>> hlik.residuals(idata, "quantile", random_seed=1).dims
    ('y_dim_0',)
    """
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}.")
    name = chosen_response(idata, response)
    if kind == "quantile":
        return quantile_residuals(idata, name, model, np.random.default_rng(random_seed))
    if kind == "response":
        return (proportions(idata, name) - needed(idata, name, "fitted")).rename(name)
    return needed(idata, name, f"residual_{kind}").rename(name)


def chosen_response(idata: az.InferenceData, response: str | None) -> str:
    """The name asked for, or that of the only response."""
    names = [r["name"] for r in model_of(idata)["responses"]]
    if response is None and len(names) == 1:
        return names[0]
    if response is None or response not in names:
        asked = "Say which response" if response is None else f"No response is called {response!r}"
        raise ModelError(f"{asked}: the model has {', '.join(names)}.")
    return response


def proportions(idata: az.InferenceData, name: str) -> xr.DataArray:
    """The response on the scale of its mean: proportions of a Binomial."""
    y = idata["observed_data"][name]
    trials = f"{name}_trials"
    return y / idata["diagnostics"][trials] if trials in idata["diagnostics"] else y


def needed(idata: az.InferenceData, name: str, quantity: str) -> xr.DataArray:
    """A diagnostic of a response, or an error that says what the family has instead."""
    key = f"{name}_{quantity}"
    if key not in idata["diagnostics"]:
        raise ModelError(
            f"This result has no {quantity.replace('_', ' ')} of response {name!r}: hlik has no deviance for it. "
            f"kind='quantile' serves every family."
        )
    return idata["diagnostics"][key]
