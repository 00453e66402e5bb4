"""What EQL reports of a double HGLM: both halves as one estimate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hlik.estimators.base import Estimate
from hlik.estimators.double_eql import DoubleState, assembled
from hlik.estimators.eql_finish import diagnostics, scalars, theta_covariance
from hlik.linalg import BorderedSystem
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel


def finish_double(state: DoubleState) -> Estimate:
    """The estimate at the last point, with the halves independent of each other as EQL takes them."""
    beta, v, theta = assembled(state)
    solved = state.solved()
    information = _information(state)
    covariance = np.full((theta.size, theta.size), np.nan)
    covariance[:] = 0.0
    for half, part in zip((state.means, state.spread), solved, strict=True):
        own = theta_covariance(part.found, part.active, part.proposal.unknown)
        size = half.theta.size
        covariance[np.ix_(half.theta, half.theta)] = own[:size, :size]
    return Estimate(
        model=_means_view(state),
        beta=beta,
        v=v,
        theta=theta,
        beta_covariance=information.inverse_x,
        theta_covariance=covariance,
        v_se=np.sqrt(information.inverse_diagonal()[1]),
        information=information,
        likelihood="p_bv_h",
        scalars=_scalars(state, theta),
        diagnostics=_diagnostics(state),
    )


def _information(state: DoubleState) -> Bordered:
    """H of both halves, which have no entry in common."""
    structure = state.model.double
    row_weight = np.empty(structure.offset.size)
    prior = np.empty(state.model.n_random)
    rows = (slice(0, structure.n_means), slice(structure.n_means, None))
    for half, part, own in zip((state.means, state.spread), state.solved(), rows, strict=True):
        row_weight[own] = part.mean.point.weight
        prior[half.v] = part.mean.point.random_weight
    return BorderedSystem(structure.X, structure.Z).factor(row_weight, prior)


def _means_view(state: DoubleState) -> HierarchicalModel:
    """The whole model with the rows of the means only: what residuals and fitted values belong to."""
    structure = state.model.double
    top = slice(0, structure.n_means)
    return replace(
        state.model,
        responses=structure.responses,
        X=structure.X[top],
        Z=structure.Z[top],
        offset=structure.offset[top],
        theta_design=None,
        extra_terms=(),
    )


def _scalars(state: DoubleState, theta: np.ndarray) -> dict[str, float]:
    """Those of the means given the dispersions, and h of the whole, whose density of the effects w it adds."""
    mean_state = state.mean_state
    assert mean_state is not None
    means, spread = state.solved()
    own = scalars(mean_state.augmented.model, means.mean.point, means.spread, means.mean.observed, means.found)
    found = {
        "conditional_log_likelihood": own["conditional_log_likelihood"],
        "h": own["h"] + _effects_density(state),
        "df_effective": own["df_effective"],
        "df_residual": own["df_residual"],
    }
    found["caic"] = -2 * found["conditional_log_likelihood"] + 2 * (
        found["df_effective"] + float(spread.found.leverage.sum())
    )
    return found | _laplace_scalars(state, theta)


def _effects_density(state: DoubleState) -> float:
    """Log density of the effects of the dispersions."""
    _, spread = state.solved()
    total = 0.0
    for effect, lam in zip(state.spread.model.random_effects, spread.spread.lam, strict=True):
        assert effect.family is not None
        total += float(np.sum(effect.family.log_density(spread.mean.point.v[effect.index], lam)))
    return total


def _laplace_scalars(state: DoubleState, theta: np.ndarray) -> dict[str, float]:
    """p_v(h) and p_bv(h) of the whole model at the estimate, NaN where h has no mode in the effects there."""
    from hlik.adjusted_profile import LOG_2PI, ModeError, Profile
    from hlik.hlikelihood import HLikelihood

    beta, v, _ = assembled(state)
    p, q, r = state.model.n_beta, state.model.n_random, state.model.n_theta
    n = sum(response.size for response in state.model.responses)
    nothing = dict.fromkeys(("p_v_h", "p_bv_h", "log_likelihood", "aic", "bic"), np.nan)
    if state.model.laplace_obstacles:
        return nothing
    try:
        likelihood = HLikelihood(state.model)
        mode = Profile(likelihood).mode(np.concatenate([beta, theta]), beta, v)
        system = BorderedSystem(likelihood.X, likelihood.Z, weights_may_be_negative=True)
        full = system.factor(mode.point.weight, mode.point.random_weight)
    except (ModeError, ArithmeticError, ValueError):
        return nothing
    p_bv = mode.point.h - 0.5 * (full.logdet() - (p + q) * LOG_2PI)
    return {
        "p_v_h": mode.value,
        "p_bv_h": p_bv,
        "log_likelihood": p_bv,
        "aic": -2 * mode.value + 2 * (p + r),
        "bic": -2 * mode.value + (p + r) * float(np.log(n)),
    }


def _diagnostics(state: DoubleState):  # type: ignore[no-untyped-def]
    """Of the means; the effects of the dispersions with their own leverages."""
    mean_state, spread_state = state.mean_state, state.spread_state
    assert mean_state is not None
    assert spread_state is not None
    means, spread = state.solved()
    top = diagnostics(mean_state.augmented.model, means.mean.point, means.spread, means.found)
    below = diagnostics(spread_state.augmented.model, spread.mean.point, spread.spread, spread.found)
    random = {}
    for name in ("random_leverage", "random_deviance", "random_dispersion"):
        values = np.empty(state.model.n_random)
        values[state.means.v], values[state.spread.v] = getattr(top, name), getattr(below, name)
        random[name] = values
    return replace(top, **random)
