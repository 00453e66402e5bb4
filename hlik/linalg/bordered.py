"""The bordered system H = [X'WX + S0, X'WZ; Z'WX, Z'WZ + D], factorised with the sparse block first.

With C = Z'WZ + D = P'LL'P, V = L^-1 P Z'WX and B = C^-1 Z'WX, the Schur complement of the border is
S = X'WX + S0 - V'V, so that

    log|H| = log|C| + log|S|
    H^-1   = [S^-1, -S^-1 B'; -B S^-1, C^-1 + B S^-1 B']
    t_i'H^-1 t_i = z_i'C^-1 z_i + u_i'S^-1 u_i,    t_i = (x_i, z_i),  u_i = x_i - B'z_i.

X stays out of the sparse matrix: its columns are full and would fill L.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .border import BorderFactor, border_columns
from .factor import Factor
from .patterns import Float, canonical_rows
from .products import border_quadratics, row_chunks
from .threads import limited_blas

if TYPE_CHECKING:
    from .bordered_system import BorderedSystem


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

    system: "BorderedSystem" = field(repr=False)
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
        return self._inverse_at(self.system.prior_positions)

    def leverages(self) -> Float:
        """w_i t_i'H^-1 t_i with t_i = (x_i, z_i), shape (n,)."""
        return self.w * self.row_quadratics()

    def leverages_z(self) -> Float:
        """w_i z_i'C^-1 z_i, shape (n,)."""
        with limited_blas:
            return self.w * self.system.products.quadratic_forms(self.selected_inverse_z())

    def row_quadratics(self) -> Float:
        """t_i'H^-1 t_i with t_i = (x_i, z_i), shape (n,): leverages before they are weighted."""
        with limited_blas:
            return self.system.products.quadratics(self.selected_inverse_z(), self.B, self.border.root)

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
