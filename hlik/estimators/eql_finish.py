r"""What EQL reports at its fixed point: standard errors, h-likelihoods, criteria, residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hlik.augmented import Dispersions, Point, random_deviances, random_log_density
from hlik.estimators.base import Diagnostics, Estimate
from hlik.estimators.boundary import held_by_singular
from hlik.estimators.criteria import information_criteria
from hlik.estimators.dispersion import DispersionState
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel

if TYPE_CHECKING:
    from hlik.estimators.eql_iteration import EQLState

UNKNOWN_SHARE = 1e-3  # part of a direction that nothing determines, above which a parameter belongs to it
LOG_2PI = float(np.log(2 * np.pi))


def finish_eql(state: EQLState) -> Estimate:
    """The estimate at the last solved point of an EQL iteration."""
    solved = state.solved
    assert solved is not None
    model, point, bordered = state.augmented.model, solved.mean.point, solved.mean.expected
    observed = bordered if state.augmented.is_canonical else state.augmented.factor_observed(point, solved.spread)
    return Estimate(
        model=model,
        beta=point.beta,
        v=point.v,
        theta=solved.theta,
        beta_covariance=bordered.inverse_x,
        theta_covariance=theta_covariance(
            solved.found, solved.active & ~held_by_singular(model, solved.theta), solved.proposal.unknown
        ),
        v_se=np.sqrt(bordered.inverse_diagonal()[1]),
        information=bordered,
        likelihood="p_bv_h",
        scalars=scalars(model, point, solved.spread, observed, solved.found),
        diagnostics=diagnostics(model, point, solved.spread, solved.found),
    )


def theta_covariance(found: DispersionState, active: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Inverse information of the gamma GLMs on theta; NaN for parameters at a boundary or not identified.

    As in hglm (Lee & Nelder 2001, section 3.3) it takes the leverages as known, so it is smaller than the inverse
    REML information where leverages are large.
    """
    covariance = np.full((active.size, active.size), np.nan)
    known = active & ~np.any(np.abs(unknown) > UNKNOWN_SHARE, axis=1)
    information = found.gamma_information[np.ix_(active, active)]
    scale = np.sqrt(np.maximum(np.diag(information), 1e-300))
    inverse = np.linalg.pinv(information / np.outer(scale, scale), hermitian=True) / np.outer(scale, scale)
    covariance[np.ix_(active, active)] = inverse
    covariance[~known, :], covariance[:, ~known] = np.nan, np.nan
    return covariance


def scalars(
    model: HierarchicalModel, point: Point, spread: Dispersions, observed: Bordered | None, found: DispersionState
) -> dict[str, float]:
    """h, p_v(h), p_bv(h), cAIC, AIC, BIC and degrees of freedom.

    The determinants use the observed weights, so that p_v(h) is the Laplace approximation for every link (hglm uses
    the expected ones: the same for canonical links); NaN where `observed` is None, h having no maximum there.
    """
    conditional = 0.0
    for response, phi in zip(model.responses, spread.phi, strict=True):
        assert response.family is not None
        conditional += float(
            np.sum(response.family.log_density(response.y, point.mu[response.rows], phi, response.weight))
        )
    h = conditional + random_log_density(model, point.v, spread)
    p, q = model.n_beta, model.n_random
    p_v = np.nan if observed is None else h - 0.5 * (observed.logdet_z() - q * LOG_2PI)
    p_bv = np.nan if observed is None else h - 0.5 * (observed.logdet() - (p + q) * LOG_2PI)
    effective = float(found.leverage.sum())
    return {
        "conditional_log_likelihood": conditional,
        "h": h,
        "p_v_h": p_v,
        "p_bv_h": p_bv,
        "log_likelihood": p_bv,
        **information_criteria(conditional, p_v, effective, p + model.n_theta, model.n_rows),
    }


def diagnostics(model: HierarchicalModel, point: Point, spread: Dispersions, found: DispersionState) -> Diagnostics:
    """Fitted values, leverages, deviance components and residuals, a row an observation or a random effect."""
    n = model.n_rows
    deviance, pearson, sign, phi_all = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for response, phi in zip(model.responses, spread.phi, strict=True):
        family, rows = response.family, response.rows
        assert family is not None
        mu = point.mu[rows]
        deviance[rows] = response.weight * family.unit_deviance(response.y, mu)
        pearson[rows] = (response.y - mu) * np.sqrt(response.weight / family.variance(mu))
        sign[rows] = np.sign(response.y - mu)
        phi_all[rows] = phi
    residual = sign * np.sqrt(deviance)
    free = np.sqrt(phi_all * np.maximum(1.0 - found.leverage, 1e-12))
    lam_all = np.empty(model.n_random)
    for effect, lam in zip(model.random_effects, spread.lam, strict=True):
        lam_all[effect.index] = lam
    return Diagnostics(
        eta=point.eta,
        fitted=point.mu,
        leverage=found.leverage,
        deviance=deviance,
        dispersion=phi_all,
        residual_deviance=residual,
        residual_pearson=pearson,
        residual_studentised=residual / free,
        random_leverage=found.random_leverage,
        random_deviance=random_deviances(model, point.v, spread),
        random_dispersion=lam_all,
    )
