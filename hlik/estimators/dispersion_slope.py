r"""How deviances and leverages follow the dispersions: the derivative that Newton's method on theta needs.

Let t_m be the rows of ``[X Z; 0 I]``, W_m the weights (D for the random effects), s_m = d log phi_m / d theta, and
b = (beta, v) solved for theta. Differentiating the mixed-model equations, with the score u_m of row m,

.. math:: \frac{d b}{d\theta} = -H_o^{-1} \sum_m t_m u_m s_m', \qquad \Delta_m = t_m' \frac{d b}{d\theta},

where H_o has the observed weights. Hence

.. math:: \frac{d d_m}{d\theta} = -2 \phi_m u_m \Delta_m, \qquad
          \rho_m = \frac{d \log W_m}{d\theta} = \frac{d \log W_m}{d\eta_m} \Delta_m - s_m,

and with ``P = W^{1/2} T H^{-1} T' W^{1/2}``, whose diagonal are the leverages,

.. math:: \frac{d h_m}{d\theta} = h_m \rho_m - \sum_l P_{ml}^2 \rho_l.

Only sums ``a'(diag h - P o P) rho`` are needed. As P is a projection they equal
``<[A, P], [R, P]> / 2``, the inner product of the commutators with A = diag(a) and R = diag(rho). They are exact
for small models and else estimated from a few random vectors z of signs, E[([A, P] z)'([R, P] z)] being the inner
product (Hutchinson 1990); the commutators have none of the cancellation of the difference. Estimated or not, the
derivative only steers: the equations that the iteration solves hold no random number.

For Gaussian responses and effects the result is the Hessian of the restricted likelihood; its "average information"
(Gilmour, Thompson & Cullis 1995) leaves the traces out by replacing them with their observed counterparts.

References
----------
Hutchinson, M. F. (1990). A stochastic estimator of the trace of the influence matrix. Commun. Stat. Simul. 19, 433-450.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hlik.augmented import Dispersions, Point
from hlik.estimators.dispersion import Component, DispersionState, GammaSolution
from hlik.linalg.bordered import Bordered
from hlik.linalg.products import rows_of
from hlik.model import HierarchicalModel
from hlik.row_chunks import ARRAYS, row_chunks

EXACT_SIZE, EXACT_CELLS = 300, 2_000_000  # columns of H, and cells of T H^-1, up to which the sums are exact
SIGNS = 20_000  # random signs over the columns of H: the error of an estimated sum is of the order of their root
MAX_DRAWS = 16  # of vectors; at least two, and from 50,000 columns on one is enough
BLOCK_CELLS = 1_000_000  # of a block of random vectors: 8 MB


@dataclass(frozen=True, eq=False)
class Slopes:
    """Derivatives with respect to theta: of the gamma GLMs' score at their solution (r, r), of beta and of v."""

    score: np.ndarray
    beta: np.ndarray
    v: np.ndarray
    exact: bool


