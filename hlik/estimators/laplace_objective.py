"""The function that Laplace maximises: a profile with warm starts and a memory, its Hessian, its boundary."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from hlik.adjusted_profile import Mode, ModeError, Profile
from hlik.estimators.boundary import moved, moving
from hlik.model import HierarchicalModel

FAILED = 1e10  # stands for minus the objective where h has no mode: large, finite, and flat
STEP = 1e-3  # of a central difference, in standard errors: the gradients are exact to about 1e-10
BOUNDARY = 1e-5  # share of a term's prior precision that the data add, below which its variance counts as zero


class Objective:
    """The profile with warm starts and a memory of the last points: SciPy asks for some of them again."""

    def __init__(self, profile: Profile, beta: np.ndarray, v: np.ndarray):
        self.profile = profile
        self._beta, self._v = beta, v
        self._memory: OrderedDict[bytes, tuple[Mode, np.ndarray | None]] = OrderedDict()

    def evaluate(self, psi: np.ndarray) -> Mode | None:
        """The mode at psi, None where there is none."""
        key = psi.tobytes()
        if key in self._memory:
            return self._memory[key][0]
        try:
            mode = self.profile.mode(psi, self._beta, self._v)
        except ModeError:
            return None
        self._memory[key] = (mode, None)
        while len(self._memory) > 8:
            self._memory.popitem(last=False)
        self._beta, self._v = mode.point.beta, mode.point.v
        return mode

    def mode(self, psi: np.ndarray) -> Mode:
        """The mode at a point where there is one."""
        mode = self.evaluate(psi)
        if mode is None:
            raise ModeError("h has no mode at this point")
        return mode

    def value(self, psi: np.ndarray) -> float:
        """The adjusted profile h-likelihood, -inf where h has no mode."""
        mode = self.evaluate(psi)
        return -np.inf if mode is None else mode.value

    def gradient(self, psi: np.ndarray) -> np.ndarray:
        """Its exact gradient."""
        key = psi.tobytes()
        mode = self.mode(psi)
        cached = self._memory[key][1]
        if cached is None:
            cached = self.profile.gradient(mode)
            self._memory[key] = (mode, cached)
        return cached

    def gradients_beside(self, psi: np.ndarray, move: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradients at psi + move and psi - move; the second mode starts where the first one points to."""
        here = self.mode(psi).point
        self._beta, self._v = here.beta, here.v
        up = self.gradient(psi + move)
        there = self.mode(psi + move).point
        self._beta, self._v = 2 * here.beta - there.beta, 2 * here.v - there.v
        return up, self.gradient(psi - move)

    def negative(self, psi: np.ndarray, root: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus value and gradient in scaled coordinates; a flat wall where h has no mode."""
        mode = self.evaluate(psi)
        if mode is None or not np.isfinite(mode.value):
            return FAILED, np.zeros(root.shape[1])
        return -mode.value, -(root.T @ self.gradient(psi))


def differenced_hessian(
    objective: Objective, psi: np.ndarray, covariance: np.ndarray, active: np.ndarray
) -> np.ndarray:
    """Minus the Hessian by central differences of the exact gradient, symmetrised; zero for inactive parameters."""
    hessian = np.zeros((psi.size,) * 2)
    scale = difference_scale(objective, psi, covariance)
    for k in np.flatnonzero(active):
        move = np.zeros_like(psi)
        move[k] = STEP * scale[k]
        try:
            up, down = objective.gradients_beside(psi, move)
        except ModeError:
            continue
        hessian[:, k] = (down - up) / (2 * move[k])
    return 0.5 * (hessian + hessian.T)


def difference_scale(objective: Objective, psi: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard errors within bounds, shape like psi, which wild ones, of what is flat, would pass.

    Dispersion parameters are logs mostly, whose unit is one. The unit of a coefficient is that of the data: its
    standard error were all else known, ``(x' W x)^-1/2``.
    """
    profile = objective.profile
    unit, most = np.ones(psi.size), np.full(psi.size, 1e4)
    X = profile.likelihood.X
    p = 0 if profile.integrate_beta else X.shape[1]
    if p:
        weight = np.abs(objective.mode(psi).point.weight[: X.shape[0]])
        unit[:p] = np.asarray((X * X).T @ weight).ravel()
        unit[:p] = np.where(unit[:p] > 0, unit[:p], 1.0) ** -0.5
        most[:p] = 1e8
    return unit * np.sqrt(np.clip(np.diag(covariance) / unit**2, 1e-12, most))


def boundary_terms(model: HierarchicalModel, mode: Mode, least: float = BOUNDARY) -> list[str]:
    """Names of the terms whose effects the data do not move: they add a smaller part than `least` to the precision."""
    structured = model.prior.matrix is not None
    inverse = mode.bordered.inverse_prior_pattern() if structured else mode.bordered.inverse_diagonal()[1]
    names = []
    for effect, entries in zip(model.random_effects, model.prior.entries, strict=True):
        product = inverse[entries] * mode.point.random_weight[entries]
        if effect.precision is None:
            share = float(np.mean(np.abs(1.0 - product)))
        else:  # 1 - tr(H^-1 Q) / q
            share = abs(1.0 - float(effect.precision.doubled(product).sum()) / effect.size)
        if share < least:
            names.append(effect.name)
    return names


def active_parameters(objective: Objective, psi: np.ndarray) -> np.ndarray:
    """False for parameters that only move variances which have gone to zero."""
    likelihood = objective.profile.likelihood
    model, mode = likelihood.model, objective.mode(psi)
    gone = boundary_terms(model, mode)
    active = np.ones(psi.size, dtype=bool)
    if not gone:
        return active
    theta = mode.point.theta
    dead = np.zeros(model.n_theta, bool)
    for effect in model.random_effects:
        if effect.name in gone:
            dead |= moving(effect, theta)
    active[psi.size - model.n_theta :] = ~dead | moved(likelihood, theta, without=set(gone))
    return active
