r"""Effects without a closed form here at the data of a prediction: new levels by quadrature of their density.

The log density of v comes from the model's graph at the estimates. Its moments are found by the trapezoidal rule in t,
with ``v = m + s sinh(t)``: densities with tails as heavy as those of a t distribution vanish exponentially in t. The
mass that the rule finds is its check. m and s are mean and standard deviation by a rule about 0 at all scales.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hlik.errors import ModelError
from hlik.inference.averages import Entries
from hlik.inference.prediction_terms import Block, Term, one_a_row

ROUGH, STEPS = 0.2, (0.1, 0.05, 0.02)  # in t: of the first rule, and of the second until it finds the mass
SMALLEST, REACH = 1e-6, 27.0  # of the first rule: scale about 0, and t up to where |v| is 3e5
TAIL = 18.0  # of the second: |v - m| up to 3e7 s
MASS = 1e-6  # by which the density may fail to integrate to one
LIGHT = 1e-6  # share of the second moment that may lie in the outermost nodes


@dataclass(frozen=True, eq=False)
class DensityTerm(Term):
    """Independent effects of any density that PyMC knows: skew-normal, mixtures, `CustomDist`."""

    _rules: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def drawn(self, theta: np.ndarray) -> np.ndarray:
        """E v."""
        v, weight = self.rule(theta)
        return np.sum(weight * v, axis=0)

    def variance(self, theta: np.ndarray, block: Block) -> np.ndarray:
        """``sum_j z_j^2 Var(v_j)``."""
        if not block.Z.nnz:
            return np.zeros(block.Z.shape[0])
        v, weight = self.rule(theta)
        mean = np.sum(weight * v, axis=0)
        parts = weight * (v - mean) ** 2
        variance = np.sum(parts, axis=0)
        if np.any(parts[:2] + parts[-2:] > LIGHT * variance):
            raise ModelError(
                f"Random effect {self.effect.name!r} ({self.effect.distribution}) has no variance at the estimates: "
                f"new levels have no standard error. Predict with se=False."
            )
        return block.Z.power(2) @ variance

    def spread(self, theta: np.ndarray, block: Block) -> tuple[np.ndarray, list[Entries]]:
        """Nodes and weights of every row's levels."""
        v, weight = self.rule(theta)
        found = [Entries(z, v.T[level], weight.T[level]) for z, level in one_a_row(block.Z)]
        return np.zeros(block.Z.shape[0]), found

    def rule(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of v and weights that sum to one for every level, shapes (nodes, levels)."""
        key = theta.tobytes()
        if key not in self._rules:
            self._rules[key] = self._computed(theta[: self.levels.layout.size])
        return self._rules[key]

    def _computed(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        L = self.known.size
        v, weight = self._sinh_rule(theta, np.zeros(L), np.full(L, SMALLEST), REACH, ROUGH)
        mean = np.sum(weight * v, axis=0) / np.sum(weight, axis=0)
        quarter = _quantiles(v, weight, (0.25, 0.75))
        spread = np.maximum(quarter[1] - quarter[0], SMALLEST * (1 + np.abs(mean)))
        for step in STEPS:
            v, weight = self._sinh_rule(theta, 0.5 * (quarter[0] + quarter[1]), spread, TAIL, step)
            mass = np.sum(weight, axis=0)
            if np.all(np.abs(mass - 1) < MASS):
                return v, weight / mass
        worst = int(np.argmax(np.abs(mass - 1)))
        raise ModelError(
            f"The density of random effect {self.effect.name!r} ({self.effect.distribution}) at the estimates "
            f"integrates to {mass[worst]:.6g} by quadrature: new levels of it are not predicted."
        )

    def _sinh_rule(
        self, theta: np.ndarray, centre: np.ndarray, scale: np.ndarray, reach: float, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nodes ``centre + scale sinh(t)`` and density times their spacing."""
        t = np.arange(-reach, reach + step / 2, step)
        v = centre + scale * np.sinh(t)[:, None]
        density = self.levels.log_density
        with np.errstate(all="ignore"):
            logs = np.array([density.value(np.concatenate([theta, row])) for row in v])
            weight = np.exp(logs) * scale * np.cosh(t)[:, None] * step
        return v, np.where(np.isfinite(weight), weight, 0.0)


def _quantiles(v: np.ndarray, weight: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Quantiles of every column, among its nodes, shape (2, levels)."""
    share = np.cumsum(weight, axis=0) / np.sum(weight, axis=0)
    at = [np.argmax(share >= level, axis=0) for level in levels]
    return np.array([v[k, np.arange(v.shape[1])] for k in at])
