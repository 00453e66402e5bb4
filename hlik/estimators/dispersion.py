r"""The dispersion equations of EQL: gamma GLMs on deviance components.

Given leverages h_i and deviance components d_i, EQL estimates the dispersions by gamma GLMs with responses
``d_i / (1 - h_i)`` and prior weights ``(1 - h_i) / 2`` (Lee & Nelder 2001, section 3). With any smooth graph
``phi(theta)``, ``lam(theta)`` their estimating equation is

.. math:: G(\theta) = \sum_i \tfrac12 \left(\frac{d_i}{\phi_i} - (1 - h_i)\right)
          \frac{\partial \log \phi_i}{\partial \theta} + \text{the same over the random effects with } \lambda_j = 0.

For Gaussian responses and effects this is the score of the restricted likelihood (REML).

`gamma_glm` solves G = 0 with d and h held fixed, which is one iteration of R's hglm. EQL's estimate is the fixed point
of that map; `hlik.estimators.dispersion_step` gets there by Newton's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hlik.augmented import Dispersions, Point, random_deviances, response_deviances
from hlik.linalg.bordered import Bordered
from hlik.maps import ConstantMap, LinkMap, ThetaMap
from hlik.model import HierarchicalModel

GLM_ITERATIONS = 50
GLM_MAX_LOG_CHANGE = 3.0
GLM_TOLERANCE = 1e-9  # standard errors; the derivative of the solution is taken as if it were exact
ROUNDED = 1e-14  # 1 - leverage below which it is a rounding error
DIFFERENCE = 1e-4  # of a central difference, in standard errors: error about 1e-8 of the second derivative


@dataclass(frozen=True, eq=False)
class Component:
    """One gamma GLM: the observations of a response, or the levels of a term, summed where they share a dispersion.

    Attributes
    ----------
    name, is_term
        The response or random effect, and whether it is a random effect.
    rows
        Its rows among the N observations and q random effects, one after the other.
    log_slope
        d log(dispersion) / d theta, shape (m, r), with m = 1 or the number of rows.
    dispersion, deviance, residual_df
        Dispersion, deviance and 1 - leverage, shape (m,): sums over all rows where m = 1.
    """

    name: str
    is_term: bool
    rows: slice
    log_slope: np.ndarray
    dispersion: np.ndarray
    deviance: np.ndarray
    residual_df: np.ndarray

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.rows.stop - self.rows.start

    @property
    def mean_residual_df(self) -> float:
        """The mean of 1 - leverage: near zero where the dispersion itself is near zero."""
        return float(self.residual_df.sum()) / self.size

    def score(self) -> np.ndarray:
        """Its part of G, shape (r,)."""
        return 0.5 * (self.deviance / self.dispersion - self.residual_df) @ self.log_slope

    def information(self) -> np.ndarray:
        """Fisher information of the gamma GLM, shape (r, r)."""
        return 0.5 * self.log_slope.T @ (self.residual_df[:, None] * self.log_slope)

    def excess(self) -> float:
        """``sum(d / phi) / sum(1 - h)``: 1 at the solution of a component with a free scale."""
        expected = max(float(self.residual_df.sum()), ROUNDED * self.size)
        return float((self.deviance / self.dispersion).sum()) / expected


@dataclass(frozen=True, eq=False)
class DispersionState:
    """The dispersion equations at one theta, with (beta, v) solved for it."""

    score: np.ndarray
    gamma_information: np.ndarray
    components: tuple[Component, ...]
    leverage: np.ndarray
    random_leverage: np.ndarray


@dataclass(frozen=True, eq=False)
class GammaSolution:
    """The solution of the gamma GLMs for given deviances and leverages, and their observed information there."""

    theta: np.ndarray
    components: tuple[Component, ...]
    information: np.ndarray


def dispersion_state(
    model: HierarchicalModel, theta: np.ndarray, spread: Dispersions, point: Point, bordered: Bordered
) -> DispersionState:
    """Leverages, deviances, G(theta) and the gamma GLMs' information."""
    leverage = bordered.leverages()
    random_leverage = random_leverages(model, point, bordered)
    deviance = np.concatenate([response_deviances(model, point.mu), random_deviances(model, point.v, spread)])
    residual_df = 1.0 - np.concatenate([leverage, random_leverage])
    components = tuple(_components(model, theta, deviance, residual_df))
    return DispersionState(
        total_score(components, theta.size),
        total_information(components, theta.size),
        components,
        leverage,
        random_leverage,
    )


def random_leverages(model: HierarchicalModel, point: Point, bordered: Bordered) -> np.ndarray:
    """``(H^-1 D)_jj`` of the random effects, shape (q,): the part of each that its prior determines."""
    if model.prior.matrix is None:
        return point.random_weight * bordered.inverse_diagonal()[1]
    products = point.random_weight * bordered.inverse_prior_pattern()
    rows, columns = model.prior.matrix.indices, bordered.system.prior_pattern.columns()
    below = np.where(rows == columns, 0.0, products)
    q = model.n_random
    return np.bincount(columns, weights=products, minlength=q) + np.bincount(rows, weights=below, minlength=q)


