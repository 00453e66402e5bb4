r"""What EQL reports at its fixed point: standard errors, h-likelihoods, criteria, residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hlik.augmented import Dispersions, Point
from hlik.estimators.base import Diagnostics, Estimate
from hlik.estimators.dispersion import DispersionState
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel

if TYPE_CHECKING:
    from hlik.estimators.eql import EQL, EQLState

LOG_2PI = float(np.log(2 * np.pi))


def finish_eql(state: EQLState, settings: EQL) -> Estimate:
    """The estimate at the last solved point of an EQL iteration."""
    solved = state.solved
    assert solved is not None
    model, point, bordered = state.augmented.model, solved.point, solved.bordered
    return Estimate(
        model=model,
        beta=point.beta,
        v=point.v,
        theta=solved.theta,
        beta_covariance=bordered.inverse_x,
        theta_covariance=theta_covariance(solved.found, state.active),
        v_se=np.sqrt(bordered.inverse_diagonal()[1]),
        information=bordered,
        likelihood="p_bv_h",
        scalars=scalars(model, point, solved.spread, bordered, solved.found),
        diagnostics=diagnostics(model, point, solved.spread, solved.found),
    )


def theta_covariance(found: DispersionState, active: np.ndarray) -> np.ndarray:
    """Inverse information of the gamma GLMs on theta; NaN for parameters at a boundary.

    As in hglm (Lee & Nelder 2001, section 3.3) it takes the leverages as known, so it is smaller than the inverse
    REML information where leverages are large.
    """
    covariance = np.full((active.size, active.size), np.nan)
    index = np.ix_(active, active)
    information = found.gamma_information[index]
    if information.size:
        try:
            covariance[index] = np.linalg.inv(information)
        except np.linalg.LinAlgError:
            pass  # parameters that no dispersion depends on: no standard error
    return covariance


def scalars(
    model: HierarchicalModel, point: Point, spread: Dispersions, bordered: Bordered, found: DispersionState
) -> dict[str, float]:
    """h, p_v(h), p_bv(h), cAIC, AIC, BIC and degrees of freedom.

    The determinants use the IWLS (expected) weights, as hglm's; for canonical links these are the observed ones.
    """
    conditional = random = 0.0
    for r, phi in zip(model.responses, spread.phi, strict=True):
        conditional += float(np.sum(r.family.log_density(r.y, point.mu[r.rows], phi, r.weight)))  # type: ignore[union-attr]
    for e, lam in zip(model.random_effects, spread.lam, strict=True):
        random += float(np.sum(e.family.log_density(point.v[e.index], lam)))  # type: ignore[union-attr]
    h = conditional + random
    p, q = model.n_beta, model.n_random
    p_v = h - 0.5 * (bordered.logdet_z() - q * LOG_2PI)
    p_bv = h - 0.5 * (bordered.logdet() - (p + q) * LOG_2PI)
    effective = float(found.leverage.sum())
    count = p + model.n_theta
    return {
        "conditional_log_likelihood": conditional,
        "h": h,
        "p_v_h": p_v,
        "p_bv_h": p_bv,
        "log_likelihood": p_bv,
        "caic": -2 * conditional + 2 * effective,
        "aic": -2 * p_v + 2 * count,
        "bic": -2 * p_v + count * float(np.log(model.n_rows)),
        "df_effective": effective,
        "df_residual": model.n_rows - effective,
    }


def diagnostics(
    model: HierarchicalModel, point: Point, spread: Dispersions, found: DispersionState
) -> Diagnostics:
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
    lam_all, random_deviance = np.empty(model.n_random), np.empty(model.n_random)
    for effect, lam in zip(model.random_effects, spread.lam, strict=True):
        lam_all[effect.index] = lam
        random_deviance[effect.index] = effect.family.deviance(point.v[effect.index])  # type: ignore[union-attr]
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
        random_deviance=random_deviance,
        random_dispersion=lam_all,
    )
