"""What Monte Carlo EM reports: the last sample's chains, prediction errors, Monte Carlo errors, the log-likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import arviz as az
import numpy as np
from scipy.special import logsumexp

from hlik.adjusted_profile import Profile
from hlik.errors import ModelError
from hlik.estimators.base import Estimate
from hlik.estimators.laplace_finish import diagnostics_at, full_information, scalars_at
from hlik.estimators.mcem_boundary import active
from hlik.estimators.mcem_louis import Louis, following, louis_at
from hlik.samplers.base import Draws
from hlik.samplers.bridge import log_likelihood
from hlik.samplers.importance import ImportanceSampler
from hlik.samplers.scale_mixture import ScaleMixtureSampler, has_few_scales

if TYPE_CHECKING:
    from hlik.estimators.mcem_state import EMState

KEPT = 1000  # draws of each chain that the result holds, the last ones


def finish_em(state: EMState) -> Estimate:
    """The estimate at a state; after an interruption Louis' identity uses the last E-step's draws."""
    assert state.draws is not None
    assert state.at is not None
    likelihood, draws, model = state.likelihood, state.draws, state.likelihood.model
    louis = (
        state.louis
        if state.louis is not None and state.phase == "done"
        else louis_at(likelihood, draws, *state.at, active(state))
    )
    profile = Profile(likelihood)
    mean = draws.v.mean(axis=(0, 1))
    mode = profile.mode(state.psi, state.beta, mean)
    full = full_information(likelihood, mode)
    p, covariance = model.n_beta, louis.covariance
    count, observations = p + model.n_theta, sum(response.size for response in model.responses)
    scalars = scalars_at(profile, mode, full) | {"draws": float(draws.count)}
    value, error = _log_likelihood(state, draws)
    scalars |= {"log_likelihood": value, "log_likelihood_mcse": error}
    scalars |= {"aic": -2 * value + 2 * count, "bic": -2 * value + count * float(np.log(observations))}
    v = mean + louis.slope @ (state.psi - np.concatenate(state.at))
    return Estimate(
        model=model,
        beta=state.beta,
        v=v,
        theta=state.theta,
        beta_covariance=covariance[:p, :p],
        theta_covariance=covariance[p:, p:],
        v_se=_prediction_errors(draws, louis),
        covariance=covariance,
        v_by_theta=louis.slope[:, p:],
        information=full,
        likelihood="marginal",
        scalars=scalars,
        diagnostics=diagnostics_at(model, mode, v),
        monte_carlo_covariance=louis.mcse_covariance,
        v_chains=draws.v[:, -KEPT:],
        groups={"sample_stats": _sample_stats(draws), "em": _to_go_on(state, draws, louis)},
    )


def _log_likelihood(state: EMState, draws: Draws) -> tuple[float, float]:
    """At the parameters of the draws, to which the Newton step's rise ``E(g)' step / 2`` is added.

    By bridge sampling; with multivariate t effects by importance sampling over their scales. After an interruption the
    rise is that of the last M-step, `_rise`.
    """
    assert state.at is not None
    try:
        if has_few_scales(state.likelihood.model):
            sampler = ScaleMixtureSampler(state.likelihood, draws.v.mean(axis=(0, 1)), draws.v.shape[0])
            value, error = sampler.log_likelihood(*state.at, state.rng)
        else:
            value, error = log_likelihood(state.likelihood, draws, *state.at, state.rng)
    except ModelError:
        return np.nan, np.nan
    if state.louis is not None and state.phase == "done":
        return value + 0.5 * float(state.louis.step @ state.louis.information @ state.louis.step), error
    rise, its_error = _rise(state, draws)
    return value + rise, float(np.hypot(error, its_error))


def _rise(state: EMState, draws: Draws) -> tuple[float, float]:
    """``sum_b log mean exp(h_b(v; psi) - h_b(v; psi_0))`` over draws at psi_0 and blocks b, and its error."""
    assert state.at is not None
    likelihood, columns, (beta, theta) = state.likelihood, draws.columns, state.at
    shift = following(likelihood, columns.mean(axis=1), beta, theta)
    moved = columns if shift is None else shift.moved(columns, state.beta)
    blocks = ImportanceSampler(likelihood, columns[:, 0], draws.v.shape[0])
    change = blocks.block_values(state.beta, moved, state.theta) - blocks.block_values(beta, columns, theta)
    means = logsumexp(change, axis=1) - np.log(columns.shape[1])
    share = np.exp(change - means[:, None]).sum(axis=0)
    return float(means.sum()), float(np.sqrt(draws.mean_covariance(share[None])[0, 0]))


def _prediction_errors(draws: Draws, louis: Louis) -> np.ndarray:
    """``var(v | y) + D cov D'`` with D = cov(v, g) (Booth & Hobert 1998, section 3)."""
    variance = draws.v.var(axis=(0, 1))
    known = np.isfinite(np.diag(louis.covariance))
    part = louis.slope[:, known]
    return np.sqrt(variance + np.einsum("ij,jk,ik->i", part, louis.covariance[np.ix_(known, known)], part))


def _sample_stats(draws: Draws) -> dict[str, tuple[tuple[str, ...], Any]]:
    """The sampler's own statistics, and R-hat and effective sizes of every effect: of the draws that are kept."""
    found: dict[str, tuple[tuple[str, ...], Any]] = {
        name: (("chain", "draw"), values[:, -KEPT:]) for name, values in draws.stats.items()
    }
    if "diverging" in draws.stats:
        found["diverging"] = (("chain", "draw"), draws.stats["diverging"][:, -KEPT:].astype(bool))
    data = az.convert_to_dataset({"v": draws.v[:, -KEPT:]})
    found["ess_bulk"] = (("effect",), np.asarray(az.ess(data)["v"]))
    found["ess_mean"] = (("effect",), np.asarray(az.ess(data, method="mean")["v"]))
    found["r_hat"] = (("effect",), np.asarray(az.rhat(data)["v"]))
    return found


def _to_go_on(state: EMState, draws: Draws, louis: Louis) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Positions, step sizes and number of draws, for ``start=idata``; Louis' information and its errors."""
    chains = draws.v.shape[0]
    step_size = np.full(chains, np.nan) if draws.step_size is None else draws.step_size
    return {
        "position": (("chain", "effect"), draws.v[:, -1]),
        "step_size": (("chain",), step_size),
        "next_draws": ((), state.next_draws),
        "information": (("parameter", "parameter_2"), louis.information),
        "information_mcse": (("parameter", "parameter_2"), louis.information_mcse),
        "standard_error_mcse": (("parameter",), louis.standard_error_mcse),
        "path_mcse": (("iteration", "parameter"), np.array(state.mcse_path)),
        "n_compilations": ((), state.sampler.compilations),
    }
