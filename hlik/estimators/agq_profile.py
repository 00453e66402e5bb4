r"""The marginal log-likelihood by adaptive Gauss-Hermite quadrature, as a function of all parameters; its gradient.

For a block b of random effects with mode :math:`\hat b` and negative curvature C of h there, let
:math:`C^{-1} = A A'`, A lower triangular. With the product rule (x_k, w_k) of d coordinates

.. math:: \log \int e^{h(b)} db \approx \log \sum_k w_k e^{x_k'x_k + h(b_k)} + \tfrac d2 \log 2 + \log |A|, \qquad
          b_k = \hat b + \sqrt 2 A x_k

(Liu & Pierce 1994; Pinheiro & Bates 1995). One point gives Laplace's approximation.

The gradient is that of the sum itself, moving nodes included. With p_k the normalised terms of a block's sum, s_k the
gradient of h in b at node k, and :math:`\bar A = \sum p_k \sqrt 2 s_k x_k' + A^{-T}` (lower triangle), the derivative
of the sum by C is :math:`-\tfrac12 K` with :math:`K = A (P + P') A'`, where P is the lower triangle of
:math:`A' \bar A` with half its diagonal (the reverse of the Cholesky factorisation, Murray 2016). In p_v(h) the place
of K is taken by :math:`C^{-1}`, so that the rest is what `hlik.adjusted_profile` does:

.. math:: \frac{d}{d\psi} = \sum_k p_k \frac{\partial h(b_k)}{\partial \psi} + t_\psi
          + \frac{\partial^2 h}{\partial\psi\,\partial b} C^{-1} \Big(t_b + \sum_k p_k s_k\Big), \qquad
          t = \nabla_{(b, \psi)} \left(-\tfrac12 \mathrm{tr}\, K C\right).

References
----------
Liu, Q. & Pierce, D. A. (1994). A note on Gauss-Hermite quadrature. Biometrika 81, 624-629.
Pinheiro, J. C. & Bates, D. M. (1995). J. Computational and Graphical Statistics 4, 12-35.
Murray, I. (2016). Differentiation of the Cholesky decomposition. arXiv:1602.07527.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy import special as sc

from hlik.adjusted_profile import Mode, ModeError, Profile
from hlik.batch import Batch, columns_at_once
from hlik.blocks import Blocks
from hlik.hlikelihood import HLikelihood
from hlik.implicit import implicit_gradient
from hlik.quadrature import Grid

ROOT2 = float(np.sqrt(2.0))


@dataclass(frozen=True, eq=False)
class QuadratureMode(Mode):
    """A mode with the quadrature's value.

    Attributes
    ----------
    root
        A of every block, shape (B, d, d).
    log_sum
        Log of every block's sum over nodes, shape (B + 1,); the last is what no random effect touches.
    log_terms
        The logs of its terms, shape (B + 1, K); None where they are too many to keep.
    """

    root: np.ndarray
    log_sum: np.ndarray
    log_terms: np.ndarray | None


class QuadratureProfile(Profile):
    """The marginal log-likelihood of (beta, theta) by adaptive quadrature.

    Parameters
    ----------
    likelihood
        h of a model whose random effects fall into small blocks.
    points
        Nodes a coordinate.

    Notes
    -----
    Cost of a value: h at ``points ** d`` values of v, in chunks of bounded memory; of a gradient: two to three times
    that. There is no loop over blocks. Where blocks have several sizes, the largest sets the number of nodes of all.
    """

    def __init__(self, likelihood: HLikelihood, points: int):
        super().__init__(likelihood, integrate_beta=False)
        self.blocks = Blocks.of(likelihood)
        self.grid = Grid.product(points, self.blocks.size)
        self.local, self.row_block = self.blocks.local_design(likelihood.Z)
        self.sizes = np.append(self.blocks.size, 0)  # of every block, and of what belongs to none
        self.case_block = case_blocks(likelihood, self.row_block[: likelihood.n_rows], self.blocks.size.size)
        self.case_sums = summing(self.case_block, self.sizes.size)
        lower = likelihood.prior_pattern
        effects = np.arange(self.blocks.member.size)
        self.prior_rows = effects if lower is None else lower.indices
        self.prior_columns = effects if lower is None else np.repeat(effects, np.diff(lower.indptr))
        self.level_sums = summing(self.blocks.member, self.sizes.size)

    def mode(self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray) -> QuadratureMode:
        """The mode of h in v, and the quadrature's value around it."""
        found = super().mode(psi, beta, v)
        root = self._root(found)
        log_sum, kept = np.full(self.sizes.size, -np.inf), None
        for nodes in self._chunks():
            log_terms = self._log_terms(found, root, nodes)
            log_sum = np.logaddexp(log_sum, sc.logsumexp(log_terms, axis=1))
            kept = log_terms if log_terms.shape[1] == self.grid.x.shape[1] else None
        log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum()
        value = float(log_sum.sum() + 0.5 * np.log(2.0) * self.blocks.size.sum() + log_det)
        if not np.isfinite(value):
            raise ModeError("the quadrature has no finite value")
        return QuadratureMode(found.point, found.bordered, value, root, log_sum, kept)

    def block_values(self, mode: Mode) -> np.ndarray:
        """The log integral of every block, shape (B,)."""
        assert isinstance(mode, QuadratureMode)
        log_det = np.log(np.diagonal(mode.root, axis1=1, axis2=2)).sum(axis=1)
        return mode.log_sum[:-1] + 0.5 * np.log(2.0) * self.blocks.size + log_det

    def _root(self, mode: Mode) -> np.ndarray:
        """A of every block, (B, d, d)."""
        d = self.blocks.largest
        unit = np.eye(d)
        columns = unit[self.blocks.position]
        inverse = mode.bordered.factor_z.solve(columns) if columns.size else columns
        try:
            return np.linalg.cholesky(self.blocks.gather(inverse, unit))
        except np.linalg.LinAlgError as error:
            raise ModeError("the curvature of h is singular") from error

    def _chunks(self) -> Iterator[slice]:
        """Nodes by chunks of bounded memory."""
        step = columns_at_once(self.likelihood)
        for start in range(0, self.grid.x.shape[1], step):
            yield slice(start, start + step)

    def _shift(self, root: np.ndarray, nodes: slice) -> np.ndarray:
        """``sqrt(2) A x`` of every effect at some nodes, (q, m)."""
        blocks = self.blocks
        rows = root[blocks.member, blocks.position]
        shift = np.zeros((rows.shape[0], self.grid.x[:, nodes].shape[1]))
        for size in np.unique(blocks.size):
            own = blocks.size[blocks.member] == size
            shift[own] = ROOT2 * rows[own] @ self.grid.x[size, nodes].T
        return shift

    def _log_terms(self, mode: Mode, root: np.ndarray, nodes: slice) -> np.ndarray:
        """``log w + x'x + h`` of every block at some nodes, (B + 1, m)."""
        point = mode.point
        v = point.v[:, None] + self._shift(root, nodes)
        return self._by_block(Batch.at(self.likelihood, point.beta, v, point.theta), nodes)

    def _by_block(self, batch: Batch, nodes: slice) -> np.ndarray:
        total = self.grid.log_weight[self.sizes, nodes]
        for sums, values in ((self.case_sums, batch.case_values()), (self.level_sums, batch.level_values())):
            total = total + (sums @ values if sums.shape[1] else 0.0)
        return np.where(np.isnan(total), -np.inf, total)

    def gradient(self, mode: Mode) -> np.ndarray:
        """Exact gradient of the quadrature's value by (beta, theta)."""
        assert isinstance(mode, QuadratureMode)
        direct, v_mean, bar = self._node_sums(mode)
        K = _cholesky_adjoint(mode.root, bar)
        return direct + implicit_gradient(self, mode, *self._forms(K), v_mean)

    def _node_sums(self, mode: QuadratureMode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``sum p_k dh/dpsi`` (p + r,), ``sum p_k s_k`` (q,) and ``sum p_k sqrt(2) s_k x_k'`` (B, d, d)."""
        blocks, point, model = self.blocks, mode.point, self.likelihood.model
        direct, v_mean = np.zeros(model.n_beta + model.n_theta), np.zeros(point.v.size)
        bar = np.zeros((point.v.size, blocks.largest))
        effect_size = blocks.size[blocks.member]
        for nodes in self._chunks():
            log_terms = mode.log_terms
            if log_terms is None:
                log_terms = self._log_terms(mode, mode.root, nodes)
            share = np.exp(log_terms - mode.log_sum[:, None])
            # Where a node does not count, h may have no derivatives: it moves to the mode.
            shift = np.where(share[blocks.member] > 0, self._shift(mode.root, nodes), 0.0)
            batch = Batch.at(
                self.likelihood, point.beta, point.v[:, None] + shift, point.theta, order=1, with_theta=True
            )
            direct += batch.gradient(share[self.case_block], share[blocks.member])
            score = share[blocks.member] * v_scores(self.likelihood, batch, shift.shape)
            v_mean += score.sum(axis=1)
            for size in np.unique(blocks.size):
                own = effect_size == size
                bar[own] += ROOT2 * score[own] @ self.grid.x[size, nodes]
        return direct, v_mean, blocks.gather(bar, np.zeros((blocks.largest,) * 2))

    def _forms(self, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``t' K t`` of every row of the design, (M,), and K on the pattern of D, (nnz,)."""
        inside = self.row_block >= 0
        local = self.local[inside]
        kappa = np.zeros(self.row_block.size)
        kappa[inside] = np.einsum("id,ide,ie->i", local, K[self.row_block[inside]], local)
        rows, columns = self.prior_rows, self.prior_columns
        position = self.blocks.position
        return kappa, K[self.blocks.member[rows], position[rows], position[columns]]


def v_scores(likelihood: HLikelihood, batch: Batch, shape: tuple[int, ...]) -> np.ndarray:
    """dh/dv at m values of v, shape (q, m), from a batch with scores."""
    model = likelihood.model
    by_row = np.zeros((model.n_rows, shape[1]))
    for term, found in zip(likelihood.terms, batch.responses, strict=True):
        by_row[term.rows] = found.score.reshape(-1, shape[1])
    result = np.asarray(model.Z.T @ by_row)
    for effect, found in zip(model.random_effects, batch.effects, strict=True):
        result[effect.index] += found.score[0]
    return result


def _cholesky_adjoint(root: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """K, with which ``tr(bar' dA) + d log|A| = -tr(K dC) / 2`` for ``A A' = C^-1``, (B, d, d)."""
    product = np.tril(root.swapaxes(1, 2) @ np.tril(bar)) + np.eye(root.shape[1])
    diagonal = np.arange(root.shape[1])
    product[:, diagonal, diagonal] *= 0.5
    return root @ (product + product.swapaxes(1, 2)) @ root.swapaxes(1, 2)


def case_blocks(likelihood: HLikelihood, row_block: np.ndarray, none: int) -> np.ndarray:
    """The block of every case: that of any of its predictors' rows; `none` where no random effect is in them."""
    parts = []
    for term in likelihood.terms:
        own = row_block[term.rows].reshape(term.n_predictors, term.n)
        parts.append(own.max(axis=0, initial=-1))
    block = np.concatenate([np.zeros(0, dtype=int), *parts])
    return np.where(block < 0, none, block)


def summing(block: np.ndarray, count: int) -> sp.csr_array:
    """The 0-1 matrix (count, members) that sums over the members of each block."""
    return sp.csr_array((np.ones(block.size), (block, np.arange(block.size))), shape=(count, block.size))
