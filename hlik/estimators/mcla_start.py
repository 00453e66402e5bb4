"""Where Monte Carlo likelihood begins: at the estimate of Laplace, of EQL, or at plain starting values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.errors import ModelError
from hlik.estimators.base import RUNNING, Estimate
from hlik.estimators.eql import EQL
from hlik.estimators.laplace import Laplace
from hlik.estimators.laplace_objective import Objective, active_parameters
from hlik.estimators.laplace_start import plain_start, start_psi
from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel

INITIAL = ("laplace", "eql", "none")


@dataclass(frozen=True, eq=False)
class Begin:
    """Starting values of psi = (beta, theta) and v, and a covariance matrix that sets the scale of the search."""

    psi: np.ndarray
    v: np.ndarray
    covariance: np.ndarray
    zero: np.ndarray | None = None  # psi with Laplace's values for variances at zero, NaN elsewhere


def begin(likelihood: HLikelihood, initial: str, start: dict[str, np.ndarray], rng: np.random.Generator) -> Begin:
    """Starting values by the method that `initial` names; the user's `start` values begin that method.

    A variance that the method puts at zero is set back to a scale of one: the approximation may be wrong about it.
    """
    model = likelihood.model
    if initial == "none":
        found = plain_start(likelihood, False, start)
        return Begin(found.psi, found.v, found.covariance)
    if initial == "eql" or not model.n_random:
        found = start_psi(likelihood, False, start, rng)
        return Begin(found.psi, found.v, found.covariance)
    try:
        estimate = _estimate(Laplace(), model, start, rng)
    except (ModelError, ModeError, np.linalg.LinAlgError):
        found = start_psi(likelihood, False, start, rng)
        return Begin(found.psi, found.v, found.covariance)
    psi = np.concatenate([estimate.beta, estimate.theta])
    assert estimate.covariance is not None
    covariance, v = estimate.covariance.copy(), estimate.v
    active = active_parameters(Objective(Profile(likelihood), estimate.beta, v), psi)
    zero = None
    if not active.all():
        zero = np.where(active, np.nan, psi)
        psi = np.where(active, psi, 0.0)
        v = likelihood.start_v()
    lost = ~np.isfinite(np.diag(covariance))
    covariance[lost], covariance[:, lost] = 0.0, 0.0
    covariance[lost, lost] = 1.0
    return Begin(psi, v, covariance, zero)


def eql_mode(
    model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """psi and v of penalised quasi-likelihood, which is EQL's point."""
    estimate = _estimate(EQL(), model, start, rng)
    return np.concatenate([estimate.beta, estimate.theta]), estimate.v


def _estimate(
    settings: EQL | Laplace, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator
) -> Estimate:
    state = settings.prepare(model, start, rng)
    for _ in range(settings.max_iterations):
        state, _row = settings.step(state)
        if settings.status(state) != RUNNING:
            break
    return settings.finish(state)
