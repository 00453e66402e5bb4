"""What all E-step samplers share: draws, their Monte Carlo errors, and the interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import arviz as az
import numpy as np


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of v given y at one (beta, theta), equally weighted.

    Attributes
    ----------
    v
        Shape (chains, draws, q).
    stats
        What the sampler says of them: arrays of shape (chains, draws).
    step_size
        Step size of every chain at the end, shape (chains,), where there is one.
    independent
        Chains are independent randomisations of a quasi-random rule: errors come from the spread of their means.
    """

    v: np.ndarray
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    step_size: np.ndarray | None = None
    independent: bool = False

    @property
    def columns(self) -> np.ndarray:
        """All draws side by side, chain after chain, shape (q, chains * draws)."""
        return self.v.reshape(-1, self.v.shape[2]).T

    @property
    def count(self) -> int:
        """Number of draws in all chains."""
        return self.v.shape[0] * self.v.shape[1]

    @property
    def divergences(self) -> int:
        """Divergent transitions; 0 for samplers without."""
        return int(self.stats["diverging"].sum()) if "diverging" in self.stats else 0

    def mean_covariance(self, values: np.ndarray) -> np.ndarray:
        """Monte Carlo covariance of the means of `values` (k, chains * draws), shape (k, k).

        For Markov chains ``D C D`` with C the covariance over draws and ``D = diag(1 / sqrt(ESS))`` (ESS of the mean:
        Vehtari et al. 2021); for independent randomisations the covariance of the chains' means over their number.
        """
        chains, draws, _ = self.v.shape
        if self.independent:
            means = values.reshape(-1, chains, draws).mean(axis=2)
            return np.atleast_2d(np.cov(means)) / chains
        scale = 1.0 / np.sqrt(self.effective_sizes(values))
        return np.atleast_2d(np.cov(values)) * scale * scale[:, None]

    def effective_sizes(self, values: np.ndarray) -> np.ndarray:
        """Effective sample size for the mean of every row of `values` (k, chains * draws), shape (k,)."""
        chains, draws, _ = self.v.shape
        shaped = {str(k): row.reshape(chains, draws) for k, row in enumerate(values)}
        found = az.ess(az.convert_to_dataset(shaped), method="mean")
        size = np.array([float(found[name]) for name in shaped])
        return np.where(np.isfinite(size), size, float(chains * draws))


class Sampler(Protocol):
    """Draws of v given y; what helps the next E-step (positions, step sizes, metric) is kept between calls.

    Attributes
    ----------
    compilations
        How often something was compiled: one per fit at the most.
    """

    compilations: int

    def draw(self, beta: np.ndarray, theta: np.ndarray, draws: int, rng: np.random.Generator) -> Draws:
        """`draws` draws in all chains together (rounded up to a multiple of their number)."""

    def restore(self, position: np.ndarray, step_size: np.ndarray | None) -> None:
        """Go on from these positions, shape (chains, q), on the scale of v."""
