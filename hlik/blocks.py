"""Blocks of random effects that nothing links with each other: the marginal likelihood is a product over them.

Two effects belong together where a row of a predictor (or an observation with several predictors) has both, or where
their density does not split: the blocks are the connected components of the pattern of ``Z'WZ + D``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from hlik.hlikelihood import HLikelihood


@dataclass(frozen=True, eq=False)
class Blocks:
    """Independent blocks of random effects, numbered by their first effect.

    Attributes
    ----------
    member
        Block of every effect, shape (q,).
    case_member
        Block of every case of `hlik.batch.Batch`, shape (cases,). Cases without random effects are given to block
        0: they change its density by a factor that does not depend on the effects.
    size
        Effects of every block, shape (B,).
    position
        Place of every effect in its block, shape (q,).
    """

    member: np.ndarray
    case_member: np.ndarray
    size: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, likelihood: HLikelihood) -> Blocks:
        """The blocks of a model."""
        rows, q = likelihood.Z.shape
        label, n_blocks = _components(likelihood), 0
        if q:
            label = _by_first(label)
            n_blocks = int(label[:q].max()) + 1
        member, row_member = label[:q], label[q : q + rows]
        return cls._numbered(member, _case_members(likelihood, np.where(row_member < n_blocks, row_member, -1)))

    @classmethod
    def single(cls, likelihood: HLikelihood) -> Blocks:
        """All effects in one block, whether they are linked or not."""
        cases = sum(term.n for term in likelihood.terms)
        return cls._numbered(np.zeros(likelihood.Z.shape[1], dtype=int), np.zeros(cases, dtype=int))

    @classmethod
    def _numbered(cls, member: np.ndarray, case_member: np.ndarray) -> Blocks:
        size = np.bincount(member)
        order = np.argsort(member, kind="stable")
        position = np.empty(member.size, dtype=int)
        position[order] = np.arange(member.size) - np.repeat(np.cumsum(size) - size, size)
        return cls(member, case_member, size, position)

    @property
    def count(self) -> int:
        """Number of blocks B."""
        return self.size.size

    @property
    def largest(self) -> int:
        """Effects of the largest block."""
        return int(self.size.max(initial=0))

    def by_size(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Blocks of the same size together: their numbers (b,), and their effects (b, size)."""
        order = np.argsort(self.member, kind="stable")
        first = np.cumsum(self.size) - self.size
        found = []
        for size in np.unique(self.size):
            numbers = np.flatnonzero(self.size == size)
            found.append((numbers, order[first[numbers][:, None] + np.arange(size)]))
        return found

    def level_sums(self) -> sp.csr_array:
        """The 0-1 matrix (B, q) that sums over the effects of every block."""
        return _indicator(self.member, self.count)

    def case_sums(self) -> sp.csr_array:
        """The 0-1 matrix (B, cases) that sums over the cases of every block."""
        return _indicator(self.case_member, self.count)

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


def _components(likelihood: HLikelihood) -> np.ndarray:
    """Labels of the connected components of effects and rows, effects first, shape (q + rows,)."""
    Z = likelihood.Z
    links = sp.csr_array((np.ones(Z.nnz, dtype=np.int8), Z.indices, Z.indptr), shape=Z.shape)
    graph = sp.block_array([[prior_pattern(likelihood), links.T], [links, None]], format="csr")
    if not sum(Z.shape):
        return np.zeros(0, dtype=int)
    return connected_components(graph, directed=False)[1]  # type: ignore[arg-type]


def prior_pattern(likelihood: HLikelihood) -> sp.csr_array:
    """Which effects have a joint density: the entries of the prior precision, shape (q, q)."""
    q = likelihood.Z.shape[1]
    found = getattr(likelihood, "prior_pattern", None)
    if found is None:
        return sp.csr_array(sp.eye_array(q, dtype=np.int8))
    pattern = sp.csr_array(found)
    return sp.csr_array((np.ones(pattern.nnz, dtype=np.int8), pattern.indices, pattern.indptr), shape=(q, q))


def _by_first(label: np.ndarray) -> np.ndarray:
    """Labels renumbered in the order in which they first occur."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=int)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[inverse]


def _case_members(likelihood: HLikelihood, row_member: np.ndarray) -> np.ndarray:
    """Block of every case from the blocks of its predictors' rows (-1 where a row has no effect)."""
    parts = [np.zeros(0, dtype=int)]
    for term in likelihood.terms:
        own = row_member[term.rows].reshape(term.n_predictors, term.n)
        parts.append(own.max(axis=0, initial=0))  # rows of one case are of one block or of none
    return np.concatenate(parts)


def _indicator(member: np.ndarray, count: int) -> sp.csr_array:
    n = member.size
    return sp.csr_array(sp.coo_array((np.ones(n), (member, np.arange(n))), shape=(count, n)))
