r"""Profile likelihood of one parameter: it is held at a value, the others are maximised again, from the last maximum.

With l the log-likelihood that the fit maximised, the profile of an element psi_k of the unconstrained parameters is

.. math:: l_k(c) = \max_{\psi: \psi_k = c} l(\psi), \qquad
          \zeta(c) = \mathrm{sign}(c - \hat\psi_k) \sqrt{2 (l(\hat\psi) - l_k(c))},

and ``{c: |zeta(c)| <= z}`` is the interval (Venzon & Moolgavkar 1988; zeta is the signed root deviance of Bates &
Watts 1988). At the constrained maximum ``dl_k/dc = dl/dpsi_k``, so that the exact gradient gives the slope of zeta and
the ends are found by a safeguarded Newton's method in a few constrained maxima. zeta is invariant: the ends are those
of the natural scale mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
from scipy import optimize

from hlik.adjusted_profile import ModeError
from hlik.errors import ModelError
from hlik.estimators.boundary import held_parameters
from hlik.estimators.laplace_objective import Objective, active_parameters, differenced_hessian
from hlik.hlikelihood import HLikelihood
from hlik.inference.refit import maximiser_of
from hlik.inference.restore import Restored, restore

ROOT_TOLERANCE = 1e-5  # of zeta at the ends: five decimals of a standard normal quantile
GRADIENT = 1e-5  # scaled: the deviance at a constrained maximum is then right to its square
MAX_STEPS = 60  # constrained maxima on one side
FIRST_STEP = 0.5  # unconstrained, where there is no standard error
WIDEST = 1.0  # standard error of a dispersion parameter (mostly a logarithm) beyond which the normal scale says nothing
FARTHEST = 60.0  # unconstrained, from a variance at zero: a factor of 1e26
BEYOND = 1.25  # times the quantile: points of the search further out are no part of the curve
LONGEST = 3.0  # standard errors that one Newton step may go
RISE = 1e-4  # a log-likelihood that much above the fit's means that the fit was not at its maximum


@dataclass(frozen=True, eq=False)
class Curve:
    """The profile of one parameter element: points in order of the value, and where the interval ends.

    Attributes
    ----------
    value, zeta, log_likelihood
        Points; the value is unconstrained.
    lower, upper
        Ends; infinite where the likelihood does not fall far enough on that side.
    """

    value: np.ndarray
    zeta: np.ndarray
    log_likelihood: np.ndarray
    lower: float
    upper: float


class Profiler:
    """Constrained maxima of the likelihood that a fit maximised.

    Parameters
    ----------
    model
        The model of the fit.
    idata
        A result of an estimator that maximises a likelihood (Laplace, AGQ).

    Raises
    ------
    ModelError
        For results of other estimators and of other models or data.
    """

    def __init__(self, model: Any, idata: az.InferenceData):
        estimator = maximiser_of(idata, "A profile likelihood")
        self.fitted: Restored = restore(model, idata)
        self.model = self.fitted.model
        profile = estimator.profile(HLikelihood(self.model))
        self.objective = Objective(profile, self.fitted.beta, self.fitted.v)
        self.restricted = profile.integrate_beta
        parts = [self.fitted.theta] if self.restricted else [self.fitted.beta, self.fitted.theta]
        self.psi = np.concatenate(parts)
        self.best = self.objective.value(self.psi)
        if not np.isfinite(self.best):
            raise ModelError("The likelihood has no value at the estimates of this result.")
        self.gradient = self.objective.gradient(self.psi)
        self.active = active_parameters(self.objective, self.psi)
        held = held_parameters(profile.likelihood, self.fitted.theta)  # a singular covariance matrix stays so
        self.active[self.psi.size - held.size :] &= ~held
        start = self.fitted.beta.size if self.restricted else 0
        self.covariance = self._covariance(self.fitted.covariance[start:, start:])

    def _covariance(self, found: np.ndarray) -> np.ndarray:
        """Covariance of psi for the scale of the steps; inactive parameters have unit variance."""
        if np.all(np.isfinite(found)):
            return found
        known = np.isfinite(np.diag(found))
        result = np.where(np.outer(known, known), found, 0.0)
        missing = ~known & self.active
        if missing.any():
            guess = np.where(np.eye(known.size) > 0, np.where(known, np.diag(result), 1.0)[:, None], 0.0)
            hessian = differenced_hessian(self.objective, self.psi, guess, self.active)
            part = np.ix_(self.active, self.active)
            values, vectors = np.linalg.eigh(hessian[part])
            values = np.maximum(np.abs(values), 1e-8 * max(np.abs(values).max(), 1e-300))
            result = np.eye(known.size)
            result[part] = vectors / values @ vectors.T
        result[~known & ~missing, ~known & ~missing] = 1.0
        return result

    def psi_index(self, index: slice, is_fixed_effect: bool, name: str) -> np.ndarray:
        """Places of a parameter's elements in psi."""
        if is_fixed_effect and self.restricted:
            raise ModelError(
                f"{name!r} is a fixed effect, and a restricted likelihood has no profile for it: fit with "
                f"hlik.Laplace() (reml=False), or ask for parm=[...] of the dispersion parameters."
            )
        start = 0 if is_fixed_effect or self.restricted else self.fitted.beta.size
        return np.arange(index.start, index.stop) + start

    # ------------------------------------------------------------ one parameter

    def curve(self, k: int, quantile: float, points: int = 0) -> Curve:
        """The profile of psi[k] out to ``|zeta| = quantile``, with `points` further points on each side."""
        found = {float(self.psi[k]): (0.0, self.best)}
        ends = [self._end(k, side, quantile, found, points) for side in (-1.0, 1.0)]
        value = np.array([at for at in sorted(found) if abs(found[at][0]) < BEYOND * quantile])
        zeta, likelihood = (np.array([found[float(c)][part] for c in value]) for part in (0, 1))
        return Curve(value, zeta, likelihood, *ends)

    def _end(self, k: int, side: float, quantile: float, found: dict[float, tuple[float, float]], points: int) -> float:
        """Where zeta reaches the quantile on one side; infinite where it never does."""
        centre, error = float(self.psi[k]), float(np.sqrt(self.covariance[k, k]))
        if k >= self.psi.size - self.model.n_theta:
            error = min(error, WIDEST)
        known = bool(self.active[k])
        step = quantile * error if known else FIRST_STEP
        inner, outer = centre, None  # the end lies between them
        at, psi = centre + side * step, self._predicted(k, centre + side * step, self.psi)
        end = side * np.inf
        for _ in range(MAX_STEPS):
            solved = self._maximise(k, at, psi)
            if solved is None:
                outer, at = at, 0.5 * (inner + at)
                psi = self._predicted(k, at, psi)
                if abs(outer - inner) < 1e-6 * max(error, 1e-3):
                    break
                continue
            psi, likelihood, slope = solved
            zeta = self._zeta(likelihood)
            found[at] = (side * zeta, likelihood)
            if abs(zeta - quantile) < ROOT_TOLERANCE:
                end = at
                break
            if zeta < quantile and (self._is_over(k, psi, slope, step) if known else abs(at - centre) > FARTHEST):
                break
            inner, outer = (at, outer) if zeta < quantile else (inner, at)
            at = self._next(at, side, zeta, slope, quantile, (inner, outer), LONGEST * step)
            psi = self._predicted(k, at, psi)
            if not known and outer is None:
                step *= 2.0
        if points:
            self._fill(k, side, end if np.isfinite(end) else at, points, found)
        return end

    def _next(
        self,
        at: float,
        side: float,
        zeta: float,
        slope: float,
        quantile: float,
        bracket: tuple[float, float | None],
        longest: float,
    ) -> float:
        """Newton's step for zeta = quantile, ``zeta' = -l'/zeta``, kept inside the bracket."""
        rate = -side * slope / zeta if zeta > 0 else 0.0
        move = (quantile - zeta) / rate if rate > 0 else np.inf
        target = at + side * float(np.clip(move, -longest, longest))
        inner, outer = bracket
        if outer is None:
            return target
        return target if min(inner, outer) < target < max(inner, outer) else 0.5 * (inner + outer)

    def _zeta(self, likelihood: float) -> float:
        if likelihood > self.best + RISE:
            raise ModelError(
                f"The fit is not at its maximum: its log-likelihood is {self.best:.6g}, and with one parameter held "
                f"elsewhere it is {likelihood:.6g}. Fit again with start= near there, or with a smaller tol."
            )
        return float(np.sqrt(max(2.0 * (self.best - likelihood), 0.0)))

    def _is_over(self, k: int, psi: np.ndarray, slope: float, step: float) -> bool:
        """Whether the likelihood does not fall any more on this side: a variance that has gone to zero."""
        return not active_parameters(self.objective, psi)[k] or abs(slope) * step < 1e-9

    def _fill(self, k: int, side: float, end: float, points: int, found: dict[float, tuple[float, float]]) -> None:
        """Evenly spaced points of the curve between the estimate and a little beyond the end, for pictures."""
        psi, centre = self.psi, float(self.psi[k])
        for share in np.arange(1, points + 1) / points * 1.1:
            at = centre + share * (end - centre)
            solved = self._maximise(k, at, self._predicted(k, at, psi))
            if solved is None:
                return
            psi, likelihood, _ = solved
            found[at] = (side * self._zeta(likelihood), likelihood)

    def _predicted(self, k: int, at: float, psi: np.ndarray) -> np.ndarray:
        """The others moved along their regression on psi[k]."""
        slope = np.where(self.active, self.covariance[:, k] / self.covariance[k, k], 0.0)
        moved = psi + slope * (at - psi[k])
        moved[k] = at
        return moved

    def _maximise(self, k: int, at: float, psi: np.ndarray) -> tuple[np.ndarray, float, float] | None:
        """The maximum with psi[k] held: psi, value and dl/dpsi[k]; None where there is none."""
        free = self.active.copy()
        free[k] = False
        psi = psi.copy()
        psi[k] = at
        if self.objective.evaluate(psi) is None:
            psi = self.psi.copy()
            psi[k] = at
            if self.objective.evaluate(psi) is None:
                return None
        if free.any():
            psi = self._search(k, psi, free)
        try:
            return psi, self.objective.value(psi), float(self.objective.gradient(psi)[k])
        except ModeError:
            return None

    def _search(self, k: int, psi: np.ndarray, free: np.ndarray) -> np.ndarray:
        """BFGS over the free parameters in the metric of their covariance given psi[k]."""
        column = self.covariance[free, k]
        conditional = self.covariance[np.ix_(free, free)] - np.outer(column, column) / self.covariance[k, k]
        values, vectors = np.linalg.eigh(conditional)
        root = np.zeros((psi.size, values.size))
        root[free] = vectors * np.sqrt(np.maximum(values, 1e-8 * max(float(values.max()), 1e-300)))
        found = optimize.minimize(  # type: ignore[call-overload]
            lambda z: self.objective.negative(psi + root @ z, root),
            np.zeros(values.size),
            jac=True,
            method="BFGS",
            options={"gtol": GRADIENT, "maxiter": 100},
        )
        return psi + root @ found.x
