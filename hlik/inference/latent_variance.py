r"""The variance of a response around its mean on the link scale, for families that are not hlik's own.

With ``V(m)`` the variance of an observation of mean m, which the model's graph gives, and m the mean response, averaged
over the random effects as if they were normal, and over the observations:

* identity link: V;
* log link: ``trigamma(1 / CV^2)``, ``CV^2 = V(m) / m^2``: the variance of the logarithm of a gamma variable with this
  coefficient of variation; for the negative binomial ``trigamma(1 / (1/m + 1/alpha))``;
* other links: ``V(m) g'(m)^2``, the delta method (Nakagawa, Johnson & Schielzeth 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy import special

from hlik.graph.mean_variance import MeanAndVariance, mean_and_variance
from hlik.inference.averages import average
from hlik.inference.variance_components import Part, slopes
from hlik.model import HierarchicalModel, Response


def latent_variance(
    pymc_model: Any,
    model: HierarchicalModel,
    response: Response,
    beta: np.ndarray,
    theta: np.ndarray,
    fixed: dict[str, Any],
) -> tuple[float, np.ndarray] | None:
    """Variance and its gradient by (beta, theta), shape (p + r,); None where mean and variance have no formula here."""
    rows = response.rows
    parts = [Part(effect, sp.csr_array(model.Z[rows, effect.index])) for effect in model.random_effects]
    if rows.stop - rows.start != response.size or model.theta_design is not None:
        return None

    def moments(theta: np.ndarray) -> MeanAndVariance | None:
        return mean_and_variance(pymc_model, response.name, fixed | _natural(model, theta))

    def value(at: np.ndarray) -> float:
        beta, theta = at[: model.n_beta], at[model.n_beta :]
        found = moments(theta)
        if found is None:
            return np.nan
        eta = model.offset[rows] + model.X[rows] @ beta
        spread = sum((part.rows(theta) for part in parts), np.zeros(eta.size))
        means = average(found.link.inverse, eta, spread, [])
        m = float(np.mean(means))
        variance = float(np.mean(found.variance(np.full(eta.size, m))))
        if found.link.name == "identity":
            return variance
        if found.link.name == "log":
            return float(special.polygamma(1, m**2 / variance))
        slope = found.link.inverse_derivatives(found.link.link(np.array([m])), 1)[1]
        return variance / float(slope[0]) ** 2

    at = np.concatenate([beta, theta])
    found = moments(theta)
    if found is None or not found.agrees(model.offset[rows] + model.X[rows] @ beta, _named(model, beta)):
        return None
    central = value(at)
    return (central, slopes(value, at)) if np.isfinite(central) else None


def _natural(model: HierarchicalModel, theta: np.ndarray) -> dict[str, np.ndarray]:
    """Dispersion parameters on their natural scale."""
    found = {}
    for parameter in model.dispersion_parameters:
        assert parameter.natural is not None
        shape = parameter.variable.shape
        found[parameter.name] = np.broadcast_to(parameter.natural.value(theta), (int(np.prod(shape)),)).reshape(shape)
    return found


def _named(model: HierarchicalModel, beta: np.ndarray) -> dict[str, np.ndarray]:
    """Fixed effects by name, and zero random effects."""
    found = {parameter.name: beta[parameter.index] for parameter in model.fixed_effects}
    return found | {effect.name: np.zeros(effect.levels) for effect in model.random_effects}
