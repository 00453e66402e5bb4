"""The bordered system H = [X'WX + S0, X'WZ; Z'WX, Z'WZ + D], factorised with the sparse block first.

With C = Z'WZ + D = P'LL'P, V = L^-1 P Z'WX and B = C^-1 Z'WX, the Schur complement of the border is
S = X'WX + S0 - V'V, so that

    log|H| = log|C| + log|S|
    H^-1   = [S^-1, -S^-1 B'; -B S^-1, C^-1 + B S^-1 B']
    t_i'H^-1 t_i = z_i'C^-1 z_i + u_i'S^-1 u_i,    t_i = (x_i, z_i),  u_i = x_i - B'z_i.

X stays out of the sparse matrix: its columns are full and would fill L.
"""

from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .border import BorderFactor, border_columns, border_prior, border_threshold
from .cholesky import Kernel, analyze
from .factor import Factor
from .patterns import Float, Int64, LowerPattern, canonical_rows, check_finite, find_entries, lower_pattern
from .products import border_quadratics, choose_products, row_chunks, union_pattern
from .threads import limited_blas


class BorderedSystem:
    """Fixed X and Z, and a fixed pattern of D; new weights and prior precisions at every `factor`.

    Parameters
    ----------
    X : array, shape (n, p)
        Dense columns; p may be 0.
    Z : scipy sparse matrix, shape (n, q)
        Sparse columns; q may be 0. Duplicates are summed, explicit zeros stay in the pattern.
    D : scipy sparse matrix, shape (q, q), optional
        Pattern of the prior precision: symmetric, in full or its lower triangle alone. None: diagonal.
    weights_may_vanish : bool
        Whether a row weight may be 0.
    weights_may_be_negative : bool
        Whether a row weight may be below 0, as observed information may be.
    ordering, kernel
        As in `analyze`, for C = Z'WZ + D.

    Attributes
    ----------
    n, p, q : int
        Numbers of rows, of columns of X, of columns of Z.
    pattern : LowerPattern
        Lower triangle of C = Z'WZ + D by columns, with its whole diagonal: `Bordered.inverse_pattern` is
        aligned with it.
    prior_pattern : LowerPattern
        Lower triangle of D by columns: the order of the values ``d`` that `factor` takes.
    symbolic : Symbolic
        The analysis of C.

    Notes
    -----
    X and Z are not copied where they have the right form already: do not change them afterwards. A system
    never changes and may be shared by threads.
    """

    def __init__(
        self,
        X: ArrayLike,
        Z: Any,
        D: Any = None,
        *,
        weights_may_vanish: bool = True,
        weights_may_be_negative: bool = False,
        ordering: str | ArrayLike = "auto",
        kernel: Kernel = "auto",
    ) -> None:
        self.Z = canonical_rows(Z, "Z")
        self.n, self.q = self.Z.shape
        self.X = border_columns(X, self.n)
        self.p = self.X.shape[1]
        self.weights_may_vanish = weights_may_vanish
        self.weights_may_be_negative = weights_may_be_negative
        if D is not None and D.shape != (self.q, self.q):
            raise ValueError(f"D must have shape ({self.q}, {self.q}) for Z with {self.q} columns, got {D.shape}")
        self.prior_pattern = LowerPattern.diagonal(self.q) if D is None else lower_pattern(D, "D")
        self.pattern = union_pattern(self.Z, self.prior_pattern)
        self.symbolic = analyze(self.pattern, ordering, kernel)
        self._prior_positions = _positions(self.prior_pattern, self.pattern)
        numba_is_needed = self.symbolic.kernel in ("simplicial", "supernodal")
        self._products = choose_products(self.X, self.Z, self.pattern, numba_is_needed)

    def with_border(self, X: ArrayLike) -> "BorderedSystem":
        """The same Z and D beside other columns X, shape (n, p): the analysis serves again."""
        other = copy(self)
        other.X = border_columns(X, self.n)
        other.p = other.X.shape[1]
        other._products = self._products.with_border(other.X)
        return other

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
        d : array, shape (q,) or (entries of the lower triangle of D,)
            Prior precision: its diagonal, or its values on `prior_pattern` where D was given (see
            `lower_values`).
        S_prior : array, shape (p,) or (p, p), optional
            Added to X'WX: its diagonal, or the whole symmetric matrix.

        Raises
        ------
        NotPositiveDefinite
            With the column of Z, or ("x", j) for column j of X.
        """
        w, d = self._check_weights(w), self._check_prior(d)
        S_0 = border_prior(S_prior, self.p)
        with limited_blas:
            values, XWX, ZWX = self._products.form(w)
            values[self._prior_positions] += d
            factor_z = self.symbolic.factor(values)
            XWX += S_0
            V = factor_z.solve_L(ZWX)
            border = BorderFactor.build(XWX - V.T @ V, XWX.diagonal(), border_threshold(self.n))
            return Bordered(self, w, factor_z, factor_z.solve_Lt(V), border)

    def _check_weights(self, w: ArrayLike) -> Float:
        w = np.ascontiguousarray(w, dtype=np.float64)
        if w.shape != (self.n,):
            raise ValueError(f"w must have shape ({self.n},), one weight for every row of Z, got {w.shape}")
        check_finite(w, "w")
        lowest = float(w.min(initial=np.inf))
        if lowest < 0.0 and not self.weights_may_be_negative:
            raise ValueError(
                f"w must not be negative, got {lowest:.3g} in row {int(w.argmin())}; "
                "BorderedSystem(..., weights_may_be_negative=True) allows it"
            )
        if not self.weights_may_vanish and not w.all():
            raise ValueError(
                f"w must not be zero, got 0 in row {int(np.argmin(np.abs(w)))}; "
                "BorderedSystem(..., weights_may_vanish=True) allows it"
            )
        return w

    def _check_prior(self, d: ArrayLike) -> Float:
        d = np.asarray(d, dtype=np.float64)
        expected = self.prior_pattern.nnz
        if d.shape != (expected,):
            raise ValueError(f"d must have shape ({expected},), one value per entry of prior_pattern, got {d.shape}")
        check_finite(d, "d")
        return d


@dataclass(frozen=True, eq=False)
class Bordered:
    """One factorised H, made by `BorderedSystem.factor`. It never changes and may be used from several threads.

    Attributes
    ----------
    system : BorderedSystem
    w : array, shape (n,)
        The row weights.
    factor_z : Factor
        Factor of C = Z'WZ + D.
    B : array, shape (q, p)
        C^-1 Z'WX.
    border : BorderFactor
        Factor of the Schur complement S.
    """

    system: BorderedSystem = field(repr=False)
    w: Float = field(repr=False)
    factor_z: Factor
    B: Float = field(repr=False)
    border: BorderFactor = field(repr=False)

    @property
    def pivot_ratio(self) -> float:
        """Smallest pivot as a part of its column's diagonal entry in H: tiny where H is nearly singular."""
        return min(self.factor_z.pivot_ratio, self.border.pivot_ratio)

    def solve(self, r_x: ArrayLike, r_z: ArrayLike) -> tuple[Float, Float]:
        """Solve H [s_x; s_z] = [r_x; r_z].

        Parameters
        ----------
        r_x : array, shape (p,) or (p, k)
        r_z : array, shape (q,) or (q, k)

        Returns
        -------
        s_x, s_z : arrays of the same shapes
        """
        r_x, r_z = np.asarray(r_x, dtype=np.float64), np.asarray(r_z, dtype=np.float64)
        for name, r, size in (("r_x", r_x, self.system.p), ("r_z", r_z, self.system.q)):
            if r.ndim not in (1, 2) or r.shape[0] != size or r.shape[1:] != r_x.shape[1:]:
                raise ValueError(f"{name} must have shape ({size},) or ({size}, k) with the same k, got {r.shape}")
        with limited_blas:
            s_x = self.border.solve(r_x - self.B.T @ r_z)
            return s_x, self.factor_z.solve(r_z) - self.B @ s_x

    def logdet(self) -> float:
        """log|H|."""
        return self.logdet_z() + self.border.logdet

    def logdet_z(self) -> float:
        """log|Z'WZ + D|."""
        return self.factor_z.logdet()

    @property
    def inverse_x(self) -> Float:
        """The X block of H^-1, shape (p, p)."""
        return self.border.inverse()

    def inverse_diagonal(self) -> tuple[Float, Float]:
        """Diagonal of H^-1: its X part, shape (p,), and its Z part, shape (q,)."""
        with limited_blas:
            half = self.B @ self.border.root
        return self.inverse_x.diagonal().copy(), self.factor_z.inverse_diagonal() + np.einsum("ij,ij->i", half, half)

    def selected_inverse_z(self) -> Float:
        """C^-1 on the pattern of C, shape (nnz,)."""
        return self.factor_z.selected_inverse()

    def inverse_pattern(self) -> Float:
        """The Z block of H^-1 on the pattern of C, shape (nnz,)."""
        return self._inverse_at(np.arange(self.system.pattern.nnz))

    def inverse_prior_pattern(self) -> Float:
        """The Z block of H^-1 on the pattern of D, aligned with ``d``: what tr(H^-1 dD) needs."""
        return self._inverse_at(self.system._prior_positions)

    def leverages(self) -> Float:
        """w_i t_i'H^-1 t_i with t_i = (x_i, z_i), shape (n,)."""
        return self.w * self.row_quadratics()

    def leverages_z(self) -> Float:
        """w_i z_i'C^-1 z_i, shape (n,)."""
        with limited_blas:
            return self.w * self.system._products.quadratic_forms(self.selected_inverse_z())

    def row_quadratics(self) -> Float:
        """t_i'H^-1 t_i with t_i = (x_i, z_i), shape (n,): leverages before they are weighted."""
        with limited_blas:
            return self.system._products.quadratics(self.selected_inverse_z(), self.B, self.border.root)

    def quadratic(self, TX: ArrayLike, TZ: Any) -> Float:
        """diag(T H^-1 T') for any rows T = [TX TZ].

        Pairs of columns that lie on the pattern of C come from the selected inverse; the others need solves,
        at most one for every row of T, in chunks of bounded memory.

        Parameters
        ----------
        TX : array, shape (m, p)
        TZ : scipy sparse matrix, shape (m, q)

        Returns
        -------
        array, shape (m,)
        """
        rows = canonical_rows(TZ, "TZ")
        TX = border_columns(TX, rows.shape[0], "TX")
        for name, T, size in (("TX", TX, self.system.p), ("TZ", rows, self.system.q)):
            if T.shape[1] != size:
                raise ValueError(f"{name} must have {size} columns, got shape {T.shape}")
        with limited_blas:
            return self.factor_z.quadratic(rows) + border_quadratics(TX, rows, self.B, self.border.root)

    def sample(self, rng: np.random.Generator, size: int) -> tuple[Float, Float]:
        """Draws from N(0, H^-1): x of shape (size, p), z of shape (size, q)."""
        with limited_blas:
            x = self.border.root @ rng.standard_normal((self.system.p, size))
            return x.T, self.factor_z.sample(rng, size) - (self.B @ x).T

    def _inverse_at(self, positions: np.ndarray) -> Float:
        """Entries of H^-1's Z block at positions of the pattern of C."""
        pattern = self.system.pattern
        rows, columns = pattern.indices[positions], pattern.columns()[positions]
        out = self.selected_inverse_z()[positions]
        with limited_blas:
            half = self.B @ self.border.root
        for chunk in row_chunks(len(rows), self.system.p):
            out[chunk] += np.einsum("ij,ij->i", half[rows[chunk]], half[columns[chunk]])
        return out


def _positions(inner: LowerPattern, pattern: LowerPattern) -> Int64:
    """Where the entries of one pattern are in another that holds them all, and its whole diagonal."""
    if inner.is_diagonal:
        return pattern.diagonal_positions()
    return find_entries(pattern, inner.indices, inner.columns())
