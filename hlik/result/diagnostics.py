"""The group `diagnostics` of a result: what is known of every observation and of every random effect."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hlik.loop import Fit
from hlik.model import Response, Variable
from hlik.result.arrays import Packer
from hlik.result.report import Reporter


def diagnostics_group(fit: Fit, packer: Packer, reporter: Reporter) -> xr.Dataset:
    """Per response and per term, ``<name>_<quantity>``; without closed forms only the random effects' v."""
    estimate, model = fit.estimate, packer.model
    found = estimate.diagnostics
    items: dict[str, tuple[Variable, np.ndarray]] = {}
    per_term = {"v": estimate.v, "v_se": estimate.v_se}
    if found is not None:
        per_response = {
            "linear_predictor": found.eta,
            "fitted": found.fitted,
            "leverage": found.leverage,
            "deviance": found.deviance,
            "dispersion": found.dispersion,
            "residual_deviance": found.residual_deviance,
            "residual_pearson": found.residual_pearson,
            "residual_studentised": found.residual_studentised,
        }
        per_term |= {
            "leverage": found.random_leverage,
            "deviance": found.random_deviance,
            "dispersion": found.random_dispersion,
        }
        for response in model.responses:
            for quantity, values in per_response.items():
                items[f"{response.name}_{quantity}"] = (response.variable, values[response.rows])
    for effect in model.random_effects:
        if effect.name in reporter.wide:
            found_of = reporter.wide[effect.name].diagnostics()
            items |= {f"{effect.name}_{quantity}": (effect.variable, values) for quantity, values in found_of.items()}
            continue
        for quantity, values in per_term.items():
            items[f"{effect.name}_{quantity}"] = (effect.variable, values[effect.index])
    for response in model.responses:
        items |= _weights(response)
    items |= _of_missing(reporter)
    return packer.dataset(items)


def _of_missing(reporter: Reporter) -> dict[str, tuple[Variable, np.ndarray]]:
    """The part of the uncertainty of missing values that is theirs: the standard deviation given all parameters."""
    model = reporter.model
    known = [part for part in model.unobserved if part.variable.name in model.forms]
    return {f"{part.variable.name}_sd": (part.variable, np.sqrt(reporter.own_variance(part))) for part in known}


def _weights(response: Response) -> dict[str, tuple[Variable, np.ndarray]]:
    """The trials of a Binomial, and prior weights where `fit` was given any."""
    items = {}
    if response.trials is not None:
        items[f"{response.name}_trials"] = (response.variable, response.trials)
    weight = response.weight if response.trials is None else response.weight / response.trials
    if weight.size == response.size and np.any(weight != 1.0):
        items[f"{response.name}_prior_weight"] = (response.variable, weight)
    return items
