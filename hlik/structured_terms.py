"""A term of h that does not split into levels: normal random effects with a precision matrix."""

from __future__ import annotations

import numpy as np

from hlik.precision import LOG_2PI, Precision
from hlik.terms import Cases


class StructuredTerm:
    """``log f(v) = (log|Q| - q log 2 pi - v'Qv) / 2``; weights are the values of Q on its pattern.

    It has the methods of `hlik.terms.RandomTerm`, with the weight and `kappa` of shape (nnz,): the lower triangle by
    columns.
    """

    mode = 0.0

    def __init__(self, precision: Precision):
        self.precision = precision

    def value(self, v: np.ndarray, theta: np.ndarray) -> float:
        """Log density, -inf out of range."""
        point = self.precision.at(theta)
        if point is None:
            return -np.inf
        return 0.5 * (point.logdet - v.size * LOG_2PI - float(v @ self.precision.multiply(point.values, v)))

    def local(self, v: np.ndarray, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray] | None:
        """Log density, its derivative and Q; None out of range."""
        point = self.precision.at(theta)
        if point is None:
            return None
        product = self.precision.multiply(point.values, v)
        return 0.5 * (point.logdet - v.size * LOG_2PI - float(v @ product)), -product, point.values

    def cases(self, v: np.ndarray, theta: np.ndarray, order: int = 0, with_theta: bool = False) -> Cases:
        """At m effects, `v` (q, m): each level has its share of the quadratic form and the q-th part of the rest.

        The weights are the diagonal of Q.
        """
        q, nothing = v.shape[0], np.zeros((0, *v.shape))
        point = self.precision.at(theta)
        if point is None:
            return Cases(np.full(v.shape, np.nan), nothing, nothing, nothing, ())
        product = self.precision.multiply(point.values, v)
        value = 0.5 * (point.logdet / q - LOG_2PI - v * product)
        diagonal = point.values[self.precision.pattern.diagonal_positions()]
        score = -product[None] if order > 0 else nothing
        weight = np.broadcast_to(diagonal[:, None], v.shape)[None] if order > 1 else nothing
        if not with_theta:
            return Cases(value, score, weight, nothing, ())
        jacobian = self.precision.coefficients.jacobian(theta)
        by_logdet = self.precision.logdet_slope(point, theta)
        slopes, parts = [], []
        for k in np.flatnonzero(np.any(jacobian != 0, axis=0)):
            moved = self.precision.multiply(self.precision.matrices @ jacobian[:, k], v)
            parts.append(0.5 * (by_logdet[k] / q - v * moved))
            slopes.append(np.eye(1, theta.size, int(k)))
        return Cases(value, score, weight, np.reshape(parts, (-1, *v.shape)), tuple(slopes))

    def curvature_slopes(self, v: np.ndarray, theta: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of ``-1/2 tr(K Q)`` with respect to v (zero) and theta; `kappa` is K on the pattern."""
        return np.zeros(v.size), self.precision.through(-0.5 * self.precision.doubled(kappa), theta)

    def theta_score(self, v: np.ndarray, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """``d/dtheta [log f + c' dlog f/dv]``: ``(d log|Q| - v'dQ v) / 2 - c'dQ v``."""
        point = self.precision.at(theta)
        assert point is not None
        by_values = self.precision.products(-0.5 * v - c, v)
        return 0.5 * self.precision.logdet_slope(point, theta) + self.precision.through(by_values, theta)
