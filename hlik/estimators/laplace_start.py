"""Where the Laplace optimisation begins: EQL's estimate where EQL applies, else plain starting values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlik.errors import ModelError
from hlik.estimators.base import RUNNING
from hlik.estimators.eql import EQL
from hlik.estimators.starts import check_start, start_beta, start_theta
from hlik.hlikelihood import HLikelihood

EQL_TOLERANCE = 1e-2  # standard errors: the start need not be better than the difference between EQL and Laplace


@dataclass(frozen=True, eq=False)
class Start:
    """Starting values, and a covariance matrix of psi that sets the scale of the first step."""

    psi: np.ndarray
    beta: np.ndarray
    v: np.ndarray
    covariance: np.ndarray


def start_psi(
    likelihood: HLikelihood, integrate_beta: bool, start: dict[str, np.ndarray], rng: np.random.Generator
) -> Start:
    """Starting values for p_v(h) (psi = (beta, theta)) or p_bv(h) (psi = theta)."""
    model = likelihood.model
    check_start(model, start)
    settings = EQL(tol=EQL_TOLERANCE, max_iterations=15)
    if settings.obstacles(model):
        return _plain(likelihood, integrate_beta, start)
    try:
        state = settings.prepare(model, start, rng)
        for _ in range(settings.max_iterations):
            state, _row = settings.step(state)
            if settings.status(state) != RUNNING:
                break
        estimate = settings.finish(state)
    except (ModelError, np.linalg.LinAlgError, FloatingPointError):
        return _plain(likelihood, integrate_beta, start)
    theta, beta = estimate.theta.copy(), estimate.beta.copy()
    for parameter in model.dispersion_parameters:  # values the user gave are not replaced by EQL's
        if parameter.name in start:
            theta[parameter.index] = start_theta(model, start, beta, estimate.v)[parameter.index]
    if integrate_beta:
        return Start(theta, beta, estimate.v, estimate.theta_covariance)
    p = beta.size
    covariance = np.zeros((p + theta.size,) * 2)
    covariance[:p, :p], covariance[p:, p:] = estimate.beta_covariance, estimate.theta_covariance
    return Start(np.concatenate([beta, theta]), beta, estimate.v, covariance)


def _plain(likelihood: HLikelihood, integrate_beta: bool, start: dict[str, np.ndarray]) -> Start:
    model = likelihood.model
    v = likelihood.start_v()
    known = all(response.family is not None for response in model.responses)
    beta = start_beta(model, start, v) if known else np.zeros(model.n_beta)
    theta = start_theta(model, start, beta, v) if known else np.zeros(model.n_theta)
    psi = theta if integrate_beta else np.concatenate([beta, theta])
    return Start(psi, beta, v, 0.1 * np.eye(psi.size))
