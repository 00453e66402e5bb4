"""The bordered system H = [X'WX + S0, X'WZ; Z'WX, Z'WZ + D], factorised with the sparse block first.

With C = Z'WZ + D = P'LL'P, V = L^-1 P Z'WX and B = C^-1 Z'WX, the Schur complement of the border is
S = X'WX + S0 - V'V, so that

    log|H| = log|C| + log|S|
    H^-1   = [S^-1, -S^-1 B'; -B S^-1, C^-1 + B S^-1 B']
    t_i'H^-1 t_i = z_i'C^-1 z_i + u_i'S^-1 u_i,    t_i = (x_i, z_i),  u_i = x_i - B'z_i.

X stays out of the sparse matrix: its columns are full and would fill L.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from .cholesky import Factor, Symbolic, analyze
from .errors import NotPositiveDefinite
from .patterns import Float, Int64, LowerPattern, canonical_rows, check_finite, find_entries, lower_pattern
from .products import border_quadratics, choose_products, row_chunks
from .threads import limited_blas

EPS = float(np.finfo(np.float64).eps)


def border_threshold(n_rows: int) -> float:
    """Part of the diagonal of X'WX below which a pivot of S counts as zero.

    The sums over n rows carry a rounding error that grows about as sqrt(n); what is left below it is noise.
    """
    return max(1e-13, 8.0 * EPS * float(np.sqrt(n_rows)))


class BorderedSystem:
    """Fixed patterns of X, Z and D; new weights and prior precisions at every `factor`.

    Parameters
    ----------
    X : array, shape (n, p)
        Dense columns; p may be 0.
    Z : scipy sparse matrix, shape (n, q)
        Sparse columns; q may be 0. Duplicates are summed, explicit zeros stay in the pattern.
    D : scipy sparse matrix, shape (q, q), optional
        Pattern of the prior precision: symmetric, in full or its lower triangle. None: diagonal.
    weights_may_vanish : bool
        Whether a row weight may be 0.
    weights_may_be_negative : bool
        Whether a row weight may be below 0, as observed information may be.
    ordering : str or array
        As in `analyze`.

    Notes
    -----
    X and Z are not copied where they have the right form: do not change them afterwards.
    """

    def __init__(
        self,
        X: ArrayLike,
        Z: Any,
        D: Any = None,
        *,
        weights_may_vanish: bool = True,
        weights_may_be_negative: bool = False,
        ordering: str = "auto",
    ) -> None:
        self.Z = canonical_rows(Z, "Z")
        self.X = _border_columns(X, self.Z.shape[0])
        self.weights_may_vanish = weights_may_vanish
        self.weights_may_be_negative = weights_may_be_negative
        self.n, self.q = self.Z.shape
        self.p = self.X.shape[1]
        prior = _diagonal_pattern(self.q) if D is None else lower_pattern(D, "D")
        if prior.size != self.q:
            raise ValueError(f"D must have shape ({self.q}, {self.q}) for Z with {self.q} columns, got {D.shape}")
        self.prior_pattern = prior
        self.pattern = _union_pattern(self.Z, prior)
        self.symbolic = analyze(self.pattern, ordering)
        self._prior_positions = find_entries(self.pattern, prior.indices, prior.columns())
        numba_is_needed = self.symbolic.kernel in ("simplicial", "supernodal")
        self._products = choose_products(self.Z, self.pattern, self.p, numba_is_needed)

    @property
    def is_dense(self) -> bool:
        """Whether the system is small enough for dense LAPACK."""
        return self.symbolic.kernel == "dense"

    def describe(self) -> dict[str, Any]:
        """Sizes, fill, and the choices made."""
        return {
            "n": self.n,
            "p": self.p,
            "q": self.q,
            "nnz_C": self.pattern.nnz,
            "nnz_L": self.symbolic.nnz_L,
            "flops": self.symbolic.flops,
            "ordering": self.symbolic.ordering,
            "kernel": self.symbolic.kernel,
            "products": type(self._products).__name__,
        }

    def factor(self, w: ArrayLike, d: ArrayLike, S_prior: ArrayLike | None = None) -> "Bordered":
        """Form and factorise H.

        Parameters
        ----------
        w : array, shape (n,)
            Row weights.
        d : array, shape (q,) or (nnz of the lower triangle of D,)
            Prior precision: the diagonal, or the values on `prior_pattern` where D was given.
        S_prior : array, shape (p,) or (p, p), optional
            Added to X'WX: its diagonal, or the whole symmetric matrix.

        Raises
        ------
        NotPositiveDefinite
            With the column of Z, or ("x", j).
        """
        w = self._check_weights(w)
        d = np.asarray(d, dtype=np.float64)
        if d.shape != (self.prior_pattern.nnz,):
            expected = "the lower triangle of D (prior_pattern)" if self.prior_pattern.nnz != self.q else "columns of Z"
            raise ValueError(f"d must have shape ({self.prior_pattern.nnz},), one per entry of {expected}, got {d.shape}")
        check_finite(d, "d")
        prior = _border_prior(S_prior, self.p)
        with limited_blas:
            values, XWX, ZWX = self._products.form(w, self.X)
            values[self._prior_positions] += d
            return Bordered.build(self, w, self.symbolic.factor(values), XWX + prior, ZWX)

    def _check_weights(self, w: ArrayLike) -> Float:
        w = np.ascontiguousarray(w, dtype=np.float64)
        if w.shape != (self.n,):
            raise ValueError(f"w must have shape ({self.n},), one weight a row of Z, got {w.shape}")
        check_finite(w, "w")
        lowest = float(w.min(initial=np.inf))
        if lowest < 0 and not self.weights_may_be_negative:
            raise ValueError(
                f"w must not be negative, got {lowest:.3g} in row {int(w.argmin())}; "
                "pass weights_may_be_negative=True to BorderedSystem to allow it"
            )
        if lowest == 0 and not self.weights_may_vanish:
            raise ValueError(f"w must be positive, got 0 in row {int(w.argmin())}")
        return w


@dataclass(frozen=True, eq=False)
class Bordered:
    """One factorised H. Made by `BorderedSystem.factor`; holds numbers only, safe to use from several threads."""

    system: BorderedSystem
    w: Float
    factor_z: Factor
    B: Float
    root_x: Float
    logdet_x: float
    pivot_ratio: float

    @classmethod
    def build(cls, system: BorderedSystem, w: Float, factor_z: Factor, XWX: Float, ZWX: Float) -> "Bordered":
        """Eliminate the sparse block from the border and factorise what is left."""
        V = factor_z.solve_L(ZWX)
        lower, ratio = factor_border(XWX - V.T @ V, XWX.diagonal(), border_threshold(system.n))
        return cls(
            system,
            w,
            factor_z,
            B=factor_z.solve_Lt(V),
            root_x=np.linalg.inv(lower).T,
            logdet_x=2.0 * float(np.log(lower.diagonal()).sum()),
            pivot_ratio=min(ratio, factor_z.pivot_ratio),
        )

    def solve(self, r_x: ArrayLike, r_z: ArrayLike) -> tuple[Float, Float]:
        """Solve H [s_x; s_z] = [r_x; r_z] for vectors or blocks of columns."""
        r_x, r_z = np.asarray(r_x, dtype=np.float64), np.asarray(r_z, dtype=np.float64)
        for name, r, size in (("r_x", r_x, self.system.p), ("r_z", r_z, self.system.q)):
            if r.ndim not in (1, 2) or r.shape[0] != size or r.shape[1:] != r_x.shape[1:]:
                raise ValueError(f"{name} must have shape ({size},) or ({size}, k), got {r.shape}")
        s_x = self.root_x @ (self.root_x.T @ (r_x - self.B.T @ r_z))
        return s_x, self.factor_z.solve(r_z) - self.B @ s_x

    def logdet(self) -> float:
        """log|H|."""
        return self.logdet_z() + self.logdet_x

    def logdet_z(self) -> float:
        """log|Z'WZ + D|."""
        return self.factor_z.logdet()

    @property
    def inverse_x(self) -> Float:
        """The X block of H^-1, shape (p, p)."""
        return self.root_x @ self.root_x.T

    def selected_inverse_z(self) -> Float:
        """C^-1 on the pattern of C, shape (nnz,)."""
        return self.factor_z.selected_inverse()

    def inverse_pattern(self) -> Float:
        """The Z block of H^-1 on the pattern of C, shape (nnz,)."""
        half = self.B @ self.root_x
        rows, columns = self.system.pattern.indices, self.system.pattern.columns()
        out = self.selected_inverse_z().copy()
        for chunk in row_chunks(len(rows), self.system.p):
            out[chunk] += np.einsum("ij,ij->i", half[rows[chunk]], half[columns[chunk]])
        return out

    def inverse_diagonal(self) -> tuple[Float, Float]:
        """Diagonal of H^-1: its X part, shape (p,), and its Z part, shape (q,)."""
        half = self.B @ self.root_x
        return self.inverse_x.diagonal().copy(), self.factor_z.inverse_diagonal() + (half**2).sum(axis=1)

    def leverages_z(self) -> Float:
        """w_i z_i'C^-1 z_i, shape (n,)."""
        return self.w * self.system._products.quadratic_forms(self.selected_inverse_z())

    def row_quadratics(self) -> Float:
        """t_i'H^-1 t_i with t_i = (x_i, z_i), shape (n,): leverages before they are weighted."""
        products = self.system._products
        return products.quadratics(self.selected_inverse_z(), self.system.X, self.B, self.root_x)

    def leverages(self) -> Float:
        """w_i t_i'H^-1 t_i with t_i = (x_i, z_i), shape (n,)."""
        return self.w * self.row_quadratics()

    def quadratic(self, TX: ArrayLike, TZ: Any) -> Float:
        """diag(T H^-1 T') for rows T = [TX TZ], shape (m,)."""
        TZ = canonical_rows(TZ, "TZ")
        TX = _border_columns(TX, TZ.shape[0], "TX")
        for name, T, size in (("TX", TX, self.system.p), ("TZ", TZ, self.system.q)):
            if T.shape[1] != size:
                raise ValueError(f"{name} must have {size} columns, got shape {T.shape}")
        out = border_quadratics(TZ, TX, self.B, self.root_x)
        for chunk in row_chunks(TZ.shape[0], self.system.q):
            out[chunk] += (self.factor_z.solve_L(TZ[chunk].T.toarray()) ** 2).sum(axis=0)
        return out

    def sample(self, rng: np.random.Generator, size: int) -> tuple[Float, Float]:
        """Draws from N(0, H^-1): x of shape (size, p), z of shape (size, q)."""
        noise = rng.standard_normal((self.system.p, size))
        x = self.root_x @ noise
        return x.T, self.factor_z.sample(rng, size) - (self.B @ x).T


