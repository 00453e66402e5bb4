r"""Maximisation of an adjusted profile h-likelihood: BFGS in a metric of standard errors, decided by Newton's step.

`Maximiser` is what `Laplace`, `HL` and `AGQ` share: they differ in the profile they maximise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.checks import invalid_precision
from hlik.errors import ModelError
from hlik.estimators.base import CONVERGED, RUNNING, Estimate
from hlik.estimators.bfgs import bfgs_step
from hlik.estimators.laplace_finish import finish_laplace
from hlik.estimators.laplace_objective import (
    Objective,
)
from hlik.estimators.laplace_start import Start, start_psi
from hlik.estimators.maximum_state import MaximumState, decrement_of
from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel

LOOSE = 1e-3  # standard errors: where rounding ends the line search, Newton's step must be shorter than that
GROWTH = 4.0  # of the reach after a step that went as far


class Maximiser:
    """The steps of an estimator that maximises a profile; a subclass says which one (`profile`)."""

    name: str
    tol: float
    max_iterations: int

    def __post_init__(self) -> None:
        if not (self.tol > 0 and self.max_iterations >= 1):
            raise ModelError(
                f"{self.name}: tol and max_iterations must be positive; got {self.tol}, {self.max_iterations}."
            )

    def profile(self, likelihood: HLikelihood) -> Profile:
        """The function of the parameters to maximise."""
        raise NotImplementedError

    @property
    def likelihood_name(self) -> str:
        """What is maximised, by its name in the result: ``p_v_h``, ``p_bv_h`` or another."""
        raise NotImplementedError

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """Why it cannot fit this model; empty where it can."""
        return list(model.laplace_obstacles)

    def prepare(self, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator) -> MaximumState:
        """Analyse the sparse pattern once; start from EQL."""
        likelihood = HLikelihood(model)
        profile = self.profile(likelihood)
        begin = self.begin(likelihood, profile.integrate_beta, start, rng)
        objective = Objective(profile, begin.beta, begin.v)
        first = objective.evaluate(begin.psi)
        if first is None:
            raise ModelError(
                invalid_precision(model, begin.psi[begin.psi.size - model.n_theta :])
                or f"{self.name} has no value at the starting values: pass start={{...}} with plausible values of the "
                "parameters."
            )
        covariance = _scale_matrix(begin.covariance)
        return MaximumState(self, objective, begin.psi, covariance, np.inf, reach=begin.reach)

    def begin(
        self, likelihood: HLikelihood, integrate_beta: bool, start: dict[str, np.ndarray], rng: np.random.Generator
    ) -> Start:
        """Starting values."""
        return start_psi(likelihood, integrate_beta, start, rng)

    def step(self, state: MaximumState) -> tuple[MaximumState, dict[str, float]]:
        """One BFGS iteration (`_step`); where h has no mode on the way the state stays and says so (`lost`)."""
        try:
            return self._step(state)
        except ModeError:
            return replace(state, lost=True), _row(state.decrement, state.value)

    def _step(self, state: MaximumState) -> tuple[MaximumState, dict[str, float]]:
        """One BFGS iteration by SciPy, in the metric of the current covariance estimate.

        Where that metric calls the point a maximum, or the line search finds no better one, the Hessian replaces it
        (`checked`): convergence is decided by Newton's step, not by what BFGS takes for one.
        """
        objective = state.objective
        if not state.psi.size:
            return replace(state, decrement=0.0, checked=True), _row(0.0, objective.value(state.psi))
        metric = _scale_matrix(state.covariance)
        root = np.linalg.cholesky(metric)
        z, inverse_hessian = bfgs_step(
            lambda z: objective.negative(state.psi + root @ z, root), len(metric), state.reach
        )
        psi = state.psi + root @ z
        covariance = _symmetric(root @ inverse_hessian @ root.T)
        decrement = decrement_of(objective.gradient(psi), covariance)
        stalled, length = bool(np.all(z == 0.0)), float(np.linalg.norm(z))
        reach = GROWTH * length if length >= state.reach else state.reach
        new = replace(state, psi=psi, covariance=covariance, decrement=decrement, stalled=stalled, reach=reach)
        new = replace(new, checked=False, hessian=None, endless=(), value=objective.value(psi))
        if new.rest_decrement() < self.tol or (stalled and not state.checked):
            new = new.with_hessian()
        return new, _row(new.decrement, objective.value(psi))

    def position(self, state: MaximumState) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta), for the history."""
        profile = state.objective.profile
        if not profile.integrate_beta:
            return profile.split(state.psi, state.psi[:0])
        mode = state.objective.evaluate(state.psi)
        missing = np.full(profile.likelihood.model.n_beta, np.nan)
        return (missing if mode is None else mode.point.beta), state.psi

    def status(self, state: MaximumState) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped."""
        singular = state.singular_sentence()
        ends = (state.checked and state.flat) or (state.stalled and not state.checked) or state.lost
        if singular is not None and (ends or state.rests()):
            return f"boundary: {singular}"
        if state.lost:
            return (
                "stopped: h has no maximum in the random effects where the likelihood still rises"
                f"{state.direction()}: fix a parameter with fixed={{...}}, or simplify the model"
            )
        if state.checked and state.flat:
            return (
                f"stopped: the likelihood is flat in {state.flat}: fix {_one_of(state.flat)}, pass another "
                "start={...}, or simplify the model"
            )
        if state.checked and state.decrement < (LOOSE if state.stalled else self.tol):
            names = state.boundary_names() + ([] if singular is None else [singular]) + state.endless_names()
            return CONVERGED if not names else "boundary: " + "; ".join(names)
        if state.stalled and not state.checked:
            return "stopped: the line search found no better point, and the gradient is not zero"
        return RUNNING

    def finish(self, state: MaximumState) -> Estimate:
        """Estimates, standard errors, likelihoods and diagnostics."""
        try:
            return finish_laplace(state)
        except ModeError as error:
            raise ModelError(
                f"{self.name}: h has no maximum in the random effects{state.direction()} ({error}). Fix a parameter "
                "with fixed={...}, pass start={...}, or simplify the model."
            ) from error


def _one_of(names: str) -> str:
    return "one of them" if ", " in names else "it"


def _row(step: float, objective: float) -> dict[str, float]:
    return {"step": step, "objective": objective}


def _scale_matrix(covariance: np.ndarray) -> np.ndarray:
    """A usable first metric: variances of one where the start has none, nothing larger than ten standard units."""
    diagonal = np.diag(covariance).copy()
    bad = ~(np.isfinite(diagonal) & (diagonal > 0))
    result = np.where(np.isfinite(covariance), covariance, 0.0)
    result[bad, :], result[:, bad] = 0.0, 0.0
    result[bad, bad] = 1.0
    try:
        np.linalg.cholesky(result)
    except np.linalg.LinAlgError:
        result = np.diag(np.where(bad, 1.0, diagonal))
    return result


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + matrix.T)
