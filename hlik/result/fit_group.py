"""The group `fit` of a result: covariances, variance components, likelihoods, and how the fit was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from hlik.block_effects import InverseMap
from hlik.graph.describe import labels_of
from hlik.inference.variance_components import variance_components
from hlik.loop import Fit
from hlik.model import HierarchicalModel
from hlik.result.arrays import Packer, attributes
from hlik.result.description import describe_model, settings_of


def fit_group(fit: Fit, packer: Packer, seconds_reading: float, fixed: Mapping[str, Any]) -> xr.Dataset:
    """The group, its matrices by the labels of the parameters on the unconstrained scale."""
    estimate, model = fit.estimate, packer.model
    labels, mean = [], []
    for parameter in (*model.fixed_effects, *model.dispersion_parameters):
        source = estimate.beta if parameter.natural is None else estimate.theta
        labels += labels_of(model.coords, parameter.variable, parameter.variable.value_name)
        mean.append(source[parameter.index])
    p = model.n_beta
    covariance = np.zeros((p + model.n_theta,) * 2)
    covariance[:p, :p], covariance[p:, p:] = estimate.beta_covariance, estimate.theta_covariance
    if estimate.covariance is not None:
        covariance = estimate.covariance
    components, variance, gradient = variance_components(model, estimate.beta, estimate.theta)
    data = xr.Dataset(
        {
            "mean_vector": ("parameter", np.concatenate(mean) if mean else np.zeros(0)),
            "covariance_matrix": (("parameter", "parameter_2"), covariance),
            "variance_components": (("response", "component"), variance),
            "variance_gradient": (("response", "component", "parameter"), gradient),
            **_covariances(model, estimate.theta),
            **{name: ((), value) for name, value in estimate.scalars.items()},
        },
        coords={
            "parameter": labels,
            "parameter_2": labels,
            "response": [response.name for response in model.responses],
            "component": components,
        },
    )
    data.attrs = {
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
    return data


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
