"""The heteroscedastic effects model: ridge regression whose shrinkage differs from marker to marker."""

from __future__ import annotations

import ast
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from hlik.errors import ModelError
from hlik.estimators.base import Estimator


def hem(
    model: Any,
    idata: Any,
    estimator: str | Estimator | None = None,
    *,
    effects: Sequence[str] | None = None,
    random: Sequence[str] | None = None,
    draws: int = 1000,
    draw_large: bool = False,
    progressbar: bool = True,
    random_seed: int | np.random.Generator | None = None,
) -> Any:
    r"""Fit a model with many normal effects again, each with a variance of its own.

    From a fit with ``u_j ~ N(0, lam)`` (ridge regression, SNP-BLUP) come the relative variances

    ``w_j = u_j^2 / (1 - h_j)``,

    u_j the estimated effect and h_j its leverage, as in a gamma model of the dispersion with one observation; then
    ``u_j ~ N(0, lam w_j)`` is fitted. Large effects are shrunk less, small ones more.

    Parameters
    ----------
    model
        The model, as it was given to `hlik.fit`.
    idata
        Its fit.
    estimator
        Estimator of the second fit; None: that of the first, with its settings.
    effects
        Names of the random effects that get variances of their own; None: all with more effects than observations.
        They must be normal effects of one variance that enter as ``Z @ u`` with a dense matrix Z.
    random, draws, draw_large, progressbar, random_seed
        As in `hlik.fit`. Fixed parameters and prior weights are those of the first fit.

    Returns
    -------
    arviz.InferenceData
        As `hlik.fit` makes it, with ``<u>_relative_variance``, w, in the group ``diagnostics``. The parameter that
        was the standard deviation of u is now its multiplier of sqrt(w).

    Raises
    ------
    ModelError
        Where there are no such effects, or the result is not of this model.

    Notes
    -----
    Cost: as the first fit, two more readings of Z. The second likelihood uses the data twice: its value, and
    heritabilities made of it, are not comparable with those of the first. One step, as in the paper and in R's bigRR;
    more steps would let all but a few variances vanish.

    References
    ----------
    Shen, X., Alam, M., Fikse, F. & Ronnegard, L. (2013). A novel generalized ridge regression method for
    quantitative genetics. Genetics 193, 1255-1268.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> rng = np.random.default_rng(2)
    >>> Z = rng.integers(0, 3, (100, 400)).astype(np.int8)
    >>> y = Z[:, 7] + rng.normal(0, 0.8, 100) + Z[:, 200:260] @ rng.normal(0, 0.05, 60)
    >>> with pm.Model() as model:
    ...     mean = pm.Normal("mean", 0, 10)
    ...     sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma_u, shape=400)
    ...     _ = pm.Normal("y", mean + Z @ u, sigma, observed=y)
    >>> ridge = hlik.fit(model, progressbar=False)
    >>> own = hlik.hem(model, ridge, progressbar=False)
    >>> [round(float(fit.estimates["u"][7]), 2) for fit in (ridge, own)]
    [0.11, 0.51]
    """
    from hlik.fit import as_estimator, fit_read
    from hlik.graph.read import as_pymc, read_model
    from hlik.inference.restore import held_fixed, prior_weights

    if idata["fit"].attrs.get("priors", "ignore") != "ignore":
        raise ModelError("hem takes likelihood fits: fit without priors='penalise'.")
    chosen = as_estimator(_estimator_of(idata) if estimator is None else estimator)
    began = time.perf_counter()
    fixed, weights = held_fixed(idata), prior_weights(idata)
    if effects is None:
        first = read_model(as_pymc(model), random=random, fixed=fixed, weights=weights)
        effects = [effect.name for effect in first.random_effects if effect.wide is not None]
        if not effects:
            raise ModelError(
                "The model has no normal effects with more columns than rows: name in effects=[...] those that shall "
                "have variances of their own."
            )
    relative = {name: relative_variance(idata, name) for name in effects}
    read = read_model(as_pymc(model), random=random, fixed=fixed, weights=weights, relative_variances=relative)
    return fit_read(
        model,
        read,
        chosen,
        began=began,
        start=None,
        fixed=fixed,
        draws=draws,
        draw_large=draw_large,
        progressbar=progressbar,
        random_seed=random_seed,
    )


def relative_variance(idata: Any, name: str) -> np.ndarray:
    """``u^2 / (1 - h)`` of the effects of one term, shape (q,); 0 where the data say nothing of an effect."""
    diagnostics = idata["diagnostics"]
    if f"{name}_leverage" not in diagnostics:
        raise ModelError(f"The result has no leverages of {name!r}: it is no random effect of the fit.")
    v, leverage = (np.ravel(diagnostics[f"{name}_{quantity}"].values) for quantity in ("v", "leverage"))
    free = 1.0 - leverage
    found = np.divide(v**2, free, out=np.zeros_like(v), where=free > 1e-13)
    if not np.any(found > 0):
        raise ModelError(f"All effects of {name!r} were estimated at zero: they have no relative variances.")
    return found


def _estimator_of(idata: Any) -> Estimator:
    """The estimator of a result, from the words that the result keeps of it."""
    from hlik.fit import ESTIMATORS

    settings = str(idata["fit"].attrs["estimator"])
    try:
        call = ast.parse(settings, mode="eval").body
        assert isinstance(call, ast.Call)
        keywords = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg is not None}
        return ESTIMATORS[str(idata["fit"].attrs["estimator_name"]).lower()](**keywords)
    except (SyntaxError, ValueError, KeyError, AssertionError, TypeError):
        raise ModelError(f"The estimator {settings} cannot be made again from the result: pass estimator=.") from None
