r"""Maximisation of an adjusted profile h-likelihood: BFGS in a metric of standard errors, decided by Newton's step.

`Maximiser` is what `Laplace`, `HL` and `AGQ` share: they differ in the profile they maximise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from hlik.adjusted_profile import ModeError, Profile
from hlik.checks import invalid_precision
from hlik.errors import ModelError
from hlik.estimators.base import CONVERGED, RUNNING, Estimate
from hlik.estimators.boundary import held_parameters, least_eigenvalue, singular_sentence, zero_sentences
from hlik.estimators.degrees import endless_degrees
from hlik.estimators.laplace_finish import finish_laplace
from hlik.estimators.laplace_objective import (
    Objective,
    active_parameters,
    boundary_terms,
    difference_scale,
    differenced_hessian,
)
from hlik.estimators.laplace_start import Start, start_psi
from hlik.hlikelihood import HLikelihood
from hlik.maps import LinkMap
from hlik.model import HierarchicalModel

LOOSE = 1e-3  # standard errors: where rounding ends the line search, Newton's step must be shorter than that
FLAT = 1e-8  # smallest curvature, as a part of the largest, below which the likelihood is called flat
UNKNOWN = 100.0  # standard error of a log (log-odds) from which on the likelihood is called flat too
SADDLE = 1e-6  # gain, as a part of the log-likelihood, by which a point without curvature is a saddle
ENDLESS = 1e-4  # change of the log-likelihood over a factor e: the standard error of the log is then above 100
GROWTH = 4.0  # of the reach after a step that went as far
HALVINGS = 20  # of a step for which the line search finds nothing
REST = 1e-7  # eigenvalue of a correlation matrix at which the likelihood is that of zero to about as much
FAR_OUT = 5.0  # of a log or log-odds: below it the range has no end near


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
        z, inverse_hessian = _bfgs_step(
            lambda z: objective.negative(state.psi + root @ z, root), len(metric), state.reach
        )
        psi = state.psi + root @ z
        covariance = _symmetric(root @ inverse_hessian @ root.T)
        decrement = _decrement(objective.gradient(psi), covariance)
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


@dataclass(frozen=True, eq=False)
class MaximumState:
    """What the next step needs."""

    settings: Maximiser
    objective: Objective
    psi: np.ndarray
    covariance: np.ndarray
    decrement: float
    stalled: bool = False
    checked: bool = False
    flat: str = ""
    hessian: np.ndarray | None = None  # minus the Hessian at psi, where `checked`
    endless: tuple[tuple[int, bool], ...] = ()  # elements of psi that run off, and whether upwards
    lost: bool = False
    value: float = np.nan
    reach: float = 1.0  # length of the longest first trial of a line search, in standard errors

    def boundary_names(self) -> list[str]:
        """A sentence for every random effect whose variance is estimated at zero."""
        mode, model = self.objective.mode(self.psi), self.objective.profile.likelihood.model
        return zero_sentences(model, boundary_terms(model, mode), mode.point.theta)

    def singular_sentence(self) -> str | None:
        """What is said of correlated effects whose covariance matrix is singular; None where none is."""
        mode = self.objective.evaluate(self.psi)
        model = self.objective.profile.likelihood.model
        return None if mode is None else singular_sentence(model, mode.point.theta)

    def rests(self) -> bool:
        """Whether nothing but what a singular covariance matrix hardly depends on (`held_parameters`) still moves."""
        likelihood = self.objective.profile.likelihood
        model = likelihood.model
        theta = self.psi[self.psi.size - model.n_theta :]
        if least_eigenvalue(model, theta) > REST:
            return False
        free = np.ones(self.psi.size, bool)
        free[self.psi.size - theta.size :] = ~held_parameters(likelihood, theta)
        step = _decrement(self.objective.gradient(self.psi)[free], self.covariance[np.ix_(free, free)])
        return step < self.settings.tol

    def endless_names(self) -> list[str]:
        """A sentence for every parameter towards an end of whose range the likelihood rises without a maximum."""
        sentences: list[str] = []
        model = self.objective.profile.likelihood.model
        start = self.psi.size - model.n_theta
        for k, up in self.endless:
            told = [] if up else self._zero_terms(k)
            told = told or endless_degrees(model, k - start, self.psi[start:])
            sentences += told or [
                f"{self._name(k)} runs to the {'upper' if up else 'lower'} end of its range, where the likelihood is "
                "flat: fix it, or take the simpler model of that limit"
            ]
        return sentences

    def _zero_terms(self, k: int) -> list[str]:
        """The sentences of random effects whose dispersion element k of psi moves, and nothing else."""
        model, mode = self.objective.profile.likelihood.model, self.objective.mode(self.psi)
        place, theta = k - (self.psi.size - model.n_theta), mode.point.theta
        whole, sentences = [], []
        for effect in model.random_effects:
            if effect.dispersion is None:
                continue
            moves = effect.dispersion.jacobian(theta) != 0
            rows = moves[:, place]
            if rows.any() and not np.any(np.delete(moves[rows], place, axis=1)):
                if rows.all():
                    whole.append(effect.name)
                else:
                    sentences.append(f"sd of {effect.name!r} estimated at zero for some levels ({self._name(k)})")
        return zero_sentences(model, whole, theta) + sentences

    def direction(self) -> str:
        """The parameter that is furthest out on its unconstrained scale, in words."""
        start = self.psi.size - self.objective.profile.likelihood.model.n_theta
        if start == self.psi.size:
            return ""
        return f", furthest out in {self._name(start + int(np.argmax(np.abs(self.psi[start:]))))}"

    def with_hessian(self) -> MaximumState:
        """The same point with the Hessian's metric, and the length of Newton's step in it."""
        active = active_parameters(self.objective, self.psi)
        if not active.any():
            return replace(self, decrement=0.0, checked=True)
        level = active & self._level()
        endless = tuple((int(k), bool(self.psi[k] > 0)) for k in np.flatnonzero(level))
        active &= ~level
        hessian = differenced_hessian(self.objective, self.psi, self.covariance, active)
        if not active.any():
            return replace(self, decrement=0.0, checked=True, hessian=hessian, endless=endless)
        gradient = np.where(active, self.objective.gradient(self.psi), 0.0)
        scale = difference_scale(self.objective, self.psi, self.covariance)
        scaled = (hessian * scale[:, None] * scale)[np.ix_(active, active)]
        values, vectors = np.linalg.eigh(scaled)
        low = values < FLAT * max(values.max(), 1e-300)
        usable = np.maximum(np.abs(values), 1e-6 * np.abs(values).max())
        part = np.ix_(active, active)
        covariance = np.diag(np.diag(self.covariance))
        covariance[part] = (vectors / usable @ vectors.T) * scale[active][:, None] * scale[active]
        decrement = _decrement(gradient, covariance)
        flat = ""
        errors = scale[active] * np.sqrt((vectors**2 / np.maximum(values, 1e-300)).sum(axis=1))
        unknown = self._logarithmic()[active] & (errors > UNKNOWN)
        if (low.any() or unknown.any()) and decrement < self.settings.tol:
            least = vectors[:, int(np.argmin(values))]
            beyond = self._beyond(scale[active] * least, active)
            if beyond is not None:
                return replace(self, psi=beyond, covariance=covariance, decrement=np.inf, stalled=False)
            flat = self._names_along(np.abs(least), active)
        return replace(
            self, covariance=covariance, decrement=decrement, checked=True, flat=flat, hessian=hessian, endless=endless
        )

    def _level(self) -> np.ndarray:
        """Log scales (log-odds) far out, along which a whole unit back does not change the value.

        Further out the rounding of some densities, which are differences of log-gamma functions there, may.
        """
        found = self._far_out()
        for k in np.flatnonzero(found):
            back = self.psi.copy()
            back[k] -= np.sign(self.psi[k])
            found[k] = abs(self.objective.value(back) - self.objective.value(self.psi)) < ENDLESS
        return found

    def _beyond(self, direction: np.ndarray, active: np.ndarray) -> np.ndarray | None:
        """A better point along a direction without curvature, None where there is none: a saddle has, a ridge not."""
        here = self.objective.value(self.psi)
        for length in (1.0, -1.0, 0.1, -0.1, 0.01, -0.01):
            psi = self.psi.copy()
            psi[active] += length * direction
            if self.objective.value(psi) > here + SADDLE * (1 + abs(here)):
                return psi
        return None

    def _names_along(self, direction: np.ndarray, active: np.ndarray) -> str:
        """The parameters that a direction of the active elements of psi moves, the one that it moves most first."""
        order = [k for k in np.argsort(-direction) if direction[k] > 0.1 * direction.max()]
        return ", ".join(dict.fromkeys(self._name(int(np.flatnonzero(active)[k])) for k in order))

    def _far_out(self) -> np.ndarray:
        """Log scales (log-odds) further out than `FAR_OUT`, bool like psi."""
        return self._logarithmic() & (np.abs(self.psi) > FAR_OUT)

    def _logarithmic(self) -> np.ndarray:
        """Which elements of psi are logs or log-odds, bool."""
        model = self.objective.profile.likelihood.model
        start, found = self.psi.size - model.n_theta, np.zeros(self.psi.size, bool)
        for p in model.dispersion_parameters:
            inner = getattr(p.natural, "inner", p.natural)
            if isinstance(inner, LinkMap) and inner.link.name != "identity":
                found[start + p.index.start : start + p.index.stop] = True
        return found

    def rest_decrement(self) -> float:
        """Length of the next step, without what is far out and hardly moves the value: `_level` decides on these."""
        gradient = self.objective.gradient(self.psi)
        rest = ~(self._far_out() & (np.abs(gradient) < ENDLESS))
        return _decrement(gradient[rest], self.covariance[np.ix_(rest, rest)])

    def _name(self, position: int) -> str:
        """The parameter that an element of psi belongs to."""
        profile = self.objective.profile
        model = profile.likelihood.model
        start = 0 if profile.integrate_beta else model.n_beta
        parameters = model.fixed_effects if position < start else model.dispersion_parameters
        place = position if position < start else position - start
        return next(repr(p.name) for p in parameters if p.index.start <= place < p.index.stop)


def _bfgs_step(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]], size: int, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """One BFGS step from zero with the identity as inverse Hessian: the step, and the inverse Hessian after it.

    The line search (SciPy's, Wolfe's conditions) first tries the whole step, or `reach` of it. The step is zero where
    it finds nothing.
    """

    def values(z: np.ndarray) -> float:
        return function(z)[0]

    def slopes(z: np.ndarray) -> np.ndarray:
        return function(z)[1]

    value, gradient = function(np.zeros(size))
    direction = -gradient * min(1.0, reach / max(float(np.linalg.norm(gradient)), 1e-300))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The line search algorithm|Rounding errors", RuntimeWarning)
        length = optimize.line_search(values, slopes, np.zeros(size), direction, gradient, value)[0]
    update = optimize.BFGS(init_scale=1.0)
    update.initialize(size, "inv_hess")
    if length is None:
        length = _halved(values, direction, value, float(gradient @ direction))
    if length is None:
        return np.zeros(size), np.eye(size)
    step = length * direction
    update.update(step, slopes(step) - gradient)
    return step, update.get_matrix()


def _halved(values: Callable[[np.ndarray], float], direction: np.ndarray, value: float, slope: float) -> float | None:
    """Half the step, a quarter, ... that gains a tenth of what the slope says; None where none of them does.

    Wolfe's conditions may have no solution in front of a wall, where h has no mode.
    """
    for length in 0.5 ** np.arange(1, HALVINGS):
        if values(length * direction) < value + 0.1 * length * slope:
            return float(length)
    return None


def _one_of(names: str) -> str:
    return "one of them" if ", " in names else "it"


def _row(step: float, objective: float) -> dict[str, float]:
    return {"step": step, "objective": objective}


def _decrement(gradient: np.ndarray, covariance: np.ndarray) -> float:
    """Length of the step ``covariance @ gradient`` in standard errors."""
    return float(np.sqrt(max(gradient @ covariance @ gradient, 0.0)))


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