def factor_border(S: Float, scale: Float, threshold: float) -> tuple[Float, float]:
    """Cholesky factor of S and its smallest pivot as a part of `scale`, the diagonal before elimination.

    Column by column, so that the first dependent column is the one named.
    """
    lower = S.copy()
    smallest = 1.0
    for j in range(len(S)):
        pivot = lower[j, j] - lower[j, :j] @ lower[j, :j]
        ratio = pivot / scale[j] if scale[j] != 0 else 0.0
        if not ratio > threshold:
            raise NotPositiveDefinite(("x", j), float(ratio))
        smallest = min(smallest, float(ratio))
        lower[j, j] = np.sqrt(pivot)
        lower[j + 1 :, j] = (lower[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    return np.tril(lower), smallest


def _border_columns(X: ArrayLike, n_rows: int, name: str = "X") -> Float:
    X = np.ascontiguousarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[0] != n_rows:
        raise ValueError(f"{name} must have shape ({n_rows}, p) to go with the rows of its sparse part, got {X.shape}")
    check_finite(X.ravel(), name)
    return X


def _border_prior(S_prior: ArrayLike | None, p: int) -> Float:
    if S_prior is None:
        return np.zeros((p, p))
    prior = np.asarray(S_prior, dtype=np.float64)
    if prior.shape not in ((p,), (p, p)):
        raise ValueError(f"S_prior must have shape ({p},) or ({p}, {p}), got {prior.shape}")
    check_finite(prior.ravel(), "S_prior")
    return np.diag(prior) if prior.ndim == 1 else prior


def _diagonal_pattern(size: int) -> LowerPattern:
    return LowerPattern(np.arange(size + 1, dtype=np.int64), np.arange(size, dtype=np.int32))


def _union_pattern(Z: sp.csr_array, prior: LowerPattern) -> LowerPattern:
    """Lower pattern of Z'Z + D + I: products of ones, so that no entry can cancel."""
    ones = sp.csr_array((np.ones(Z.nnz, dtype=np.float32), Z.indices, Z.indptr), shape=Z.shape)
    prior_ones = sp.csc_array((np.ones(prior.nnz, np.float32), prior.indices, prior.indptr), shape=(prior.size,) * 2)
    total = ones.T @ ones + prior_ones + prior_ones.T + sp.eye_array(Z.shape[1], dtype=np.float32)
    return lower_pattern(sp.tril(total, format="csc"), "C")
