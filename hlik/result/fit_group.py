"""The group `fit` of a result: covariances, variance components, likelihoods, and how the fit was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.linalg import block_diag

from hlik.block_effects import InverseMap
from hlik.estimators.base import Estimate
from hlik.graph.describe import labels_of
from hlik.inference.variance_components import variance_components
from hlik.loop import Fit
from hlik.model import HierarchicalModel
from hlik.result.arrays import Packer, attributes
from hlik.result.description import describe_model, settings_of


def fit_group(fit: Fit, packer: Packer, seconds_reading: float, fixed: Mapping[str, Any]) -> xr.Dataset:
    """The group, its matrices by the labels of the parameters on the unconstrained scale."""
    estimate, model = fit.estimate, packer.model
    labels, mean = _parameters(estimate)
    components, variance, gradient = variance_components(model, estimate.beta, estimate.theta)
    variables = {
        "mean_vector": ("parameter", mean),
        "covariance_matrix": (("parameter", "parameter_2"), _covariance(estimate)),
        "variance_components": (("response", "component"), variance),
        "variance_gradient": (("response", "component", "parameter"), gradient),
        **_covariances(model, estimate.theta),
        **{name: ((), value) for name, value in estimate.scalars.items()},
    }
    coords = {
        "parameter": labels,
        "parameter_2": labels,
        "response": [response.name for response in model.responses],
        "component": components,
    }
    return xr.Dataset(variables, coords=coords, attrs=_how_it_was_made(fit, seconds_reading, fixed))


def _parameters(estimate: Estimate) -> tuple[list[str], np.ndarray]:
    """Labels and values of all parameters on the unconstrained scale, fixed effects first."""
    model = estimate.model
    labels, mean = [], [np.zeros(0)]
    for parameter in (*model.fixed_effects, *model.dispersion_parameters):
        source = estimate.beta if parameter.natural is None else estimate.theta
        labels += labels_of(model.coords, parameter.variable, parameter.variable.value_name)
        mean.append(source[parameter.index])
    return labels, np.concatenate(mean)


def _covariance(estimate: Estimate) -> np.ndarray:
    """Of all parameters together; of fixed effects and dispersions apart where the estimator takes them so."""
    if estimate.covariance is not None:
        return estimate.covariance
    return block_diag(estimate.beta_covariance, estimate.theta_covariance)


def _how_it_was_made(fit: Fit, seconds_reading: float, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes."""
    estimate, model = fit.estimate, fit.estimate.model
    return {
        **attributes(),
        "status": fit.status,
        "converged": int(fit.converged),
        "estimator": settings_of(fit.estimator),
        "fixed": json.dumps({name: np.asarray(value).tolist() for name, value in fixed.items()}),
        "estimator_name": fit.estimator.name,
        "likelihood": estimate.likelihood,
        "priors": "ignore" if model.penalty is None else "penalise",
        "theta_in_effects": int(estimate.v_by_theta is not None),
        "fixed_design": _fingerprint(model.X),
        "n_iterations": len(fit.history),
        "seconds": fit.seconds,
        "seconds_reading": seconds_reading,
        "model": json.dumps(describe_model(model)),
    }


def _fingerprint(X: np.ndarray) -> str:
    """A digest of the fixed-effects design: restricted likelihoods compare only where it is the same."""
    return hashlib.blake2b(np.ascontiguousarray(X).tobytes(), digest_size=16).hexdigest()


def _covariances(model: HierarchicalModel, theta: np.ndarray) -> dict[str, Any]:
    """Covariance matrices of correlated effects in blocks, by term."""
    found = {}
    for effect in model.random_effects:
        coefficients = None if effect.precision is None else effect.precision.coefficients
        if isinstance(coefficients, InverseMap):
            matrix = coefficients.covariance.value(theta).reshape(coefficients.order, coefficients.order)
            found[f"{effect.name}_covariance"] = ((f"{effect.name}_row", f"{effect.name}_column"), matrix)
    return found
