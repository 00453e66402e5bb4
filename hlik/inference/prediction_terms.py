r"""Random effects at the data of a prediction: which levels the fit had, and what is known of the others.

With ``v_hat`` and the joint errors of (beta, v, theta) from the fit, a row ``z'v`` is predicted by

================= ============================================================== ===================================
kind              levels that the fit had                                        levels that it did not have
================= ============================================================== ===================================
independent       ``z_j v_hat_j``                                                c, the value of v that changes
                                                                                 nothing; variance ``z_j^2 Var(v_j)``
joint normal (Q)  the same                                                       `FieldTerm`: given those of the fit
no closed form    the same                                                       `DensityTerm`: ``E v``, ``Var(v)``
wide              `WideEffectTerm`: through its scores                           variance ``lam z_j^2``
================= ============================================================== ===================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.graph import rows as lin
from hlik.graph.levels import Levels
from hlik.inference.averages import Entries, family_rule
from hlik.inference.prior_variance import row_variance
from hlik.inference.restore import Restored
from hlik.model import RandomEffect


class Block(NamedTuple):
    """Rows on the columns of one term, shape (m, columns); for wide terms the variances that lie outside of them.

    `unseen` is ``Var(z'u)`` given the scores, `prior` before any data, both in units of lam.
    """

    Z: sp.csr_array
    unseen: np.ndarray | None = None
    prior: np.ndarray | None = None


class Joint(NamedTuple):
    """A block in terms of the fit: rows on its v, what theta moves, and variance that the fit knows nothing of."""

    Z: sp.csr_array
    by_theta: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, eq=False)
class Term:
    """Independent effects of a family.

    Attributes
    ----------
    effect, levels
        The random effect as it was fitted, and at the data of the prediction.
    known, position
        For each column: whether the fit had it, and where in v.
    columns
        Its columns among those of all terms.
    resized
        Whether the data are others than those of the fit.
    """

    effect: RandomEffect
    levels: Levels
    known: np.ndarray
    position: np.ndarray
    columns: slice
    resized: bool

    @property
    def here(self) -> RandomEffect:
        """The random effect with the levels of the prediction."""
        return self.levels.effect if self.resized else self.effect

    def theta(self, theta: np.ndarray) -> np.ndarray:
        """The dispersion parameters that the graph has: the fit may have quasi-dispersions after them."""
        return theta[: self.levels.layout.size] if self.resized else theta

    def block(self, rows: lin.Rows | None, m: int) -> Block:
        """Rows of the linear predictor on its columns."""
        return Block(sp.csr_array((m, self.known.size)) if rows is None else lin.to_csr(rows))

    def typical(self) -> np.ndarray:
        """The value of v that changes nothing, for every column."""
        return np.full(self.known.size, 0.0 if self.effect.family is None else self.effect.family.mode)

    def drawn(self, theta: np.ndarray) -> np.ndarray:
        """What stands for v of levels that are drawn anew."""
        return self.typical()

    def predicted(self, fitted: Restored, theta: np.ndarray) -> np.ndarray:
        """v_hat of known levels, and what stands for the others."""
        v = self.typical() if self.known.all() else self.drawn(theta)
        v[self.known] = fitted.v[self.position[self.known]]
        return v

    def joint(self, fitted: Restored, block: Block) -> Joint:
        """The block in terms of the fit's v."""
        Z = self.on_fit(fitted, sp.csr_array(block.Z[:, self.known]))
        return Joint(Z, np.zeros((Z.shape[0], fitted.theta.size)), self._new_variance(fitted.theta, block))

    def on_fit(self, fitted: Restored, part: sp.csr_array) -> sp.csr_array:
        """Rows on its known columns as rows on the fit's v, shape (m, q)."""
        entry = sp.coo_array(part)
        row, column = entry.coords
        entries = (entry.data, (row, self.position[self.known][column]))
        return sp.csr_array(sp.coo_array(entries, shape=(part.shape[0], fitted.v.size)))

    def _new_variance(self, theta: np.ndarray, block: Block) -> np.ndarray:
        """Of the levels that the fit did not have."""
        new = sp.csr_array(block.Z @ sp.diags_array((~self.known).astype(float)))
        new.eliminate_zeros()
        return self.variance(theta, Block(new)) if new.nnz else np.zeros(block.Z.shape[0])

    def variance(self, theta: np.ndarray, block: Block) -> np.ndarray:
        """``Var(z'v)`` of levels that are all drawn anew, shape (m,)."""
        return row_variance(self.here, block.Z, self.theta(theta)) if block.Z.nnz else np.zeros(block.Z.shape[0])

    def spread(self, theta: np.ndarray, block: Block) -> tuple[np.ndarray, list[Entries]]:
        """For averages over the term: a normal variance for every row, and effects with nodes of their own."""
        if self.effect.family is None or self.effect.family.name == "normal":
            return self.variance(theta, block), []
        here = self.here
        if here.family is None or here.dispersion is None:
            raise ModelError(f"The dispersion of random effect {self.effect.name!r} at these data is not known.")
        lam = np.broadcast_to(here.dispersion.value(self.theta(theta)), (self.known.size,))
        family = here.family
        found = [Entries(z, *family_rule(family, lam[level])) for z, level in one_a_row(block.Z)]
        return np.zeros(block.Z.shape[0]), found

    def values(self, fitted: Restored, v: np.ndarray) -> tuple[np.ndarray, sp.csr_array, np.ndarray]:
        """Its value variable at v, with derivatives by v, shape (levels, columns), and by theta, v held fixed."""
        r, theta = fitted.theta.size, self.theta(fitted.theta)
        if self.effect.location is not None:
            raise ModelError(
                f"Random effect {self.effect.name!r} has a mean: this response cannot be predicted with it."
            )
        here, unmoved = self.here, np.zeros((v.size, r))
        if here.root is not None:
            z = here.root.whitened(v, theta)
            unmoved[:, : theta.size] = here.root.slopes(z, theta)
            return z, here.root.inverse(theta), unmoved
        if here.scale_map is None:
            return v, sp.csr_array(sp.eye_array(v.size)), unmoved
        scale = np.broadcast_to(here.scale_map.value(theta), v.shape)
        unmoved[:, : theta.size] = -(v / scale**2)[:, None] * here.scale_map.jacobian(theta)
        return v / scale, sp.csr_array(sp.diags_array(1 / scale)), unmoved


def one_a_row(Z: sp.csr_array) -> list[tuple[np.ndarray, np.ndarray]]:
    """The entries of each row one after the other: (coefficients, levels), zero where a row has no more."""
    count = np.diff(Z.indptr)
    found = []
    for k in range(int(count.max(initial=0))):
        has = count > k
        z, level = np.zeros(count.size), np.zeros(count.size, dtype=int)
        z[has], level[has] = Z.data[Z.indptr[:-1][has] + k], Z.indices[Z.indptr[:-1][has] + k]
        found.append((z, level))
    return found
