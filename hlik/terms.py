"""The terms of h with closed-form derivatives: a response of a known family, a random effect of a known family.

A term of another kind (compiled from a graph) has the same methods; see `ResponseTerm`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from hlik.family_base import times, weight_scale
from hlik.model import RandomEffect, Response
from hlik.row_chunks import ARRAYS, of_rows, row_chunks


class Local(NamedTuple):
    """A response's part of h at one eta: value, score (K, n), weights (K + K (K - 1)/2, n): diagonal, then pairs."""

    value: float
    score: np.ndarray
    weight: np.ndarray


class Cases(NamedTuple):
    """A term's part of h at m predictors at once, case by case.

    `value` (n, m), `score` (K, n, m), `weight` (K + pairs, n, m), and `by_dispersion` (T, n, m), the derivatives by
    the term's own dispersion coordinates, whose derivatives by theta are `dispersion_slopes` (T arrays of shape (n, r)
    or (1, r)).
    """

    value: np.ndarray
    score: np.ndarray
    weight: np.ndarray
    by_dispersion: np.ndarray
    dispersion_slopes: tuple[np.ndarray, ...]


class ResponseTerm(Protocol):
    """One response with K predictors of n rows each, which stand one after the other at `rows` of the stacked eta."""

    rows: slice
    n: int
    n_predictors: int

    def value(self, eta: np.ndarray, theta: np.ndarray) -> float:
        """Log density, -inf or NaN out of range."""

    def local(self, eta: np.ndarray, theta: np.ndarray) -> Local | None:
        """Log density, score and observed weights; None out of range."""

    def cases(self, eta: np.ndarray, theta: np.ndarray, order: int = 0, with_theta: bool = False) -> Cases:
        """Log densities at m predictors, `eta` (N, m), with score (order 1), observed weights (2); NaN out of range."""

    def curvature_slopes(self, eta: np.ndarray, theta: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of ``-1/2 sum kappa W`` with respect to eta, (K, n), and theta, (r,)."""

    def theta_score(self, eta: np.ndarray, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """``d/dtheta [l + c' dl/deta]``, shape (r,); `c` is stacked like eta."""


class FamilyTerm:
    """A response of a known family with one predictor."""

    n_predictors = 1

    def __init__(self, response: Response):
        assert response.family is not None
        assert response.link is not None
        self.response = response
        self.family, self.link = response.family, response.link
        self.rows, self.n = response.rows, response.size
        self._constant: float | None = None

    def _phi(self, theta: np.ndarray) -> np.ndarray:
        return np.ones(1) if self.response.dispersion is None else self.response.dispersion.value(theta)

    def _valid_phi(self, eta: np.ndarray, theta: np.ndarray) -> np.ndarray | None:
        """The response's phi; None where it, or the predictor, is out of range."""
        phi = self._phi(theta)
        good = np.all(phi > 0) and np.all(np.isfinite(phi)) and np.all(self.link.valid_eta(eta[self.rows]))
        return phi if good else None

    def value(self, eta: np.ndarray, theta: np.ndarray) -> float:
        """Log density, -inf out of range."""
        phi = self._valid_phi(eta, theta)
        return -np.inf if phi is None else self._saturated(phi) + self._add_up(eta, phi, 0, [])

    def local(self, eta: np.ndarray, theta: np.ndarray) -> Local | None:
        """Log density, score and observed weights."""
        phi = self._valid_phi(eta, theta)
        if phi is None:
            return None
        score, curvature = np.empty((1, self.n)), np.empty((1, self.n))
        value = self._saturated(phi) + self._add_up(eta, phi, 2, [score[0], curvature[0]])
        return Local(value, score, np.negative(curvature, out=curvature))

    def _add_up(self, eta: np.ndarray, phi: np.ndarray, order: int, derivatives: list[np.ndarray]) -> float:
        """Sum of the log densities less their saturated part; their derivatives go into the arrays given.

        Chunks of rows, so that what is computed on the way stays in the processor's cache.
        """
        r, own, total = self.response, eta[self.rows], 0.0
        for chunk in row_chunks(self.n, ARRAYS):
            scale = weight_scale(of_rows(phi, chunk), of_rows(r.weight, chunk))
            found = self.family.half_deviance_derivatives(r.y[chunk], own[chunk], self.link, order)
            total += float(times(found[0], scale).sum())
            for target, term in zip(derivatives, found[1:], strict=True):
                target[chunk] = times(term, scale)
        return total

    def _saturated(self, phi: np.ndarray) -> float:
        """Sum of the log densities at eta = y, found once where no dispersion is estimated."""
        if self.response.dispersion is not None:
            return self._saturated_at(phi)
        if self._constant is None:
            self._constant = self._saturated_at(phi)
        return self._constant

    def _saturated_at(self, phi: np.ndarray) -> float:
        r = self.response
        densities = self.family.saturated_log_density(r.y, phi, r.weight)
        return float(np.sum(np.broadcast_to(densities, (self.n,))))

    def cases(self, eta: np.ndarray, theta: np.ndarray, order: int = 0, with_theta: bool = False) -> Cases:
        """Log densities and derivatives at m predictors at once."""
        r, own = self.response, eta[self.rows]
        phi, y, weight = _column(self._phi(theta)), _column(r.y), _column(r.weight)
        good = self.link.valid_eta(own)
        if not np.all(good):
            own = np.where(good, own, np.nan)
        derivatives = self.family.log_density_derivatives(y, own, self.link, phi, weight, order)
        found = [np.broadcast_to(part, own.shape) for part in derivatives]
        nothing = np.zeros((0, *own.shape))
        score = found[1][None] if order > 0 else nothing
        curvature = -found[2][None] if order > 1 else nothing
        if not with_theta or r.dispersion is None:
            return Cases(found[0], score, curvature, nothing, ())
        by_phi = self.family.dispersion_derivatives(y, own, self.link, phi, weight).l_phi
        slope = r.dispersion.jacobian(theta) / self._phi(theta)[:, None]
        return Cases(found[0], score, curvature, np.broadcast_to(by_phi, own.shape)[None], (slope,))

    def curvature_slopes(self, eta: np.ndarray, theta: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of ``-1/2 sum kappa W``: ``kappa l''' / 2``, and through log phi."""
        r, own, phi = self.response, eta[self.rows], self._phi(theta)
        slope = np.empty(self.n)
        for chunk in row_chunks(self.n, ARRAYS):
            scale = weight_scale(of_rows(phi, chunk), of_rows(r.weight, chunk))
            third = self.family.kernel_derivatives(r.y[chunk], own[chunk], self.link, 3)[2]
            slope[chunk] = 0.5 * kappa[0][chunk] * times(third, scale)
        if self.response.dispersion is None:
            return slope[None, :], np.zeros(theta.size)
        by_phi = 0.5 * kappa[0] * self._dispersion_derivatives(eta, theta).l_etaeta_phi
        return slope[None, :], self._through_phi(by_phi, theta)

    def theta_score(self, eta: np.ndarray, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """``d/dtheta [l + c' dl/deta]`` through log phi."""
        if self.response.dispersion is None:
            return np.zeros(theta.size)
        found = self._dispersion_derivatives(eta, theta)
        return self._through_phi(found.l_phi + c[self.rows] * found.l_eta_phi, theta)

    def _dispersion_derivatives(self, eta: np.ndarray, theta: np.ndarray):  # type: ignore[no-untyped-def]
        r = self.response
        return self.family.dispersion_derivatives(r.y, eta[self.rows], self.link, self._phi(theta), r.weight)

    def _through_phi(self, by_log_phi: np.ndarray, theta: np.ndarray) -> np.ndarray:
        assert self.response.dispersion is not None
        return _chain(by_log_phi, self._phi(theta), self.response.dispersion.jacobian(theta))


class RandomTerm:
    """A random effect of a known family, ``log f(v) = peak(lam) - deviance(v) / (2 lam)``."""

    def __init__(self, effect: RandomEffect):
        assert effect.family is not None
        assert effect.dispersion is not None
        self.family, self.dispersion = effect.family, effect.dispersion
        self.mode = effect.family.mode

    def value(self, v: np.ndarray, theta: np.ndarray) -> float:
        """Log density, -inf out of range."""
        lam = self.dispersion.value(theta)
        if not (np.all(lam > 0) and np.all(np.isfinite(lam))):
            return -np.inf
        return float(np.sum(self.family.log_density(v, lam)))

    def local(self, v: np.ndarray, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray] | None:
        """Log density, its derivative and its negative second derivative in v; None out of range."""
        lam = self.dispersion.value(theta)
        if not (np.all(lam > 0) and np.all(np.isfinite(lam)) and np.all(self.family.valid(v))):
            return None
        weight, score = self.family.working(v)
        return float(np.sum(self.family.log_density(v, lam))), score / lam, weight / lam

    def cases(self, v: np.ndarray, theta: np.ndarray, order: int = 0, with_theta: bool = False) -> Cases:
        """As `ResponseTerm.cases`, at m effects, `v` (q, m): the effects are the predictor."""
        lam = _column(self.dispersion.value(theta))
        value = self.family.log_density(v, lam)
        nothing = np.zeros((0, *v.shape))
        kernel = self.family.kernel_derivatives(v, max(order, 1))
        score = np.broadcast_to(kernel[1] / lam, v.shape)[None] if order > 0 else nothing
        curvature = np.broadcast_to(-kernel[2] / lam, v.shape)[None] if order > 1 else nothing
        if not with_theta:
            return Cases(value, score, curvature, nothing, ())
        by_log_lam = self.family.peak_derivatives(lam)[1] + 0.5 * self.family.deviance(v) / lam
        slope = self.dispersion.jacobian(theta) / lam.reshape(-1, 1)
        return Cases(value, score, curvature, np.broadcast_to(by_log_lam, v.shape)[None], (slope,))

    def curvature_slopes(self, v: np.ndarray, theta: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of ``-1/2 sum kappa D`` with respect to v and theta."""
        lam = self.dispersion.value(theta)
        derivatives = self.family.kernel_derivatives(v, 3)
        by_log_lam = -0.5 * kappa * derivatives[2] / lam
        return 0.5 * kappa * derivatives[3] / lam, _chain(by_log_lam, lam, self.dispersion.jacobian(theta))

    def theta_score(self, v: np.ndarray, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """``d/dtheta [log f + c' dlog f/dv]`` through log lam."""
        lam = self.dispersion.value(theta)
        _, peak_slope, _ = self.family.peak_derivatives(lam)
        score = self.family.kernel_derivatives(v, 1)[1]
        by_log_lam = peak_slope + 0.5 * self.family.deviance(v) / lam - c * score / lam
        return _chain(by_log_lam, lam, self.dispersion.jacobian(theta))


class FlatTerm:
    """A random effect whose density is one of the model's extra terms: nothing here."""

    mode = 0.0

    def __init__(self, size: int):
        self.size = size

    def value(self, v: np.ndarray, theta: np.ndarray) -> float:
        """Zero."""
        return 0.0

    def local(self, v: np.ndarray, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Zeros."""
        return 0.0, np.zeros(v.size), np.zeros(v.size)

    def cases(self, v: np.ndarray, theta: np.ndarray, order: int = 0, with_theta: bool = False) -> Cases:
        """Zeros."""
        nothing, zeros = np.zeros((0, *v.shape)), np.zeros((1, *v.shape))
        return Cases(zeros[0], zeros if order > 0 else nothing, zeros if order > 1 else nothing, nothing, ())

    def curvature_slopes(self, v: np.ndarray, theta: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Zeros."""
        return np.zeros(v.size), np.zeros(theta.size)

    def theta_score(self, v: np.ndarray, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Zeros."""
        return np.zeros(theta.size)


def _column(values: np.ndarray) -> np.ndarray:
    """Values by case as a column, beside draws."""
    return np.asarray(values)[:, None]


def _chain(by_log: np.ndarray, values: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """From derivatives by the logarithm of a map's values, one a row, to derivatives by theta."""
    log_slope = jacobian / values[:, None]
    return float(np.sum(by_log)) * log_slope[0] if log_slope.shape[0] == 1 else by_log @ log_slope
