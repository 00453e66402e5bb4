"""The group `diagnostics` of a result: what is known of every observation and of every random effect."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hlik.estimators.base import Estimate
from hlik.loop import Fit
from hlik.model import Response, Variable
from hlik.result.arrays import Packer
from hlik.result.report import Reporter

Items = dict[str, tuple[Variable, np.ndarray]]


def diagnostics_group(fit: Fit, packer: Packer, reporter: Reporter) -> xr.Dataset:
    """Per response and per term, ``<name>_<quantity>``; without closed forms only the random effects' v."""
    estimate, model = fit.estimate, packer.model
    items = _of_responses(estimate) | _of_effects(estimate, reporter)
    for response in model.responses:
        items |= _weights(response)
    return packer.dataset(items | _of_missing(reporter))


def _of_responses(estimate: Estimate) -> Items:
    """Fitted values, leverages and residuals of every observation."""
    found = estimate.diagnostics
    if found is None:
        return {}
    quantities = {
        "linear_predictor": found.eta,
        "fitted": found.fitted,
        "leverage": found.leverage,
        "deviance": found.deviance,
        "dispersion": found.dispersion,
        "residual_deviance": found.residual_deviance,
        "residual_pearson": found.residual_pearson,
        "residual_studentised": found.residual_studentised,
    }
    return {
        f"{response.name}_{quantity}": (response.variable, values[response.rows])
        for response in estimate.model.responses
        for quantity, values in quantities.items()
    }


def _of_effects(estimate: Estimate, reporter: Reporter) -> Items:
    """v with its errors, leverages and deviances of every random effect."""
    found = estimate.diagnostics
    quantities = {"v": estimate.v, "v_se": estimate.v_se}
    if found is not None:
        quantities |= {
            "leverage": found.random_leverage,
            "deviance": found.random_deviance,
            "dispersion": found.random_dispersion,
        }
    items: Items = {}
    for effect in estimate.model.random_effects:
        wide = reporter.wide.get(effect.name)
        own = wide.diagnostics() if wide else {name: values[effect.index] for name, values in quantities.items()}
        items |= {f"{effect.name}_{quantity}": (effect.variable, values) for quantity, values in own.items()}
    return items


def _of_missing(reporter: Reporter) -> Items:
    """The part of the uncertainty of missing values that is theirs: the standard deviation given all parameters."""
    model = reporter.model
    known = [part for part in model.unobserved if part.variable.name in model.forms]
    return {f"{part.variable.name}_sd": (part.variable, np.sqrt(reporter.own_variance(part))) for part in known}


def _weights(response: Response) -> Items:
    """The trials of a Binomial, and prior weights where `fit` was given any."""
    items: Items = {}
    if response.trials is not None:
        items[f"{response.name}_trials"] = (response.variable, response.trials)
    weight = response.weight if response.trials is None else response.weight / response.trials
    if weight.size == response.size and np.any(weight != 1.0):
        items[f"{response.name}_prior_weight"] = (response.variable, weight)
    return items
