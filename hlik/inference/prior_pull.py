"""How far the priors pull the maximum of the likelihood: by a penalised fit beside a plain one, or to first order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np

from hlik.graph.prior_gradient import prior_gradient
from hlik.graph.read import as_pymc
from hlik.inference.compare_marginals import is_likelihood, is_penalised
from hlik.inference.tables import labels, model_of


def penalised_pulls(fits: Mapping[str, az.InferenceData]) -> dict[str, float]:
    """Penalised less unpenalised estimate, in standard errors of the latter, by label, on the unconstrained scale."""
    penalised = next((found for found in fits.values() if is_penalised(found)), None)
    plain = [found for found in fits.values() if is_likelihood(found) and not is_penalised(found)]
    if penalised is None or not plain:
        return {}
    wanted = penalised["fit"].attrs["estimator"]
    free = next((found for found in plain if found["fit"].attrs["estimator"] == wanted), plain[0])
    found: dict[str, float] = {}
    for parameter in model_of(free)["parameters"]:
        value_name, own = parameter["value_name"], labels(free["estimates"][parameter["name"]])
        if value_name not in penalised["unconstrained_estimates"]:
            continue
        ends = [np.ravel(idata["unconstrained_estimates"][value_name].values) for idata in (penalised, free)]
        errors = np.ravel(free["unconstrained_standard_errors"][value_name].values)
        if len(own) == ends[0].size == ends[1].size:
            with np.errstate(all="ignore"):
                found |= dict(zip(own, ((ends[0] - ends[1]) / errors).tolist(), strict=True))
    return found


def first_order_pulls(model: Any, fits: Mapping[str, az.InferenceData]) -> dict[str, float]:
    """``cov grad log p(psi)`` in standard errors, by label, at the first likelihood fit."""
    idata = next(found for found in fits.values() if is_likelihood(found))
    pymc_model, described = as_pymc(model), model_of(idata)["parameters"]
    free = {rv.name for rv in pymc_model.free_RVs}
    ordered = sorted(described, key=lambda p: p["role"] != "fixed effect")  # as in the covariance matrix
    values = {p["name"]: idata["unconstrained_estimates"][p["value_name"]].values for p in ordered if p["name"] in free}
    gradient = prior_gradient(pymc_model, values)
    covariance = idata["fit"]["covariance_matrix"].values
    known = np.isfinite(np.diag(covariance))
    flat = np.concatenate(
        [np.ravel(gradient.get(p["name"], np.zeros(idata["estimates"][p["name"]].shape))) for p in ordered]
    )
    shift = np.full(flat.size, np.nan)
    shift[known] = covariance[np.ix_(known, known)] @ flat[known] / np.sqrt(np.diag(covariance)[known])
    found: dict[str, float] = {}
    start = 0
    for p in ordered:
        size = idata["unconstrained_estimates"][p["value_name"]].size
        own = labels(idata["estimates"][p["name"]])
        if len(own) == size:
            found |= dict(zip(own, shift[start : start + size].tolist(), strict=True))
        start += size
    return found
