"""X, Z and the pattern of D, analysed once for the bordered system H; `bordered` has the factorised H."""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .border import BorderFactor, border_columns, border_prior, border_threshold
from .bordered import Bordered
from .cholesky import Kernel, analyze
from .patterns import Float, Int64, LowerPattern, canonical_rows, check_finite, find_entries, lower_pattern
from .products import choose_products, union_pattern
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
        self.prior_positions = _positions(self.prior_pattern, self.pattern)
        numba_is_needed = self.symbolic.kernel in ("simplicial", "supernodal")
        self.products = choose_products(self.X, self.Z, self.pattern, numba_is_needed)

    def with_border(self, X: ArrayLike) -> "BorderedSystem":
        """The same Z and D beside other columns X, shape (n, p): the analysis serves again."""
        other = copy(self)
        other.X = border_columns(X, self.n)
        other.p = other.X.shape[1]
        other.products = self.products.with_border(other.X)
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
            "products": type(self.products).__name__,
        }

    def factor(self, w: ArrayLike, d: ArrayLike, S_prior: ArrayLike | None = None) -> Bordered:
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
            values, XWX, ZWX = self.products.form(w)
            values[self.prior_positions] += d
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


def _positions(inner: LowerPattern, pattern: LowerPattern) -> Int64:
    """Where the entries of one pattern are in another that holds them all, and its whole diagonal."""
    if inner.is_diagonal:
        return pattern.diagonal_positions()
    return find_entries(pattern, inner.indices, inner.columns())
