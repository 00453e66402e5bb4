"""Random effects in blocks of one size that share a covariance matrix, as intercepts and slopes of the same subject.

`block_precision` makes their `hlik.precision.Precision` from the covariance matrix as a function of theta. `BlockRoot`
is for effects that the model writes by a root, ``v_g = L z_g``; `Degrees` for multivariate t densities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hlik.determinants import BlockDeterminant
from hlik.linalg import lower_pattern
from hlik.maps import ThetaMap
from hlik.precision import Precision, matrix_precision

MAX_SEPARATE = 10  # effects of a block that start with variances of their own


@dataclass(frozen=True, eq=False)
class ElementMap:
    """One element of a map."""

    inner: ThetaMap
    element: int
    size: int = 1

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Its value, shape (1,)."""
        return self.inner.value(theta)[self.element : self.element + 1]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (1, r)."""
        return self.inner.jacobian(theta)[self.element : self.element + 1]


@dataclass(frozen=True, eq=False)
class InverseMap:
    """The lower triangle by rows of the inverse of a covariance matrix that is a function of theta.

    Attributes
    ----------
    covariance
        The covariance matrix, flattened, of size k * k.
    order
        k.
    """

    covariance: ThetaMap
    order: int

    @property
    def size(self) -> int:
        """Number of values, k (k + 1) / 2."""
        return self.order * (self.order + 1) // 2

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (k (k + 1) / 2,); NaN where the covariance matrix is not positive definite."""
        inverse = self._inverse(theta)
        return np.full(self.size, np.nan) if inverse is None else inverse[np.tril_indices(self.order)]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """``-Q dSigma Q`` for every parameter, shape (k (k + 1) / 2, r)."""
        inverse = self._inverse(theta)
        if inverse is None:
            return np.full((self.size, theta.size), np.nan)
        slopes = self.covariance.jacobian(theta)
        result = np.zeros((self.size, slopes.shape[1]))
        rows = np.tril_indices(self.order)
        for k in np.flatnonzero(np.any(slopes != 0, axis=0)):
            result[:, k] = -(inverse @ slopes[:, k].reshape(self.order, self.order) @ inverse)[rows]
        return result

    def _inverse(self, theta: np.ndarray) -> np.ndarray | None:
        matrix = self.covariance.value(theta).reshape(self.order, self.order)
        if not np.all(np.isfinite(matrix)):
            return None
        try:
            root = np.linalg.inv(np.linalg.cholesky(0.5 * (matrix + matrix.T)))
        except np.linalg.LinAlgError:
            return None
        return root.T @ root


def block_precision(covariance: ThetaMap, blocks: np.ndarray, description: str) -> Precision:
    """Blocks of effects with one covariance matrix: ``blocks`` (G, k) are the numbers of the effects of every block."""
    count, size = blocks.shape
    rows, columns = np.tril_indices(size)
    first, second = blocks[:, rows].ravel(), blocks[:, columns].ravel()
    number = np.tile(np.arange(rows.size), count)
    lower = (np.maximum(first, second), np.minimum(first, second))
    pattern = lower_pattern(sp.coo_array((np.ones(number.size), lower), shape=(blocks.size,) * 2))
    order = np.lexsort(lower)
    matrices = sp.csc_array((np.ones(number.size), (np.arange(number.size), number[order])))
    coefficients, determinant = InverseMap(covariance, size), BlockDeterminant(count, size)
    if size > MAX_SEPARATE:
        return matrix_precision(pattern, matrices, coefficients, determinant, description)
    variances = tuple((ElementMap(covariance, k * (size + 1)), blocks[:, k]) for k in range(size))
    return Precision(pattern, matrices, coefficients, determinant, description, variances)


@dataclass(frozen=True, eq=False)
class BlockRoot:
    """``v_g = L z_g`` for every block g of effects.

    Attributes
    ----------
    matrix
        L as a function of theta, flattened, of size k * k.
    blocks
        Numbers of the effects of every block, shape (G, k).
    """

    matrix: ThetaMap
    blocks: np.ndarray

    def inverse(self, theta: np.ndarray) -> sp.csr_array:
        """The matrix that gives z from v, shape (q, q)."""
        count, size = self.blocks.shape
        inner = np.linalg.inv(self.matrix.value(theta).reshape(size, size))
        rows = np.repeat(self.blocks, size, axis=1).ravel()
        columns = np.tile(self.blocks, (1, size)).ravel()
        entries = (np.tile(inner.ravel(), count), (rows, columns))
        return sp.csr_array(sp.coo_array(entries, shape=(self.blocks.size,) * 2))

    def whitened(self, v: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """z for v of shape (..., q)."""
        return (self.inverse(theta) @ v.T).T

    def slopes(self, z: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Derivatives of z by theta with v held fixed, shape (q, r): ``-L^-1 dL z``."""
        size = self.blocks.shape[1]
        inner = np.linalg.inv(self.matrix.value(theta).reshape(size, size))
        jacobian = self.matrix.jacobian(theta).reshape(size, size, -1)
        result = np.zeros((z.size, jacobian.shape[2]))
        result[self.blocks] = -np.einsum("ij,jkr,gk->gir", inner, jacobian, z[self.blocks])
        return result


@dataclass(frozen=True, eq=False)
class Degrees:
    """Degrees of freedom of multivariate t densities.

    Attributes
    ----------
    map
        nu as a function of theta, of size 1.
    blocks
        Numbers of the effects of every density, shape (G, k).
    """

    map: ThetaMap
    blocks: np.ndarray
