r"""What Laplace reports: a last Newton step, the Hessian from exact gradients, likelihoods and diagnostics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hlik.adjusted_profile import LOG_2PI, Mode, ModeError, Profile
from hlik.augmented import AugmentedModel, Point, dispersions
from hlik.estimators.base import Diagnostics, Estimate
from hlik.estimators.boundary import held_parameters, less_singular
from hlik.estimators.criteria import information_criteria
from hlik.estimators.dispersion import dispersion_state
from hlik.estimators.eql_finish import diagnostics
from hlik.estimators.joint_errors import joint_errors
from hlik.estimators.laplace_objective import active_parameters, differenced_hessian
from hlik.hlikelihood import HLikelihood
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel
from hlik.penalty import unpenalised
from hlik.terms import FlatTerm, ResponseTerm

if TYPE_CHECKING:
    from hlik.estimators.maximum_state import MaximumState


def finish_laplace(state: MaximumState) -> Estimate:
    """The estimate at a state of the optimisation, converged or not."""
    objective = state.objective
    model = objective.profile.likelihood.model
    active = active_parameters(objective, state.psi)
    active[[k for k, _ in state.endless]] = False
    held = held_parameters(objective.profile.likelihood, state.psi[state.psi.size - model.n_theta :])
    if held.any():
        active[active.size - held.size :] &= ~held
        state = replace(state, hessian=_hessian_beside(state, active, held))
    psi, hessian = _polished(state, active)
    mode = objective.mode(psi)
    covariance = _inverse(hessian, active)
    full = full_information(objective.profile.likelihood, mode)
    p = model.n_beta
    errors = joint_errors(objective.profile, mode, full, covariance)
    joint = errors.covariance
    return Estimate(
        model=model,
        beta=mode.point.beta,
        v=mode.point.v,
        theta=mode.point.theta,
        beta_covariance=joint[:p, :p],
        theta_covariance=joint[p:, p:],
        v_se=errors.v_se,
        covariance=joint,
        v_by_theta=errors.v_by_theta,
        information=full,
        likelihood=state.settings.likelihood_name,
        scalars=scalars_at(objective.profile, mode, full),
        diagnostics=diagnostics_at(unpenalised(model), mode),
    )


def _hessian_beside(state: MaximumState, active: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The Hessian where a singular covariance matrix is less so: next to the boundary gradients are all rounding."""
    objective, psi = state.objective, state.psi.copy()
    theta = psi[psi.size - held.size :]
    theta[:] = less_singular(objective.profile.likelihood.model, theta.copy(), held)
    try:
        return differenced_hessian(objective, psi, state.covariance, active)
    except ModeError:
        return differenced_hessian(objective, state.psi, state.covariance, active)


def _polished(state: MaximumState, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One Newton step with the differenced Hessian, kept where it does not lower the value."""
    objective, psi = state.objective, state.psi
    hessian = state.hessian
    if hessian is None:
        hessian = differenced_hessian(objective, psi, state.covariance, active)
    if not active.any():
        return psi, hessian
    index = np.ix_(active, active)
    step = np.zeros_like(psi)
    try:
        step[active] = np.linalg.solve(hessian[index], objective.gradient(psi)[active])
        better = objective.value(psi + step) >= objective.value(psi) - 1e-9
    except (np.linalg.LinAlgError, ModeError):
        better = False
    return (psi + step if better else psi), hessian


def _inverse(hessian: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Inverse of the active block; NaN elsewhere and where it is not positive definite."""
    covariance = np.full(hessian.shape, np.nan)
    index = np.ix_(active, active)
    if active.any():
        try:
            np.linalg.cholesky(hessian[index])
            covariance[index] = np.linalg.inv(hessian[index])
        except np.linalg.LinAlgError:
            pass
    return covariance


def full_information(likelihood: HLikelihood, mode: Mode) -> Bordered:
    """H in (beta, v) with the observed weights."""
    return likelihood.system.factor(mode.point.weight, mode.point.random_weight)


def scalars_at(profile: Profile, mode: Mode, full: Bordered) -> dict[str, float]:
    """Log-likelihoods and criteria; densities of parameters count in ``log_likelihood`` alone."""
    likelihood, model, point = profile.likelihood, profile.likelihood.model, mode.point
    penalty, found = model.penalty, {"log_likelihood": mode.value}
    unpenalised_value = mode.value
    if penalty is not None:
        model = unpenalised(model)
        likelihood = HLikelihood(model)
        log_prior = penalty.value(point.eta, point.theta)
        found_point = likelihood.at(point.beta, point.v, point.theta)
        assert found_point is not None
        point = found_point
        full = full_information(likelihood, Mode(point, full, mode.value))
        unpenalised_value = mode.value - log_prior
        if profile.integrate_beta:  # the prior of beta is in the integral
            unpenalised_value = Profile(likelihood, True).mode(point.theta, point.beta, point.v).value
        found |= {"unpenalised_log_likelihood": unpenalised_value, "log_prior": log_prior}
    p, q = model.n_beta, model.n_random
    h = point.h
    p_v = h - 0.5 * (full.logdet_z() - q * LOG_2PI)
    p_bv = h - 0.5 * (full.logdet() - (p + q) * LOG_2PI)
    # restricted likelihoods do not compare fixed effects
    marginal = p_v if profile.integrate_beta else unpenalised_value
    given, own = _given_effects(likelihood)
    conditional = sum(term.value(point.eta, point.theta) for term in given)
    effective = float((point.weight * full.row_quadratics())[own].sum())
    observations = sum(response.size for response in model.responses)
    return {
        "conditional_log_likelihood": conditional,
        "h": h,
        "p_v_h": p_v,
        "p_bv_h": p_bv,
        **found,
        **information_criteria(conditional, marginal, effective, p + model.n_theta, observations),
    }


def diagnostics_at(model: HierarchicalModel, mode: Mode, v: np.ndarray | None = None) -> Diagnostics | None:
    """The augmented model's residuals and leverages at the estimate, where all families are known.

    Estimators that predict the random effects by conditional means pass these as v; else it is the mode.
    """
    normal = [e.precision is not None and e.degrees is None for e in model.random_effects]
    known = [e.family is not None or joint for e, joint in zip(model.random_effects, normal, strict=True)]
    if any(r.family is None for r in model.responses) or not all(known):
        return None
    spread = dispersions(model, mode.point.theta)
    augmented = AugmentedModel(model)
    point: Point | None = augmented.at(mode.point.beta, mode.point.v if v is None else v, spread)
    if point is None:
        return None
    found = dispersion_state(model, mode.point.theta, spread, point, augmented.factor(point))
    return diagnostics(model, point, spread, found)


def _given_effects(likelihood: HLikelihood) -> tuple[list[ResponseTerm], np.ndarray]:
    """Terms of h that are no densities of random effects, and their rows of the design, bool (M,)."""
    first = len(likelihood.model.responses)
    densities = likelihood.terms[first : first + sum(isinstance(t, FlatTerm) for t in likelihood.random_terms)]
    own, start = np.ones(likelihood.Z.shape[0], bool), likelihood.n_rows
    for term in likelihood.terms:
        pairs = term.n * (term.n_predictors * (term.n_predictors - 1) // 2)
        if term in densities:
            own[term.rows], own[start : start + pairs] = False, False
        start += pairs
    return [term for term in likelihood.terms if term not in densities], own
