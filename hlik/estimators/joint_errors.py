r"""The joint uncertainty of fixed effects, dispersion parameters and random effects after a maximisation.

With A the covariance of the parameters psi that were maximised and b(psi) the mode of h in the others, H its negative
Hessian in b,

.. math:: \mathrm{cov} \begin{pmatrix} b \\ \psi \end{pmatrix} = \begin{pmatrix} H^{-1} & 0 \\ 0 & 0 \end{pmatrix}
          + \begin{pmatrix} J \\ I \end{pmatrix} A \begin{pmatrix} J \\ I \end{pmatrix}', \qquad J = db/d\psi

(Kass & Steffey 1989; Kristensen et al. 2016, section 2: the errors of TMB and glmmTMB). For p_v(h), b = v and
psi = (beta, theta), with ``dv/dbeta = -B``, ``B = C^-1 Z'WX``; for p_bv(h), b = (beta, v) and psi = theta.
``db/dtheta = H^-1 d(dh/db)/dtheta`` with the scores differenced centrally; where the random effects of a profile are
not at the mode of h, they are differenced themselves, by 2 r searches from a start next to their end.

HL(1, .) takes beta from p_v(h): the inverse of its negative Hessian P in beta, and ``-P_bb^-1 P_bt``, take the places
of the beta block of H^-1 and of dbeta/dtheta (Lee, Nelder & Pawitan 2017, chapter 6: errors of estimates from an
adjusted profile h-likelihood come from its own second derivatives).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlik.adjusted_profile import Mode, ModeError, Profile
from hlik.estimators.hl_profile import HLProfile
from hlik.linalg.bordered import Bordered

STEP = 1e-3  # standard errors of theta: modes are exact to about 1e-10 of their own, scores to rounding


@dataclass(frozen=True, eq=False)
class JointErrors:
    """What the errors of all functions of (beta, v, theta) are made of.

    Attributes
    ----------
    covariance
        Of (beta, theta), shape (p + r, p + r); NaN rows for parameters at a boundary.
    v_by_theta
        dv/dtheta with beta held, shape (q, r); zero for parameters at a boundary.
    v_se
        Prediction errors of v, shape (q,).
    """

    covariance: np.ndarray
    v_by_theta: np.ndarray
    v_se: np.ndarray


def joint_errors(profile: Profile, mode: Mode, full: Bordered, covariance: np.ndarray) -> JointErrors:
    """The joint covariance from that of the maximised parameters.

    Parameters
    ----------
    profile
        What was maximised.
    mode
        The mode of h at the maximum.
    full
        H in (beta, v), factored.
    covariance
        Of psi; NaN rows for parameters at a boundary.
    """
    model = profile.likelihood.model
    p, r = model.n_beta, model.n_theta
    theta_covariance = covariance[covariance.shape[0] - r :, covariance.shape[0] - r :]
    errors = np.sqrt(np.diag(theta_covariance))
    if profile.moves_effects:
        by_beta, by_v = _mode_slopes(profile, mode, errors)
    else:
        by_beta, by_v = _implicit_slopes(profile, mode, full, errors)
    joint = covariance
    if profile.integrate_beta:
        by_v = by_v + full.B @ by_beta
        given_theta = full.inverse_x
        if isinstance(profile, HLProfile) and profile.mean == 1:
            given_theta, by_beta = profile.beta_errors(mode)
        known = np.isfinite(np.diag(theta_covariance))
        A = np.where(np.outer(known, known), theta_covariance, 0.0)
        joint = np.zeros((p + r, p + r))
        joint[:p, :p] = given_theta + by_beta @ A @ by_beta.T
        joint[:p, p:] = by_beta @ A
        joint[p:, :p] = joint[:p, p:].T
        joint[p:, p:] = theta_covariance
        joint[p:][~known], joint[:, p:][:, ~known] = np.nan, np.nan
    return JointErrors(joint, by_v, _prediction_errors(full, joint, by_v))


def _implicit_slopes(profile: Profile, mode: Mode, full: Bordered, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_mode_slopes`, for the mode of h."""
    point, likelihood, model = mode.point, profile.likelihood, profile.likelihood.model
    by_beta, by_v = np.zeros((point.beta.size, errors.size)), np.zeros((point.v.size, errors.size))
    for k in np.flatnonzero(np.isfinite(errors) & (errors > 0)):
        move = np.zeros(errors.size)
        move[k] = STEP * errors[k]
        up, down = (likelihood.at(point.beta, point.v, point.theta + sign * move) for sign in (1.0, -1.0))
        if up is None or down is None:
            by_beta[:, k], by_v[:, k] = np.nan, np.nan
            continue
        score = (up.score - down.score) / (2 * move[k])
        r_v = model.Z.T @ score + (up.random_score - down.random_score) / (2 * move[k])
        if profile.integrate_beta:
            by_beta[:, k], by_v[:, k] = full.solve(model.X.T @ score, r_v)
        else:
            by_v[:, k] = full.factor_z.solve(r_v)
    return by_beta, by_v


def _mode_slopes(profile: Profile, mode: Mode, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d(beta, v)/dtheta of the mode, (p, r) and (q, r); beta does not move where it is not integrated."""
    point = mode.point
    by_beta, by_v = np.zeros((point.beta.size, errors.size)), np.zeros((point.v.size, errors.size))
    if not point.v.size and not profile.integrate_beta:
        return by_beta, by_v
    for k in np.flatnonzero(np.isfinite(errors) & (errors > 0)):
        move = np.zeros(errors.size)
        move[k] = STEP * errors[k]
        try:
            up, down = (_mode_at(profile, point.beta, point.theta + sign * move, point.v) for sign in (1.0, -1.0))
        except ModeError:
            by_beta[:, k], by_v[:, k] = np.nan, np.nan
            continue
        by_beta[:, k] = (up.point.beta - down.point.beta) / (2 * move[k])
        by_v[:, k] = (up.point.v - down.point.v) / (2 * move[k])
    return by_beta, by_v


def _mode_at(profile: Profile, beta: np.ndarray, theta: np.ndarray, v: np.ndarray) -> Mode:
    psi = theta if profile.integrate_beta else np.concatenate([beta, theta])
    return profile.mode(psi, beta, v)


def _prediction_errors(full: Bordered, joint: np.ndarray, by_v: np.ndarray) -> np.ndarray:
    """``sqrt diag(C^-1 + J cov(beta, theta) J')``, ``J = [-B, dv/dtheta]``; NaN rows of the covariance left out."""
    known = np.isfinite(np.diag(joint))
    J = np.hstack([-full.B, by_v])[:, known]
    moved = np.einsum("ij,ij->i", J @ joint[np.ix_(known, known)], J)
    if not known[: full.B.shape[1]].all():  # no covariance at all: that of beta given theta
        return np.sqrt(full.inverse_diagonal()[1])
    return np.sqrt(full.factor_z.inverse_diagonal() + moved)
