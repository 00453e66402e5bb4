"""A state of the maximisation: the point, its metric, and what is said of a maximum at the end of a range."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hlik.estimators.boundary import held_parameters, least_eigenvalue, singular_sentence, zero_sentences
from hlik.estimators.degrees import endless_degrees
from hlik.estimators.laplace_objective import (
    Objective,
    active_parameters,
    boundary_terms,
    difference_scale,
    differenced_hessian,
)
from hlik.maps import LinkMap

FLAT = 1e-8  # smallest curvature, as a part of the largest, below which the likelihood is called flat
UNKNOWN = 100.0  # standard error of a log (log-odds) from which on the likelihood is called flat too
SADDLE = 1e-6  # gain, as a part of the log-likelihood, by which a point without curvature is a saddle
ENDLESS = 1e-4  # change of the log-likelihood over a factor e: the standard error of the log is then above 100
REST = 1e-7  # eigenvalue of a correlation matrix at which the likelihood is that of zero to about as much
FAR_OUT = 5.0  # of a log or log-odds: below it the range has no end near

if TYPE_CHECKING:
    from hlik.estimators.maximise import Maximiser


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
        step = decrement_of(self.objective.gradient(self.psi)[free], self.covariance[np.ix_(free, free)])
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
        decrement = decrement_of(gradient, covariance)
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
        return decrement_of(gradient[rest], self.covariance[np.ix_(rest, rest)])

    def _name(self, position: int) -> str:
        """The parameter that an element of psi belongs to."""
        profile = self.objective.profile
        model = profile.likelihood.model
        start = 0 if profile.integrate_beta else model.n_beta
        parameters = model.fixed_effects if position < start else model.dispersion_parameters
        place = position if position < start else position - start
        return next(repr(p.name) for p in parameters if p.index.start <= place < p.index.stop)


def decrement_of(gradient: np.ndarray, covariance: np.ndarray) -> float:
    """Length of the step ``covariance @ gradient`` in standard errors."""
    return float(np.sqrt(max(gradient @ covariance @ gradient, 0.0)))
