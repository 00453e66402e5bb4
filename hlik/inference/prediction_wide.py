r"""Terms with more effects than observations at the data of a prediction: through their scores (`hlik.wide`).

For a row ``z'u`` with ``u ~ N(0, lam W)`` and scores s of the fit,

.. math:: z'u = z'WZ'(U/d)\, s + e, \qquad \mathrm{Var}(e) = \lambda\,(z'Wz - |z'WZ'(U/d)|^2),

e independent of the data: ``E(z'u)`` is ``z'u_hat``, and its variance that of the scores' part and of e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.graph import rows as lin
from hlik.inference.prediction_terms import Block, Joint, Term
from hlik.inference.restore import Restored
from hlik.result.wide_effects import own_design
from hlik.wide import BLOCK, WideTerm


@dataclass(frozen=True, eq=False)
class WideEffectTerm(Term):
    """A wide term: its columns are the scores of the fit.

    Attributes
    ----------
    place
        For each effect there its number in the fit, -1 for new ones.
    """

    place: np.ndarray

    @property
    def _wide(self) -> WideTerm:
        assert self.effect.wide is not None
        return self.effect.wide

    def block(self, rows: lin.Rows | None, m: int) -> Block:
        """Rows on the effects as rows on the scores, some at a time."""
        if rows is None:
            return Block(sp.csr_array((m, self.known.size)), np.zeros(m), np.zeros(m))
        own = own_design(self._wide, rows)
        if own is not None:
            Z = lin.to_dense(own)
            return Block(sp.csr_array(Z), np.zeros(m), np.sum(Z**2, axis=1))
        step = max(1, BLOCK // self.place.size)
        parts = [self._projected(lin.take(rows, np.arange(k, min(k + step, m)))) for k in range(0, m, step)]
        Z, unseen, prior = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Block(sp.csr_array(Z), unseen, prior)

    def _projected(self, rows: lin.Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        whole = sp.coo_array(lin.to_csr(rows))
        row, column = whole.coords
        known = self.place[column] >= 0
        new = np.bincount(row[~known], whole.data[~known] ** 2, minlength=whole.shape[0])
        if new.any() and self._wide.weight is not None:
            raise ModelError(
                f"New elements of {self.effect.name!r} have no variance of their own here: the fit's differ by known "
                f"factors. Give them zero in the data."
            )
        entries = (whole.data[known], (row[known], self.place[column[known]]))
        fitted = sp.csr_array(sp.coo_array(entries, shape=(whole.shape[0], self._wide.size)))
        Z = self._wide.project(fitted)
        unseen = self._wide.unseen_variance(fitted, Z)
        return Z, unseen + new, unseen + np.sum(Z**2, axis=1) + new

    def joint(self, fitted: Restored, block: Block) -> Joint:
        """The rows on the scores, and the variance that no score tells."""
        assert block.unseen is not None
        plain = super().joint(fitted, block)
        return Joint(plain.Z, plain.by_theta, self._lam(fitted.theta) * block.unseen)

    def variance(self, theta: np.ndarray, block: Block) -> np.ndarray:
        """``lam z'Wz``."""
        assert block.prior is not None
        return self._lam(theta) * block.prior

    def values(self, fitted: Restored, v: np.ndarray) -> tuple[np.ndarray, sp.csr_array, np.ndarray]:
        """The effects of the scores v; `block` takes derivatives by the effects to the scores."""
        u = np.where(self.place >= 0, self._wide.effects(v)[np.maximum(self.place, 0)], 0.0)
        scales, unmoved = self.effect.scale_map, np.zeros((u.size, fitted.theta.size))
        if scales is None:
            return u, sp.csr_array(sp.eye_array(u.size)), unmoved
        at = np.maximum(self.place, 0) if scales.size > 1 else np.zeros(u.size, dtype=int)
        scale = scales.value(fitted.theta)[at]
        unmoved -= (u / scale**2)[:, None] * scales.jacobian(fitted.theta)[at]
        return u / scale, sp.csr_array(sp.diags_array(1 / scale)), unmoved

    def _lam(self, theta: np.ndarray) -> float:
        assert self.effect.dispersion is not None
        return float(self.effect.dispersion.value(theta)[0])
