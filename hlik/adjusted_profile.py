r"""The mode of h and the adjusted profile h-likelihoods p_v(h), p_bv(h), with exact gradients: one place, used by all.

With the integrated vector ``b`` = v, or (beta, v) for the restricted likelihood, and the other parameters psi,

.. math:: p_b(h)(\psi) = h(\hat b, \psi) - \tfrac12 \log |H / 2\pi|, \qquad H = -\partial^2 h / \partial b^2
          \text{ at the mode } \hat b(\psi)

(Lee & Nelder 2001; Tierney & Kadane 1986). Its gradient is exact (Kristensen et al. 2016, eq. 8, in sparse form):

.. math:: \frac{d p}{d\psi} = \frac{\partial h}{\partial \psi} + s_\psi
          + \frac{\partial^2 h}{\partial \psi\,\partial b} H^{-1} s_b, \qquad
          s = \nabla_{(b, \psi)} \left(-\tfrac12 \log|H|\right) \text{ with the mode held fixed,}

where s needs only the entries of the inverse on the pattern of H.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlik.hlikelihood import HLikelihood, HPoint
from hlik.linalg import NotPositiveDefinite
from hlik.linalg.bordered import Bordered

LOG_2PI = float(np.log(2 * np.pi))
MAX_NEWTON = 200
MODE_TOLERANCE = 1e-10  # Newton decrement, in standard errors of b given the rest
HALVINGS = 27  # of a Newton step: what is shorter only finds rounding
LONG_STEP = 1e-2  # a Newton step that long with so small a decrement: h has no curvature there
LONG_SHARE = 1e-5  # of the largest effect or predictor, whose unit is that of the data: no longer step is called long
IDLE = 5  # steps in a row that move h by rounding only: no later one will find more


class ModeError(RuntimeError):
    """h has no proper maximum in the random effects at these parameters."""


@dataclass(frozen=True, eq=False)
class Mode:
    """The mode of h in b, with the factored H there."""

    point: HPoint
    bordered: Bordered
    value: float


class Profile:
    """p_v(h), or p_bv(h) with `integrate_beta`, as a function of the remaining parameters.

    Parameters
    ----------
    likelihood
        h of a model.
    integrate_beta
        False: b = v and psi = (beta, theta). True: b = (beta, v) and psi = theta.
    """

    moves_effects = False  # True in a subclass whose `mode` has other random effects than the mode of h

    def __init__(self, likelihood: HLikelihood, integrate_beta: bool = False):
        self.likelihood = likelihood
        self.integrate_beta = integrate_beta
        self.system = likelihood.system if integrate_beta else likelihood.system.with_border(likelihood.X[:, :0])
        self.n_beta = likelihood.model.n_beta

    def split(self, psi: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta) of psi; `beta` is the starting value where it is integrated."""
        return (beta, psi) if self.integrate_beta else (psi[: self.n_beta], psi[self.n_beta :])

    def mode(self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray) -> Mode:
        """Newton's method from (beta, v), damped where h would fall or H is not positive definite.

        Raises
        ------
        ModeError
            Where h is not finite at the start, or has no maximum.
        """
        beta, theta = self.split(psi, beta)
        point = self.likelihood.at(beta, v, theta)
        if point is None:
            raise ModeError("h is not finite at the starting values")
        idle = 0
        for _ in range(MAX_NEWTON):
            bordered, exact = self._factor(point)
            r_beta, r_v = self._scores(point)
            step = bordered.solve(r_beta, r_v)
            slope = float(r_beta @ step[0] + r_v @ step[1])
            decrement = np.sqrt(max(slope, 0.0))
            new = self._line_search(point, step, slope)
            last = decrement < (1e-5 if exact else MODE_TOLERANCE)  # quadratic convergence: no later step counts
            if last and _is_long(step, point):
                raise ModeError("h has no proper maximum: it rises for ever")
            idle = idle + 1 if new is not None and new.h - point.h < 1e-10 * (1 + abs(point.h)) else 0
            if last or new is None or idle == IDLE:
                return self._finished(point if new is None else new, 0.0 if last else decrement)
            point = new
        raise ModeError(f"no mode of h after {MAX_NEWTON} Newton steps")

    def _finished(self, point: HPoint, decrement: float) -> Mode:
        if decrement > 1e-4:
            raise ModeError("h cannot be increased, but its gradient is not zero")
        try:
            bordered = self.system.factor(point.weight, point.random_weight)
        except NotPositiveDefinite as error:
            raise ModeError(f"h has no proper maximum: {error}") from error
        count = point.v.size + (self.n_beta if self.integrate_beta else 0)
        return Mode(point, bordered, point.h - 0.5 * (bordered.logdet() - count * LOG_2PI))

    def _factor(self, point: HPoint) -> tuple[Bordered, bool]:
        """H at a point, or, where it is not positive definite, with negative weights left out (a descent direction)."""
        try:
            return self.system.factor(point.weight, point.random_weight), True
        except NotPositiveDefinite:
            pass
        weight, random_weight = np.abs(point.weight), self.likelihood.positive_random_weight(point)
        diagonal = self.likelihood.prior.diagonal
        positive = random_weight[diagonal].copy()
        scale = max(float(np.max(positive, initial=0.0)), 1e-8)
        for damping in (0.0, 1e-3, 1e-1, 10.0):
            random_weight[diagonal] = positive + damping * scale
            try:
                return self.system.factor(weight, random_weight), False
            except NotPositiveDefinite:
                continue
        raise ModeError("the curvature of h is singular")

    def _scores(self, point: HPoint) -> tuple[np.ndarray, np.ndarray]:
        model = self.likelihood.model
        r_v = model.Z.T @ point.score + point.random_score if point.v.size else np.zeros(0)
        return (model.X.T @ point.score if self.integrate_beta else np.zeros(0)), r_v

    def _line_search(self, point: HPoint, step: tuple[np.ndarray, np.ndarray], slope: float) -> HPoint | None:
        """The first of the halved steps at which h does not fall (Armijo 1e-4); None where there is none."""
        d_beta = step[0] if self.integrate_beta else np.zeros(self.n_beta)
        d_v = step[1]
        model = self.likelihood.model
        d_eta = (model.Z @ d_v if d_v.size else 0.0) + (model.X @ d_beta if self.integrate_beta else 0.0)
        length, rounding = 1.0, 1e-12 * (1 + abs(point.h))
        for _ in range(HALVINGS):
            beta, v, eta = point.beta + length * d_beta, point.v + length * d_v, point.eta + length * d_eta
            new = self.likelihood.at(beta, v, point.theta, eta)
            if new is not None and new.h >= point.h + 1e-4 * length * slope - rounding:
                return new
            length *= 0.5
        return None

    def gradient(self, mode: Mode) -> np.ndarray:
        """Exact gradient of the value with respect to psi."""
        point, bordered, model = mode.point, mode.bordered, self.likelihood.model
        kappa, kappa_v = self._inverse_forms(bordered)
        s_eta, s_v, s_theta = self.likelihood.curvature_slopes(point, kappa, kappa_v)
        s_beta = model.X.T @ s_eta if self.integrate_beta else np.zeros(0)
        y_beta, y_v = bordered.solve(s_beta, (model.Z.T @ s_eta + s_v) if point.v.size else s_v)
        c_eta = (model.Z @ y_v if y_v.size else np.zeros(model.n_rows)) + (
            model.X @ y_beta if self.integrate_beta else 0.0
        )
        theta_part = s_theta + self.likelihood.theta_score(point, c_eta, y_v)
        if self.integrate_beta and model.theta_design is None:
            return theta_part
        total = point.score + s_eta - self._weighted(point.weight, c_eta)  # how the value moves with the predictors
        if model.theta_design is not None:
            theta_part = theta_part + model.theta_design.T @ total
        return theta_part if self.integrate_beta else np.concatenate([model.X.T @ total, theta_part])

    def _inverse_forms(self, bordered: Bordered) -> tuple[np.ndarray, np.ndarray]:
        """``t' H^-1 t`` of every row of the design, (M,), and the v block of H^-1 on the pattern of D, (nnz,)."""
        return bordered.row_quadratics(), prior_inverse(self.likelihood, bordered)

    def _weighted(self, weight: np.ndarray, c: np.ndarray) -> np.ndarray:
        """``W c`` for c over the predictors' rows, pair rows included; shape (N,)."""
        likelihood = self.likelihood
        result = weight[: likelihood.n_rows] * c
        start = likelihood.n_rows
        for a, b in likelihood.pairs:
            both = weight[start : start + a.size] * (c[a] + c[b])
            result[a] += both
            result[b] += both
            start += a.size
        return result


def _is_long(step: tuple[np.ndarray, np.ndarray], point: HPoint) -> bool:
    """Whether a Newton step moves coefficients or random effects far."""
    widest = np.abs(point.eta).max(initial=0.0)
    pairs = zip(step, (point.beta, point.v), strict=True)
    return any(
        np.abs(part).max(initial=0.0) > max(LONG_STEP, LONG_SHARE * max(widest, np.abs(value).max(initial=0.0)))
        for part, value in pairs
    )


def prior_inverse(likelihood: HLikelihood, bordered: Bordered) -> np.ndarray:
    """The v block of H^-1 on the pattern of D, shape (nnz,): its diagonal (q,) where D is diagonal."""
    return bordered.inverse_diagonal()[1] if likelihood.prior_pattern is None else bordered.inverse_prior_pattern()
