r"""What Monte Carlo likelihood reports: conditional means, Monte Carlo errors, weights, resampled effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hlik.estimators.base import Estimate
from hlik.estimators.laplace_finish import diagnostics_at, full_information, scalars_at
from hlik.importance import ImportanceLikelihood
from hlik.importance_diagnostics import weights_at
from hlik.importance_maximum import Maximum
from hlik.linalg.bordered import Bordered

if TYPE_CHECKING:
    from hlik.estimators.mcla_state import MCLAState

RESAMPLED = 1000  # draws of v given the estimate that the result's posterior is made of
MOST_RESAMPLED = 20_000_000  # numbers of draws among which they are chosen


def finish_mcla(state: MCLAState) -> Estimate:
    """The estimate at a state, converged or not."""
    maximum, likelihood = state.maximum, state.likelihood
    assert maximum is not None
    assert likelihood is not None
    model, p = state.model, state.model.n_beta
    mode = state.objective.mode(maximum.psi)
    full = full_information(state.objective.profile.likelihood, mode)
    mean, variance = likelihood.moments(maximum.psi)
    covariance = maximum.covariance
    count = p + model.n_theta
    observations = sum(response.size for response in model.responses)
    scalars = scalars_at(state.objective.profile, mode, full) | {
        "log_likelihood": maximum.value,
        "log_likelihood_mcse": maximum.value_mcse,
        "draws": float(likelihood.draws),
        "aic": -2 * maximum.value + 2 * count,
        "bic": -2 * maximum.value + count * float(np.log(observations)),
    }
    rng = np.random.default_rng([state.entropy, state.stage])
    return Estimate(
        model=model,
        beta=maximum.psi[:p],
        v=mean,
        theta=maximum.psi[p:],
        beta_covariance=covariance[:p, :p],
        theta_covariance=covariance[p:, p:],
        v_se=_prediction_errors(full, variance, covariance[:p, :p]),
        covariance=covariance,
        information=full,
        likelihood="marginal",
        scalars=scalars,
        diagnostics=diagnostics_at(model, mode, mean),
        monte_carlo_covariance=maximum.mcse,
        v_draws=_resampled(likelihood, maximum, rng),
        groups=_groups(state, likelihood, maximum),
    )


def _prediction_errors(full: Bordered, variance: np.ndarray, beta_covariance: np.ndarray) -> np.ndarray:
    """Of v: its variance given the responses, and the error of beta through the mode."""
    known = np.isfinite(np.diag(beta_covariance))
    part = full.B[:, known]
    return np.sqrt(variance + np.einsum("ij,jk,ik->i", part, beta_covariance[np.ix_(known, known)], part))


def _some(likelihood: ImportanceLikelihood) -> ImportanceLikelihood | None:
    """Randomisations that fit into memory; None where not even one does."""
    columns = MOST_RESAMPLED // max(likelihood.problem.proposal.n_effects, 1)
    return likelihood.fewer(columns // likelihood.n) if columns >= likelihood.n else None


def _resampled(likelihood: ImportanceLikelihood, maximum: Maximum, rng: np.random.Generator) -> np.ndarray | None:
    """Draws of v from its distribution given the responses, block by block, shape (`RESAMPLED`, q)."""
    some = _some(likelihood)
    if some is None:
        return None
    blocks = likelihood.problem.blocks
    log_weights = some.log_weights(maximum.psi)
    cumulative = np.cumsum(np.exp(log_weights - log_weights.max(axis=1, keepdims=True)), axis=1)
    v = some.draws_of_v(maximum.psi)
    chosen = np.empty((blocks.count, RESAMPLED), dtype=int)
    even = np.arange(RESAMPLED)
    for b, row in enumerate(cumulative):  # systematic resampling, in an order of its own for every block
        places = (even + rng.random()) * (row[-1] / RESAMPLED)
        chosen[b] = rng.permutation(np.minimum(np.searchsorted(row, places), row.size - 1))
    return np.take_along_axis(v, chosen[blocks.member], axis=1).T


def _groups(
    state: MCLAState, likelihood: ImportanceLikelihood, maximum: Maximum
) -> dict[str, dict[str, tuple[tuple[str, ...], Any]]]:
    """Diagnostics of the weights; the draws themselves where they are asked for."""
    weights = state.weights or weights_at(likelihood, maximum.psi)
    groups = {
        "sample_stats": {
            "pareto_k": (("block",), weights.pareto_k),
            "effective_draws": (("block",), weights.effective),
            "block_size": (("block",), weights.size),
            "draws": ((), weights.draws),
        }
    }
    if state.settings.save_draws:
        groups["importance_draws"] = {
            "v": (("effect", "importance_draw"), likelihood.draws_of_v(maximum.psi)),
            "log_weight": (("block", "importance_draw"), likelihood.log_weights(maximum.psi)),
            "block_of_effect": (("effect",), likelihood.problem.blocks.member),
        }
    return groups