def slopes(
    model: HierarchicalModel,
    spread: Dispersions,
    point: Point,
    expected: Bordered,
    observed: Bordered,
    state: DispersionState,
    solution: GammaSolution,
) -> Slopes:
    """``d/dtheta sum_m (d_m / phi*_m + h_m) s*_m / 2`` with phi* and s* of the gamma GLMs' solution held fixed."""
    own = _stacked(model, state.components)
    target = _stacked(model, solution.components)
    beta, v = _implicit(model, point, observed, own)
    moves = np.vstack([model.X @ beta + model.Z @ v, v])
    score = np.concatenate([point.score, point.random_score])
    d_deviance = -2.0 * (own.dispersion * score)[:, None] * moves
    rho = _log_weight_slopes(model, spread, point)[:, None] * moves - own.slope
    leverage = np.concatenate([state.leverage, state.random_leverage])
    total = target.slope.T @ (d_deviance / target.dispersion[:, None])
    total += leverage_slopes(Projection(model, point, expected), leverage, target.slope, rho)
    return Slopes(0.5 * total, beta, v, is_exact(model.n_beta + model.n_random, leverage.size))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Slopes s_m, shape (N + q, r), and dispersions, shape (N + q,), row by row; phi = 1 has slope zero."""

    slope: np.ndarray
    dispersion: np.ndarray


def _stacked(model: HierarchicalModel, components: Sequence[Component]) -> _Rows:
    size = model.n_rows + model.n_random
    slope, dispersion = np.zeros((size, model.n_theta)), np.ones(size)
    for c in components:
        slope[c.rows], dispersion[c.rows] = c.log_slope, c.dispersion
    return _Rows(slope, dispersion)


def _implicit(model: HierarchicalModel, point: Point, observed: Bordered, own: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """d beta / d theta, shape (p, r), and d v / d theta, shape (q, r)."""
    n = model.n_rows
    rows = -point.score[:, None] * own.slope[:n]
    effects = -point.random_score[:, None] * own.slope[n:]
    return observed.solve(model.X.T @ rows, model.Z.T @ rows + effects)


def _log_weight_slopes(model: HierarchicalModel, spread: Dispersions, point: Point) -> np.ndarray:
    """d log W / d eta of the observations and d log D / d v of the random effects, shape (N + q,)."""
    found = np.zeros(model.n_rows + model.n_random)
    for response, phi in zip(model.responses, spread.phi, strict=True):
        assert response.family is not None
        assert response.link is not None
        rows = response.rows
        slope = response.family.weight_derivative(point.eta[rows], response.link, phi, response.weight)
        weight = point.weight[rows]
        found[rows] = np.divide(slope, weight, out=np.zeros_like(weight), where=weight > 0)
    for effect in model.random_effects:
        assert effect.family is not None
        _, _, second, third = effect.family.kernel_derivatives(point.v[effect.index], 3)
        found[model.n_rows + effect.index.start : model.n_rows + effect.index.stop] = third / second
    return found


class Projection:
    """``P = W^{1/2} T H^{-1} T' W^{1/2}`` over the N observations and q random effects, never formed."""

    def __init__(self, model: HierarchicalModel, point: Point, bordered: Bordered):
        self.model, self.bordered = model, bordered
        self.root = np.sqrt(np.concatenate([point.weight, point.random_weight]))[:, None]
        self.n_columns = model.n_beta + model.n_random

    @property
    def chunks(self) -> list[slice]:
        """The rows of T in parts that stay in cache: the observations', then the random effects'."""
        n, q = self.model.n_rows, self.model.n_random
        return [*row_chunks(n, ARRAYS), slice(n, n + q)]

    def solve(self, block: Callable[[slice], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """``H^{-1} T' W^{1/2} block`` for the rows that `block` gives for every chunk: rows for beta and for v."""
        beta: np.ndarray | float = 0.0
        v: np.ndarray | float = 0.0
        n = self.model.n_rows
        for chunk in self.chunks:
            part = self.root[chunk] * block(chunk)
            if chunk.start < n:
                beta = beta + self.model.X[chunk].T @ part
                v = v + rows_of(self.model.Z, chunk).T @ part
            else:
                v = v + part
        return self.bordered.solve(np.asarray(beta), np.asarray(v))

    def rows(self, chunk: slice, beta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``W^{1/2} T (beta, v)``, the rows of a chunk."""
        if chunk.start >= self.model.n_rows:
            return self.root[chunk] * v
        return self.root[chunk] * (self.model.X[chunk] @ beta + rows_of(self.model.Z, chunk) @ v)

    def inverse(self) -> tuple[np.ndarray, np.ndarray]:
        """``H^{-1}``, its rows for beta and for v."""
        identity, p = np.eye(self.n_columns), self.model.n_beta
        return self.bordered.solve(identity[:p], identity[p:])

    def weighted(self, a: np.ndarray, inverse: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """``T'W^{1/2} diag(a) W^{1/2} T H^{-1}``, shape (p + q, p + q); its trace with another's is ``a'(P o P) b``."""
        return np.vstack(self._columns((self.root[:, 0] ** 2 * a)[:, None] * self._rows(*inverse)))

    def _rows(self, beta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """T @ (beta, v)."""
        return np.vstack([self.model.X @ beta + self.model.Z @ v, v])

    def _columns(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """T' @ rows: its part for beta and its part for v."""
        n = self.model.n_rows
        return self.model.X.T @ rows[:n], self.model.Z.T @ rows[:n] + rows[n:]


def leverage_slopes(projection: Projection, leverage: np.ndarray, a: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """``a'(diag h - P o P) rho`` for blocks a and rho of shape (N + q, r)."""
    if is_exact(projection.n_columns, leverage.size):
        inverse = projection.inverse()
        left, right = ([projection.weighted(c, inverse) for c in block.T] for block in (a, rho))
        return a.T @ (leverage[:, None] * rho) - np.array([[np.sum(A * B.T) for B in right] for A in left])
    draws = int(np.clip(SIGNS // projection.n_columns, 2 if projection.n_columns < 50_000 else 1, MAX_DRAWS))
    at_once = int(np.clip(BLOCK_CELLS // leverage.size, 1, draws))
    rng = np.random.default_rng(0)
    total = np.zeros((a.shape[1], rho.shape[1]))
    for start in range(0, draws, at_once):
        z = rng.choice([-1.0, 1.0], size=(leverage.size, min(at_once, draws - start)))
        solution = projection.solve(lambda rows, z=z: _signed(_factors(a, rho, rows), z[rows]))  # type: ignore[misc]
        for rows in projection.chunks:
            factors = _factors(a, rho, rows)
            products = projection.rows(rows, *solution).reshape(*factors.shape, -1)  # P z, P (a z), P (rho z)
            commutators = factors[:, 1:, None] * products[:, :1] - products[:, 1:]
            left, right = commutators[:, : a.shape[1]], commutators[:, a.shape[1] :]
            total += np.einsum("nik,njk->ij", left, right, optimize=True)
    return total / (2 * draws)


def _factors(a: np.ndarray, rho: np.ndarray, rows: slice) -> np.ndarray:
    """One, a and rho of some rows, side by side."""
    return np.hstack([np.ones((a[rows].shape[0], 1)), a[rows], rho[rows]])


def _signed(factors: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Every factor times every vector of signs, shape (rows, factors * draws)."""
    return (factors[:, :, None] * z[:, None, :]).reshape(len(factors), -1)


def is_exact(n_columns: int, n_rows: int) -> bool:
    """Whether `leverage_slopes` computes its sums for a problem of this size, or estimates them."""
    return n_columns <= EXACT_SIZE and n_columns * n_rows <= EXACT_CELLS
