"""Where the Laplace optimisation begins: EQL's estimate where EQL applies, else plain starting values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.errors import ModelError
from hlik.estimators.base import RUNNING, Estimate
from hlik.estimators.eql import EQL
from hlik.estimators.eql_finish import theta_covariance
from hlik.estimators.eql_iteration import EQLState
from hlik.estimators.starts import check_start, start_beta, start_theta, unconstrained
from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel
from hlik.penalty import unpenalised

EQL_TOLERANCE = 0.5  # standard errors: the start need not be better than the difference between EQL and Laplace
EQL_BIAS = 0.25  # of the log of a variance: of the order of EQL's error in binary data
EQL_REACH = 5.0  # standard errors: further, the curvature at EQL's estimate says little of that at Laplace's


@dataclass(frozen=True, eq=False)
class Start:
    """Starting values, and a covariance matrix of psi that sets the scale of the first step.

    `reach` is how far the first step may go, in standard errors by that matrix.
    """

    psi: np.ndarray
    beta: np.ndarray
    v: np.ndarray
    covariance: np.ndarray
    reach: float = 1.0


def start_psi(
    likelihood: HLikelihood, integrate_beta: bool, start: dict[str, np.ndarray], rng: np.random.Generator
) -> Start:
    """Starting values for p_v(h) (psi = (beta, theta)) or p_bv(h) (psi = theta)."""
    model = likelihood.model
    check_start(model, start)
    settings = EQL(max_iterations=15)
    plain = unpenalised(model)
    if settings.obstacles(plain):
        return plain_start(likelihood, integrate_beta, start)
    try:
        # without their prior densities parameters may be infinite: EQL then divides by zero
        with np.errstate(divide="warn" if plain is model else "raise"):
            estimate = _by_eql(settings, plain, start, rng)
    except (ModelError, np.linalg.LinAlgError, FloatingPointError):
        return plain_start(likelihood, integrate_beta, start)
    theta, beta = estimate.theta.copy(), estimate.beta.copy()
    for parameter in model.dispersion_parameters:  # values the user gave are not replaced by EQL's
        if parameter.name in start:
            theta[parameter.index] = start_theta(plain, start, beta, estimate.v)[parameter.index]
    if integrate_beta:
        return Start(theta, beta, estimate.v, estimate.theta_covariance, EQL_REACH)
    p = beta.size
    covariance = np.zeros((p + theta.size,) * 2)
    covariance[:p, :p], covariance[p:, p:] = estimate.beta_covariance, estimate.theta_covariance
    return Start(np.concatenate([beta, theta]), beta, estimate.v, covariance, EQL_REACH)


def _by_eql(
    settings: EQL, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator
) -> Estimate | _Moved:
    state = settings.prepare(model, start, rng)
    for _ in range(settings.max_iterations):
        state, _row = settings.step(state)
        if state.decrement < EQL_TOLERANCE or settings.status(state) != RUNNING:
            break
        if isinstance(state, EQLState) and _moves_little(state):
            return _moved(state)
    return settings.finish(state)


def _moves_little(state: EQLState) -> bool:
    """Whether EQL's last step changed every variance by less than it is biased.

    Of many data that is before the step is short in standard errors. Steps towards a singular covariance matrix go on.
    """
    if state.augmented.model.prior.matrix is not None or state.solved is None:
        return False
    step = state.theta - state.solved.theta
    change = max((float(np.max(np.abs(c.log_slope @ step))) for c in state.solved.found.components), default=0.0)
    return change < EQL_BIAS


@dataclass(frozen=True, eq=False)
class _Moved:
    """What `start_psi` needs of an `Estimate`."""

    beta: np.ndarray
    v: np.ndarray
    theta: np.ndarray
    beta_covariance: np.ndarray
    theta_covariance: np.ndarray


def _moved(state: EQLState) -> _Moved:
    """The point that the last step went to, with the covariances of the one it left."""
    solved = state.solved
    assert solved is not None
    spread = theta_covariance(solved.found, solved.active, solved.proposal.unknown)
    return _Moved(state.point.beta, state.point.v, state.theta, solved.mean.expected.inverse_x, spread)


def plain_start(likelihood: HLikelihood, integrate_beta: bool, start: dict[str, np.ndarray]) -> Start:
    """theta as given or zero (scales of one), and beta at the joint mode of h for it."""
    model = likelihood.model
    v, known = likelihood.start_v(), not model.obstacles
    beta = start_beta(model, start, v) if known else _given_beta(model, start)
    theta = start_theta(model, start, beta, v) if known else _given_theta(model, start)
    spread = 0.1 * np.eye(model.n_theta)
    try:
        mode = Profile(likelihood, integrate_beta=True).mode(theta, beta, v)
        beta, v, beta_covariance = mode.point.beta, mode.point.v, mode.bordered.inverse_x
    except (ModeError, np.linalg.LinAlgError):
        beta_covariance = 0.1 * np.eye(model.n_beta)
    if integrate_beta:
        return Start(theta, beta, v, spread)
    covariance = np.zeros((beta.size + theta.size,) * 2)
    covariance[: beta.size, : beta.size], covariance[beta.size :, beta.size :] = beta_covariance, spread
    return Start(np.concatenate([beta, theta]), beta, v, covariance)


def _given_beta(model: HierarchicalModel, start: dict[str, np.ndarray]) -> np.ndarray:
    beta = np.zeros(model.n_beta)
    for parameter in model.fixed_effects:
        if parameter.name in start:
            beta[parameter.index] = np.ravel(start[parameter.name])
    return beta


def _given_theta(model: HierarchicalModel, start: dict[str, np.ndarray]) -> np.ndarray:
    theta = np.zeros(model.n_theta)
    for parameter in model.dispersion_parameters:
        if parameter.name in start:
            theta[parameter.index] = unconstrained(parameter, start[parameter.name], theta)
    return theta
