r"""The dispersion step of EQL: gamma GLMs on deviance components, solved by (quasi-)Newton steps on theta.

Given leverages h_i and deviance components d_i, EQL estimates the dispersions by gamma GLMs with responses
``d_i / (1 - h_i)`` and prior weights ``(1 - h_i) / 2`` (Lee & Nelder 2001, section 3). With any smooth graph
``phi(theta)``, ``lam(theta)`` their estimating equation is

.. math:: G(\theta) = \sum_i \tfrac12 \left(\frac{d_i}{\phi_i} - (1 - h_i)\right)
          \frac{\partial \log \phi_i}{\partial \theta} + \text{the same over the random effects with } \lambda_j = 0.

For Gaussian responses and effects this is the score of the restricted likelihood (REML). Iterating the gamma GLMs
with d and h held fixed, as hglm does, moves theta by ``r(theta)`` and converges slowly where leverages are near 1
(hundreds of iterations), because only a share ``A / F`` of the gamma GLM's information F is left when d and h follow
theta. A is the average information matrix (Gilmour, Thompson & Cullis 1995), with working residuals outside the
Gaussian case. The step here is ``s = A^{-1} F r``: the gamma GLM's own solution, which is exact when leverages are
small, stretched by what is known of its rate; the secants of the last steps correct A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hlik.augmented import Dispersions, Point, random_deviances, response_deviances
from hlik.linalg.bordered import Bordered
from hlik.maps import ThetaMap
from hlik.model import HierarchicalModel

GLM_ITERATIONS = 20
GLM_MAX_LOG_CHANGE = 3.0


@dataclass(frozen=True, eq=False)
class Component:
    """One gamma GLM: observations of a response, or levels of a term, sharing a dispersion map."""

    log_slope: np.ndarray  # d log(dispersion) / d theta, shape (m, r) with m = 1 or the component's size
    dispersion: np.ndarray  # shape (m,)
    deviance: np.ndarray  # shape (size,)
    residual_df: np.ndarray  # 1 - leverage, shape (size,)

    def score(self) -> np.ndarray:
        """Its part of G, shape (r,)."""
        excess = 0.5 * (self.deviance / self.dispersion - self.residual_df)
        return self._weighted(excess)

    def gamma_information(self) -> np.ndarray:
        """Fisher information of the gamma GLM, shape (r, r)."""
        if self.log_slope.shape[0] == 1:
            return 0.5 * float(self.residual_df.sum()) * np.outer(self.log_slope, self.log_slope)
        return 0.5 * self.log_slope.T @ (self.residual_df[:, None] * self.log_slope)

    def balance(self) -> float:
        """``sqrt(sum (1 - h) / sum (d / phi))``: 1 at the solution of a component with a free scale."""
        expected, found = float(self.residual_df.sum()), float((self.deviance / self.dispersion).sum())
        return float(np.sqrt(expected / found)) if found > 0 and expected > 0 else 1.0

    def _weighted(self, values: np.ndarray) -> np.ndarray:
        if self.log_slope.shape[0] == 1:
            return float(values.sum()) * self.log_slope[0]
        return values @ self.log_slope


@dataclass(frozen=True, eq=False)
class DispersionState:
    """G, ``drive = F r`` and the two information matrices at one theta, with (beta, v) solved for it."""

    score: np.ndarray
    drive: np.ndarray
    gamma_information: np.ndarray
    average_information: np.ndarray
    components: tuple[Component, ...]
    leverage: np.ndarray
    random_leverage: np.ndarray
    objective: float


def dispersion_state(
    model: HierarchicalModel, theta: np.ndarray, spread: Dispersions, point: Point, bordered: Bordered
) -> DispersionState:
    """Leverages, deviances, G(theta) and its information matrices."""
    leverage = bordered.leverages()
    random_leverage = point.random_weight * bordered.inverse_diagonal()[1]
    deviance, random_deviance = response_deviances(model, point.mu), random_deviances(model, point.v)
    freedom, random_freedom = 1.0 - leverage, 1.0 - random_leverage
    components = tuple(_components(model, theta, spread, (deviance, freedom), (random_deviance, random_freedom)))
    r = model.n_theta
    score = sum((c.score() for c in components), np.zeros(r))
    gamma = sum((c.gamma_information() for c in components), np.zeros((r, r)))
    average = _average_information(model, components, point, bordered) if r else np.zeros((0, 0))
    drive = gamma @ (gamma_glm(model, theta, components) - theta) if r else score
    objective = _objective(model, spread, deviance, random_deviance)
    return DispersionState(score, drive, gamma, average, components, leverage, random_leverage, objective)


def _objective(
    model: HierarchicalModel, spread: Dispersions, deviance: np.ndarray, random_deviance: np.ndarray
) -> float:
    """The quasi-likelihood ``-(sum w d / phi + sum d(v) / lam) / 2``."""
    total = sum(float((deviance[r.rows] / phi).sum()) for r, phi in zip(model.responses, spread.phi, strict=True))
    total += sum(
        float((random_deviance[e.index] / lam).sum()) for e, lam in zip(model.random_effects, spread.lam, strict=True)
    )
    return -0.5 * total


def _components(
    model: HierarchicalModel,
    theta: np.ndarray,
    spread: Dispersions,
    rows: tuple[np.ndarray, np.ndarray],
    effects: tuple[np.ndarray, np.ndarray],
) -> list[Component]:
    """The gamma GLMs; `rows` and `effects` hold (deviances, one minus leverages)."""
    found = []
    for response, phi in zip(model.responses, spread.phi, strict=True):
        if response.dispersion is not None:
            slope = response.dispersion.jacobian(theta) / phi[:, None]
            found.append(Component(slope, phi, rows[0][response.rows], rows[1][response.rows]))
    for effect, lam in zip(model.random_effects, spread.lam, strict=True):
        assert effect.dispersion is not None
        slope = effect.dispersion.jacobian(theta) / lam[:, None]
        found.append(Component(slope, lam, effects[0][effect.index], effects[1][effect.index]))
    return found


def gamma_glm(model: HierarchicalModel, theta: np.ndarray, components: Sequence[Component]) -> np.ndarray:
    """theta of the gamma GLMs with deviances and leverages held fixed, by Fisher scoring; shape (r,).

    It need not converge: it only sets the direction and length of the next step.
    """
    maps = [response.dispersion for response in model.responses if response.dispersion is not None]
    maps += [effect.dispersion for effect in model.random_effects if effect.dispersion is not None]
    current = components
    for _ in range(GLM_ITERATIONS):
        score = sum((c.score() for c in current), np.zeros(theta.size))
        information = sum((c.gamma_information() for c in current), np.zeros((theta.size,) * 2))
        step = np.linalg.lstsq(information, score, rcond=1e-12)[0]
        largest = max(float(np.max(np.abs(c.log_slope @ step))) for c in current)
        step *= min(1.0, GLM_MAX_LOG_CHANGE / max(largest, 1e-300))
        found = _moved(maps, theta + step, current)
        while found is None and np.max(np.abs(step)) > 1e-12:
            step = 0.5 * step
            found = _moved(maps, theta + step, current)
        if found is None:
            break
        theta, current = theta + step, found
        if largest < 1e-3:
            break
    return theta


def _moved(maps: Sequence[ThetaMap], theta: np.ndarray, components: Sequence[Component]) -> list[Component] | None:
    """The components at another theta, deviances and leverages as they are; None where a dispersion is invalid."""
    moved = []
    for dispersion, component in zip(maps, components, strict=True):
        values = dispersion.value(theta)
        if not (np.all(np.isfinite(values)) and np.all(values > 0)):
            return None
        slope = dispersion.jacobian(theta) / values[:, None]
        moved.append(Component(slope, values, component.deviance, component.residual_df))
    return moved


def _average_information(
    model: HierarchicalModel, components: Sequence[Component], point: Point, bordered: Bordered
) -> np.ndarray:
    """``F' P F / 2`` with one working variate a parameter, shape (r, r); positive semidefinite.

    For log phi the variate is the working residual, for log lam_k it is ``Z_k v_k``; P is the projection of the
    mixed model, applied through the factored H. Each variate is scaled so that its component's deviance has its
    expectation, ``sum d / phi = sum (1 - h)``: far from the solution the matrix is then still of the right size.
    """
    F = np.zeros((model.n_rows, model.n_theta))
    parts = iter(components)
    for response in model.responses:
        if response.dispersion is not None:
            rows = response.rows
            weight = point.weight[rows]
            residual = np.divide(
                point.score[rows], weight, out=np.zeros(rows.stop - rows.start), where=weight > 0
            )
            component = next(parts)
            F[rows] += residual[:, None] * (component.balance() * component.log_slope)
    pseudo = np.zeros((model.n_random, model.n_theta))
    for effect, component in zip(model.random_effects, parts, strict=True):
        index = effect.index
        deviation = -point.random_score[index] / point.random_weight[index]
        pseudo[index] = deviation[:, None] * (component.balance() * component.log_slope)
    if model.n_random:
        F += model.Z @ pseudo
    WF = point.weight[:, None] * F
    XWF, ZWF = model.X.T @ WF, model.Z.T @ WF
    solved = bordered.solve(XWF, ZWF)
    return 0.5 * (F.T @ WF - XWF.T @ solved[0] - ZWF.T @ solved[1])


@dataclass(frozen=True, eq=False)
class Proposal:
    """A step on theta, and its length in units of standard errors."""

    step: np.ndarray
    decrement: float


def propose(
    state: DispersionState,
    active: np.ndarray,
    secants: Sequence[tuple[np.ndarray, np.ndarray]],
    max_log_change: float,
) -> Proposal:
    """Solve ``B s = F r`` on the active parameters; no dispersion changes by more than a factor exp(max_log_change).

    B is the average information with the secant conditions of the last steps imposed by Broyden updates; where the
    update points elsewhere than the information does, the information alone is used.
    """
    score, step = state.drive[active], np.zeros_like(state.score)
    if not score.size:
        return Proposal(step, 0.0)
    information = _safe_information(state, active)
    plain = np.linalg.solve(information, score)
    own = state.score[active]
    decrement = float(np.sqrt(max(own @ np.linalg.solve(information, own), 0.0)))
    corrected = information.copy()
    for move, change in secants:
        s, y = move[active], -change[active]
        if s @ s > 0:
            corrected += np.outer(y - corrected @ s, s) / (s @ s)
    chosen = plain
    if secants:
        try:
            secant_step = np.linalg.solve(corrected, score)
            ratio = (secant_step @ score) / max(plain @ score, 1e-300)
            if np.all(np.isfinite(secant_step)) and 0.2 < ratio < 5.0:
                chosen = secant_step
        except np.linalg.LinAlgError:
            pass
    step[active] = chosen
    largest = max((float(np.max(np.abs(c.log_slope @ step))) for c in state.components), default=0.0)
    if largest > max_log_change:
        step *= max_log_change / largest
    return Proposal(step, decrement)


def _safe_information(state: DispersionState, active: np.ndarray) -> np.ndarray:
    """The average information, or the gamma GLM's where that is nearly singular in some direction.

    The gamma information is always the larger one in theory (its weights are 1 - h against about (1 - h)^2); steps
    by it are hglm's: short but safe.
    """
    average = state.average_information[np.ix_(active, active)]
    gamma = state.gamma_information[np.ix_(active, active)]
    root = np.sqrt(np.maximum(np.diag(gamma), 1e-300))
    scaled = average / np.outer(root, root)
    smallest = np.linalg.eigvalsh(scaled)[0] if np.all(np.isfinite(scaled)) else -1.0
    if smallest > 1e-8:
        return average
    scaled_gamma = gamma / np.outer(root, root)
    return (scaled_gamma + 1e-10 * np.eye(len(root))) * np.outer(root, root)
