"""Smooth functions of the dispersion parameters: variances, shapes, natural-scale values and their derivatives.

A graph states, say, ``sigma = exp(Xd @ g)`` or ``lam = s2 * h2 / (1 - h2)``. Estimators see it as a `ThetaMap`:
``value(theta)``, shape (m,), and ``jacobian(theta)``, shape (m, r), with `theta` the unconstrained vector, shape (r,).
``m`` is 1 where all observations (or levels) share the value. Known links are closed form (`LinkMap`);
other graphs are read from the graph (`hlik.graph.graph_map.GraphMap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from hlik.links import Link


@runtime_checkable
class ThetaMap(Protocol):
    """A smooth function of the unconstrained dispersion parameters."""

    @property
    def size(self) -> int:
        """Number of values m."""

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (m, r)."""


@dataclass(frozen=True, eq=False)
class ConstantMap:
    """Known values that no parameter moves."""

    values: np.ndarray
    n_theta: int

    @property
    def size(self) -> int:
        """Number of values m."""
        return self.values.size

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return self.values

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Zeros, shape (m, r)."""
        return np.zeros((self.values.size, self.n_theta))


@dataclass(frozen=True, eq=False)
class LinkMap:
    """``g(value) = matrix @ theta + offset`` with a known link g, as in a generalised linear model."""

    matrix: np.ndarray
    offset: np.ndarray
    link: Link

    @property
    def size(self) -> int:
        """Number of values m."""
        return self.offset.size

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return self.link.inverse(self.matrix @ theta + self.offset)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (m, r)."""
        _, slope = self.link.inverse_derivatives(self.matrix @ theta + self.offset, 1)
        return slope[:, None] * self.matrix


@dataclass(frozen=True, eq=False)
class RepeatedMap:
    """A map of one value as one of `size` equal values."""

    inner: ThetaMap
    size: int

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return np.repeat(self.inner.value(theta), self.size)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (m, r)."""
        return np.repeat(self.inner.jacobian(theta), self.size, axis=0)
