r"""Blocks of random effects that nothing links with each other, and Gauss-Hermite grids for them.

The marginal likelihood is a product over the connected components of the pattern of ``Z'Z`` and of the prior
precision: two effects belong together where a row of a predictor has both, or where their density does. A component
of d effects needs a d-dimensional integral, which the product of d Gauss-Hermite rules gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy import special as sc
from scipy.sparse.csgraph import connected_components

from hlik.hlikelihood import HLikelihood


@dataclass(frozen=True, eq=False)
class Blocks:
    """Independent blocks of random effects.

    Attributes
    ----------
    size
        Effects of every block, shape (B,).
    member, position
        Block of every effect, and its place in it, shape (q,).
    """

    size: np.ndarray
    member: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, likelihood: HLikelihood) -> Blocks:
        """The connected components of rows and effects."""
        Z = likelihood.Z
        m, q = Z.shape
        if not q:
            nothing = np.zeros(0, dtype=int)
            return cls(nothing, nothing, nothing)
        links = sp.csr_array((np.ones(Z.nnz), Z.indices, Z.indptr), shape=Z.shape)
        graph: Any = sp.block_array([[None, links], [links.T, _prior_pattern(likelihood)]], format="csr")
        _, label = connected_components(graph, directed=False)
        _, member = np.unique(label[m:], return_inverse=True)
        size = np.bincount(member)
        order = np.argsort(member, kind="stable")
        position = np.empty(q, dtype=int)
        position[order] = np.arange(q) - np.repeat(np.cumsum(size) - size, size)
        return cls(size, member, position)

    @property
    def largest(self) -> int:
        """Effects of the largest block."""
        return int(self.size.max(initial=0))

    def gather(self, values: np.ndarray, fill: np.ndarray) -> np.ndarray:
        """Rows of effects as square blocks: (q, d) to (B, d, d), with `fill` (d, d) where a block is smaller."""
        blocks = np.broadcast_to(fill, (self.size.size, *fill.shape)).copy()
        inside = np.arange(fill.shape[0]) < self.size[self.member][:, None]
        blocks[self.member, self.position] = np.where(inside, values, fill[self.position])
        return blocks

    def local_design(self, Z: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
        """Z with its columns numbered inside the blocks, (M, d), and the block of every row, (M,); -1 where none."""
        coo = sp.coo_array(Z)
        row, column = coo.coords
        local = np.zeros((Z.shape[0], max(self.largest, 1)))
        np.add.at(local, (row, self.position[column]), coo.data)
        block = np.full(Z.shape[0], -1)
        block[row] = self.member[column]
        return local, block


def _prior_pattern(likelihood: HLikelihood) -> sp.csr_array:
    """Which effects have a joint density: entries of the prior precision's lower triangle, shape (q, q)."""
    lower = likelihood.prior_pattern
    if lower is None:
        return sp.csr_array(sp.eye_array(likelihood.Z.shape[1]))
    return sp.csr_array((np.ones(lower.nnz), lower.indices, lower.indptr), shape=lower.shape).T.tocsr()


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
