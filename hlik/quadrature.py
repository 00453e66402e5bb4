r"""Gauss-Hermite grids for independent blocks of random effects (`hlik.blocks`).

A block of d effects needs a d-dimensional integral, which the product of d Gauss-Hermite rules gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special as sc


@dataclass(frozen=True, eq=False)
class Grid:
    """Product rules for blocks of every size up to d, side by side.

    Attributes
    ----------
    x
        Nodes by size of block, shape (d + 1, K, d), zero where the rule of that size has fewer nodes or coordinates.
    log_weight
        ``log w + x'x``, shape (d + 1, K); -inf where there is no node. Size 0 has one node.
    """

    x: np.ndarray
    log_weight: np.ndarray

    @classmethod
    def product(cls, points: int, sizes: np.ndarray) -> Grid:
        """Rules of `points` nodes a coordinate for the sizes that occur."""
        largest = int(sizes.max(initial=0))
        nodes, weights = sc.roots_hermite(points)
        x = np.zeros((largest + 1, points**largest, largest))
        log_weight = np.full((largest + 1, points**largest), -np.inf)
        log_weight[0, 0] = 0.0
        for size in np.unique(sizes):
            place = np.indices((points,) * size).reshape(size, -1).T
            own = nodes[place]
            x[size, : len(own), :size] = own
            log_weight[size, : len(own)] = np.log(weights)[place].sum(axis=1) + (own**2).sum(axis=1)
        return cls(x, log_weight)