def _components(
    model: HierarchicalModel, theta: np.ndarray, deviance: np.ndarray, residual_df: np.ndarray
) -> list[Component]:
    found = []
    for name, rows, dispersion in _dispersed(model):
        values = dispersion.value(theta)
        d, df = deviance[rows], residual_df[rows]
        if values.size == 1:
            d, df = d.sum(keepdims=True), df.sum(keepdims=True)
        slope = dispersion.jacobian(theta) / values[:, None]
        found.append(Component(name, rows.start >= model.n_rows, rows, slope, values, d, df))
    return found


def _dispersed(model: HierarchicalModel) -> list[tuple[str, slice, ThetaMap]]:
    """Name, rows and dispersion of every response that has one and of every term of independent effects."""
    found: list[tuple[str, slice, ThetaMap]] = [
        (r.name, r.rows, r.dispersion) for r in model.responses if r.dispersion is not None
    ]
    for effect in model.random_effects:
        if effect.precision is not None:
            continue
        assert effect.dispersion is not None
        rows = slice(model.n_rows + effect.index.start, model.n_rows + effect.index.stop)
        found.append((effect.name, rows, effect.dispersion))
    return found


def total_score(components: Sequence[Component], size: int) -> np.ndarray:
    """G of all components, shape (r,)."""
    return sum((c.score() for c in components), np.zeros(size))


def total_information(components: Sequence[Component], size: int) -> np.ndarray:
    """Fisher information of all gamma GLMs, shape (r, r)."""
    return sum((c.information() for c in components), np.zeros((size, size)))


def gamma_glm(model: HierarchicalModel, theta: np.ndarray, components: Sequence[Component]) -> GammaSolution:
    r"""Solve the gamma GLMs with deviances and leverages held fixed.

    Fisher scoring, each component's information times ``(x - 1) / log x`` with its `Component.excess` x: a step then
    is exact for a component with one free scale, where theta moves by log x.
    """
    maps = [dispersion for _, _, dispersion in _dispersed(model)]
    current = tuple(components)
    for _ in range(GLM_ITERATIONS):
        score = total_score(current, theta.size)
        information = sum((_secant(c.excess()) * c.information() for c in current), np.zeros((theta.size,) * 2))
        step = scaled_solve(information, score)
        decrement = float(np.sqrt(max(step @ score, 0.0)))
        largest = max((float(np.max(np.abs(c.log_slope @ step))) for c in current), default=0.0)
        step *= min(1.0, GLM_MAX_LOG_CHANGE / max(largest, 1e-300))
        found = moved(maps, theta + step, current)
        while found is None and np.max(np.abs(step)) > 1e-12:
            step = 0.5 * step
            found = moved(maps, theta + step, current)
        if found is None:
            break
        theta, current = theta + step, found
        if decrement < GLM_TOLERANCE:
            break
    return GammaSolution(theta, current, _observed_information(maps, theta, current))


def _secant(x: float) -> float:
    """``(x - 1) / log x``, between bounds that keep a step finite."""
    x = min(max(x, 1e-8), 1e8)
    return (x - 1.0) / np.log(x) if abs(x - 1.0) > 1e-6 else 1.0


def scaled_solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Least-squares solution of least norm, in units in which the symmetric matrix has a unit diagonal."""
    scale = np.sqrt(np.maximum(np.abs(np.diag(matrix)), 1e-300))
    return np.linalg.lstsq(matrix / np.outer(scale, scale), vector / scale, rcond=1e-11)[0] / scale


def moved(maps: Sequence[ThetaMap], theta: np.ndarray, components: Sequence[Component]) -> tuple[Component, ...] | None:
    """The components at another theta, deviances and leverages as they are; None where a dispersion is invalid."""
    found = []
    for dispersion, c in zip(maps, components, strict=True):
        values = dispersion.value(theta)
        if not (np.all(np.isfinite(values)) and np.all(values > 0)):
            return None
        slope = dispersion.jacobian(theta) / values[:, None]
        found.append(replace(c, log_slope=slope, dispersion=values))
    return tuple(found)


def _observed_information(maps: Sequence[ThetaMap], theta: np.ndarray, components: Sequence[Component]) -> np.ndarray:
    """Minus the derivative of the gamma GLMs' score, shape (r, r).

    ``sum d / phi s s' / 2`` where log phi is linear in theta; central differences of the score elsewhere.
    """
    size = theta.size
    if all(_is_log_linear(dispersion) for dispersion in maps):
        parts = (0.5 * c.log_slope.T @ ((c.deviance / c.dispersion)[:, None] * c.log_slope) for c in components)
        return sum(parts, np.zeros((size, size)))
    information = np.zeros((size, size))
    fisher = total_information(components, size)
    for k in range(size):
        move = np.zeros(size)
        move[k] = DIFFERENCE / np.sqrt(fisher[k, k]) if fisher[k, k] > 0 else DIFFERENCE
        up, down = moved(maps, theta + move, components), moved(maps, theta - move, components)
        if up is None or down is None:
            return fisher
        information[:, k] = (total_score(down, size) - total_score(up, size)) / (2 * move[k])
    return 0.5 * (information + information.T)


def _is_log_linear(dispersion: ThetaMap) -> bool:
    inner = getattr(dispersion, "inner", dispersion)
    return isinstance(inner, ConstantMap) or (isinstance(inner, LinkMap) and inner.link.name == "log")
