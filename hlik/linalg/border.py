"""The small dense end of a bordered system: the Schur complement of the columns of X."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .errors import NotPositiveDefinite
from .patterns import Float, check_finite

EPS = float(np.finfo(np.float64).eps)


def border_threshold(n_rows: int) -> float:
    """Part of the diagonal of X'WX below which a pivot of S counts as zero.

    X'WX is a sum over n rows, whose rounding error grows about as sqrt(n); what is left below it is noise.
    Columns of X that depend on each other, or on columns of Z without a prior, leave such a pivot.
    """
    return max(1e-13, 8.0 * EPS * float(np.sqrt(n_rows)))


@dataclass(frozen=True, eq=False)
class BorderFactor:
    """S^-1 = root root', root (p, p) upper triangular."""

    root: Float
    logdet: float
    pivot_ratio: float

    @classmethod
    def build(cls, S: Float, scale: Float, threshold: float) -> "BorderFactor":
        """Factorise S = LL' column by column, so that the first column that depends on earlier ones is the one named.

        Parameters
        ----------
        S : array, shape (p, p)
            Only its lower triangle is read.
        scale : array, shape (p,)
            Diagonal before Z was eliminated: what the pivots are compared with.
        threshold : float
            Pivots below this part of ``scale`` count as zero.
        """
        lower = np.tril(S)
        smallest = 1.0
        for j in range(len(S)):
            pivot = lower[j, j] - lower[j, :j] @ lower[j, :j]
            ratio = float(pivot / scale[j]) if scale[j] > 0.0 else 0.0
            if not ratio > threshold:
                raise NotPositiveDefinite(("x", j), ratio)
            smallest = min(smallest, ratio)
            lower[j, j] = np.sqrt(pivot)
            lower[j + 1 :, j] -= lower[j + 1 :, :j] @ lower[j, :j]
            lower[j + 1 :, j] /= lower[j, j]
        root = np.asarray(np.linalg.inv(lower).T, dtype=np.float64)
        return cls(root, 2.0 * float(np.log(lower.diagonal()).sum()), smallest)

    def solve(self, block: Float) -> Float:
        """S^-1 block for a vector or a matrix."""
        return self.root @ (self.root.T @ block)

    def inverse(self) -> Float:
        """S^-1, shape (p, p)."""
        return self.root @ self.root.T


def border_prior(S_prior: ArrayLike | None, p: int) -> Float:
    """What is added to X'WX, shape (p, p), from its diagonal, the whole or nothing."""
    if S_prior is None:
        return np.zeros((p, p))
    prior = np.asarray(S_prior, dtype=np.float64)
    if prior.shape not in ((p,), (p, p)):
        raise ValueError(f"S_prior must have shape ({p},) or ({p}, {p}) for X with {p} columns, got {prior.shape}")
    check_finite(prior.ravel(), "S_prior")
    return np.diag(prior) if prior.ndim == 1 else prior


def border_columns(X: ArrayLike, n_rows: int, name: str = "X") -> Float:
    """Columns of the border in the form that the kernels take: float64, finite, by rows."""
    X = np.ascontiguousarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[0] != n_rows:
        raise ValueError(
            f"{name} must have shape ({n_rows}, p), one row for every row of its sparse part, got {X.shape}"
        )
    check_finite(X.ravel(), name)
    return X
