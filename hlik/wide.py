r"""More random effects than observations: ``Z u`` with q columns as r <= n scores.

Let ``u ~ N(0, lam W)`` with W diagonal and known, and ``Z W^1/2 = U diag(d) V'`` of rank r, which the n x n matrix
``K = Z W Z' = U diag(d^2) U'`` gives. Then ``Z u = U diag(d) s`` with scores ``s = V' W^-1/2 u ~ N(0, lam I_r)``: the
same model with r effects, whatever the response. Given the scores' posterior mean and covariance C,

* ``E u = W^1/2 V s_hat = W Z' (U/d) s_hat``,
* ``Var(u_j) = lam w_j (1 - r_j)``, with ``r_j = |V_j|^2 - V_j C V_j' / lam`` what the data say of effect j,
* the leverage of effect j, as a row of the augmented model, is ``1 - r_j``.

Columns are read in blocks, twice in a fit: once for K, once for the effects. Bytes are multiplied in single precision
where that is exact.

Shen, X., Alam, M., Fikse, F. & Ronnegard, L. (2013). A novel generalized ridge regression method for quantitative
genetics. Genetics 193, 1255-1268. VanRaden, P. M. (2008). Efficient methods to compute genomic predictions. J. Dairy
Science 91, 4414-4423.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from scipy import linalg

BLOCK = 4_000_000  # numbers of Z that are looked at at a time: 32 MB as float64
EXACT_SINGLE = 2**24  # whole numbers up to this are exact in single precision
EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class WideTerm:
    """``Z u`` with ``u ~ N(0, lam W)`` and more columns than rows.

    Attributes
    ----------
    parts
        Matrices of which Z is made, one below the other, with q columns each; in memory or on disk, of any numbers.
    weight
        Diagonal of W, shape (q,); None for the identity.
    """

    parts: tuple[np.ndarray, ...]
    weight: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        """Rows n of Z."""
        return sum(part.shape[0] for part in self.parts)

    @property
    def size(self) -> int:
        """Number of effects q."""
        return self.parts[0].shape[1]

    @property
    def rank(self) -> int:
        """Number of scores r."""
        return self._spectrum[0].size

    @cached_property
    def relationship(self) -> np.ndarray:
        """K = Z W Z', shape (n, n)."""
        K = np.zeros((self.n_rows, self.n_rows))
        for columns in self._columns():
            block = self._block(columns, single=self.weight is None)
            if self.weight is not None:
                block *= np.sqrt(self.weight[columns])
            K += block @ block.T
        return K

    @cached_property
    def _spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Singular values d, shape (r,), and U, shape (n, r)."""
        values, vectors = linalg.eigh(self.relationship)
        kept = values > values[-1] * EPS * 8 * self.n_rows
        return np.sqrt(values[kept]), vectors[:, kept]

    @property
    def design(self) -> np.ndarray:
        """``U diag(d)``, shape (n, r): the columns of the scores in the linear predictor."""
        d, U = self._spectrum
        return U * d

    @property
    def basis(self) -> np.ndarray:
        """``U / d``, shape (n, r): effects are ``W Z' basis s``, scores are ``basis' Z u``."""
        d, U = self._spectrum
        return U / d

    def scores(self, u: np.ndarray) -> np.ndarray:
        """Scores of effects, shape (r,); draws may stand in front, (..., q) to (..., r)."""
        product = np.zeros((*u.shape[:-1], self.n_rows))
        for columns in self._columns():
            product += u[..., columns] @ self._block(columns).T
        return product @ self.basis

    def effects(self, scores: np.ndarray) -> np.ndarray:
        """Expected effects of scores, shape (q,); draws may stand in front, (..., r) to (..., q)."""
        along = scores @ self.basis.T
        u = np.empty((*scores.shape[:-1], self.size))
        for columns in self._columns():
            u[..., columns] = along @ self._block(columns)
        return u if self.weight is None else u * self.weight

    def known_share(self, covariance: np.ndarray, lam: float) -> np.ndarray:
        """r_j, shape (q,): how far the data reduce the variance of every effect; one less its leverage."""
        r = self.rank
        middle = self.basis @ (np.eye(r) - covariance / lam) @ self.basis.T
        share = np.empty(self.size)
        for columns in self._columns():
            block = self._block(columns)
            share[columns] = np.einsum("ij,ij->j", block, middle @ block)
        return share if self.weight is None else share * self.weight

    def variance(self, share: np.ndarray, lam: float) -> np.ndarray:
        """Prediction-error variance of every effect, shape (q,), from `known_share`."""
        found = lam * np.maximum(1.0 - share, 0.0)
        return found if self.weight is None else found * self.weight

    def project(self, rows: sp.csr_array) -> np.ndarray:
        """``R W Z' (U/d)``, shape (m, r): sparse rows (m, q) on effects as rows on scores."""
        used = np.unique(rows.indices)
        weighted = rows[:, used]
        if self.weight is not None:
            weighted = weighted * self.weight[used]
        product = np.zeros((rows.shape[0], self.n_rows))
        for columns in self._columns(used.size):
            product += weighted[:, columns] @ self._block(used[columns]).T
        return product @ self.basis

    def unseen_variance(self, rows: sp.csr_array, projected: np.ndarray) -> np.ndarray:
        """Variance of ``R u`` given the scores, in units of lam, shape (m,)."""
        squared = rows * rows
        prior = np.asarray(squared.sum(axis=1) if self.weight is None else squared @ self.weight).ravel()
        left = prior - np.sum(projected**2, axis=1)
        return np.where(left > 1e-12 * prior, left, 0.0)

    def sample_unseen(self, lam: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws of u's part that no score tells, for every lam, shape (draws, q)."""
        root = np.ones(self.size) if self.weight is None else np.sqrt(self.weight)
        e = rng.standard_normal((lam.size, self.size)) * root * np.sqrt(lam)[:, None]
        return e - self.effects(self.scores(e))

    def _columns(self, count: int | None = None) -> Iterator[slice]:
        step, count = max(1, BLOCK // self.n_rows), self.size if count is None else count
        return (slice(k, min(k + step, count)) for k in range(0, count, step))

    def _block(self, columns: slice | np.ndarray, single: bool = False) -> np.ndarray:
        """Some columns of Z as float64; or as float32 where their products' sums are exact in it."""
        blocks = [np.asarray(part[:, columns]) for part in self.parts]
        block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if single and block.dtype.kind in "iub" and block.dtype.itemsize == 1:
            largest = max(abs(int(block.max(initial=0))), abs(int(block.min(initial=0))))
            if largest**2 * block.shape[1] <= EXACT_SINGLE:
                return block.astype(np.float32)
        return np.array(block, dtype=np.float64)
