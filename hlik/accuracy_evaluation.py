r"""A fit's estimate put before importance sampling: the log-likelihood there, and the way from there to the maximum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import arviz as az
import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.errors import ModelError
from hlik.estimators.base import RUNNING
from hlik.estimators.laplace_objective import Objective, active_parameters
from hlik.estimators.mcla import MCLA
from hlik.estimators.mcla_state import MCLAState, growth
from hlik.hlikelihood import HLikelihood
from hlik.importance import ImportanceLikelihood
from hlik.importance_diagnostics import Weights, weights_at
from hlik.model import HierarchicalModel


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """A marginal log-likelihood by importance sampling.

    Attributes
    ----------
    value
        All constants included. ``float()`` of this object gives it.
    mcse
        Its Monte Carlo standard error.
    pareto_k
        The largest Pareto k of the weights among blocks whose weights have a tail that matters; -inf where none has.
    draws
        Draws of every block.
    is_reliable
        Whether importance sampling can be trusted here (see `hlik.MCLA`).
    """

    value: float
    mcse: float
    pareto_k: float
    draws: int
    is_reliable: bool

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        doubt = "" if self.is_reliable else f"; not to be trusted: Pareto k = {self.pareto_k:.2f}"
        return f"log-likelihood {self.value:.4f} (Monte Carlo error {self.mcse:.2g}, {self.draws:,} draws{doubt})"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """l at one psi."""

    likelihood: ImportanceLikelihood
    psi: np.ndarray
    value: float
    mcse: float
    weights: Weights

    def gradient(self) -> np.ndarray:
        """Of l, (p + r,)."""
        return self.likelihood.derivatives(self.psi, hessian=False).gradient

    def log_likelihood(self) -> LogLikelihood:
        w = self.weights
        matters = w.pareto_k[w.effective < 0.8 * w.draws]
        k = float(np.nanmax(matters, initial=-np.inf))
        return LogLikelihood(self.value, self.mcse, k, w.draws, w.are_reliable)


@dataclass(frozen=True, eq=False)
class CheckedFit:
    """A fit's estimate, and the state of MCLA from which it is looked at."""

    model: HierarchicalModel
    psi: np.ndarray
    state: MCLAState

    @classmethod
    def of(cls, model: Any, idata: az.InferenceData, settings: MCLA, rng: np.random.Generator) -> CheckedFit:
        read, psi, v = _estimate_of(model, idata)
        name = idata["fit"].attrs["estimator_name"]
        if settings.proposal != "laplace":
            raise ModelError("A fit is checked by a proposal made at its estimate: settings need proposal='laplace'.")
        obstacles = settings.obstacles(read)
        if obstacles:
            raise ModelError(f"The accuracy of this {name} fit cannot be checked: " + "; ".join(obstacles) + ".")
        likelihood = HLikelihood(read)
        objective = Objective(Profile(likelihood), psi[: read.n_beta], v)
        try:
            objective.mode(psi)
        except ModeError as error:
            raise ModelError(f"The accuracy of this {name} fit cannot be checked: {error} at its estimates.") from error
        covariance = _metric_of(idata, psi.size)
        entropy = int(rng.integers(2**32))
        return cls(read, psi, MCLAState(settings, objective, settings.blocks(likelihood), psi, covariance, entropy))

    def evaluate(self, tol: float) -> Evaluation:
        """l at the estimate, with draws that grow until its Monte Carlo error is at most `tol`."""
        settings, state = self.state.settings, self.state
        n, most = 128, max(settings.max_m // settings.randomisations, 1)
        if settings.m is not None:
            n = most = -(-settings.m // settings.randomisations)
        proposal, stage = state.proposal_here(stage=1000)
        while True:
            likelihood = state.sample(proposal, min(n, most), stage)
            value, mcse = likelihood.value(self.psi), likelihood.value_mcse(self.psi)
            weights = weights_at(likelihood, self.psi)
            if mcse <= tol or n >= most or weights.are_hopeless:
                return Evaluation(likelihood, self.psi, value, mcse, weights)
            n, stage = n * 2 ** growth(mcse / tol), stage + 1

    def maximum(self) -> MCLAState:
        """MCLA's last state, from the estimate; variances at zero are set back first."""
        active = active_parameters(self.state.objective, self.psi)
        state = replace(self.state, psi=np.where(active, self.psi, 0.0))
        for _ in range(state.settings.max_iterations):
            state, _row = state.settings.step(state)
            if state.settings.status(state) != RUNNING:
                break
        return state


def _estimate_of(model: Any, idata: az.InferenceData) -> tuple[HierarchicalModel, np.ndarray, np.ndarray]:
    """The model of a result, psi and v."""
    from hlik.graph.read import as_pymc
    from hlik.inference.restore import estimated_v, read_again

    read = read_again(model, idata)
    added = [p.name for p in read.parameters if p.name not in as_pymc(model).named_vars]
    if added:
        raise ModelError(
            f"The result has an estimated quasi-dispersion, {added[0]!r}: quasi-likelihoods have no marginal "
            "likelihood. Fit with EQL(dispersion='model')."
        )
    if idata["fit"].attrs.get("priors", "ignore") != "ignore":
        raise ModelError("The result maximises a penalised likelihood: only likelihood fits can be checked.")
    beta, theta = np.zeros(read.n_beta), np.zeros(read.n_theta)
    for parameter in read.parameters:
        target = beta if parameter.natural is None else theta
        target[parameter.index] = np.ravel(idata["unconstrained_estimates"][parameter.variable.value_name].values)
    return read, np.concatenate([beta, theta]), estimated_v(read, idata)


def _metric_of(idata: az.InferenceData, size: int) -> np.ndarray:
    """The fit's covariance as the metric of the search; ones where it has none."""
    covariance = idata["fit"]["covariance_matrix"].values.copy()
    lost = ~(np.isfinite(np.diag(covariance)) & (np.diag(covariance) > 0))
    covariance[lost], covariance[:, lost] = 0.0, 0.0
    covariance[lost, lost] = 1.0
    return covariance if covariance.shape == (size, size) else np.eye(size)
