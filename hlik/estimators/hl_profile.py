r"""The functions of theta that HL(mean, dispersion) maximises, with their gradients.

``mean=0``: (beta, v) are at the joint mode of h, and the value is p_bv(h) of `hlik.adjusted_profile`. ``mean=1``: beta
maximises p_v(h) for each theta, v is the mode of h for that beta, and p_bv(h) there is

.. math:: R(\theta) = p_v(h)(\hat\beta, \theta) - \tfrac12 \log |S / 2\pi|, \qquad
          S = X'WX - X'WZ C^{-1} Z'WX, \quad |H| = |C| |S|.

With E its second term, as a function of (beta, theta) along the mode of v, and P the second derivatives of p_v(h) in
(beta, theta), the implicit derivative of :math:`\hat\beta` gives

.. math:: \frac{dR}{d\theta} = \frac{\partial p_v(h)}{\partial\theta} + E_\theta
          + \Big(\frac{d\hat\beta}{d\theta}\Big)' E_\beta, \qquad
          \frac{d\hat\beta}{d\theta} = -P_{\beta\beta}^{-1} P_{\beta\theta},

P by central differences of exact gradients. ``dispersion=2`` adds -F/24 of `hlik.second_order` at the same
(beta, v); its gradient comes from central differences of fourth order in theta, beta moving along its derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from hlik.adjusted_profile import LOG_2PI, Mode, ModeError, Profile
from hlik.hlikelihood import HLikelihood, HPoint
from hlik.implicit import implicit_gradient
from hlik.linalg import NotPositiveDefinite
from hlik.linalg.bordered import Bordered
from hlik.second_order import SecondOrder

STEP = 1e-3  # of differences of gradients in beta, in standard errors
THETA_STEP = 1e-2  # of differences of -F/24, on the unconstrained scale
EXACT = 1e-9  # standard errors: the last step of Newton's method
MAX_NEWTON = 10
SCORE = 1e-6  # the score of p_v(h) in beta, in standard errors, that counts as zero


@dataclass(frozen=True, eq=False)
class HLMode(Mode):
    """A `Mode` whose `bordered` is H in (beta, v); `inner` is that of v for the same beta."""

    inner: Mode


class HLProfile(Profile):
    """p_bv(h) or s_bv(h) as a function of theta, with beta from h or from p_v(h).

    Parameters
    ----------
    likelihood
        h of a model.
    mean
        0: beta maximises h together with v; 1: beta maximises p_v(h).
    dispersion
        1: p_bv(h); 2: with the second-order term, s_bv(h).
    """

    def __init__(self, likelihood: HLikelihood, mean: int, dispersion: int):
        super().__init__(likelihood, integrate_beta=True)
        self.mean = mean
        self.inner = Profile(likelihood)
        self.second = SecondOrder(likelihood) if dispersion == 2 else None
        self._curvature: np.ndarray | None = None  # of p_v(h) in beta at the last gradient: a metric, not a result

    def mode(self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray) -> HLMode:
        """beta and v for theta, and the value there."""
        found = self._first_order(psi, beta, v)
        if self.second is None:
            return found
        return HLMode(found.point, found.bordered, found.value + self.second.value(found.inner), found.inner)

    def gradient(self, mode: Mode) -> np.ndarray:
        """Gradient of the value by theta."""
        assert isinstance(mode, HLMode)
        point = mode.point
        if self.mean == 0:
            first = super().gradient(mode)
            return first + self._second_gradient(
                point, lambda move: self._first_order(point.theta + move, point.beta, point.v).inner
            )
        second = self._second_derivatives(mode)
        p = self.n_beta
        self._curvature = -second[:p]
        path = -np.linalg.solve(second[:p], second[p:].T)  # d beta / d theta
        first = self._marginal_gradient(mode, path)
        return first + self._second_gradient(
            point, lambda move: self._inner(point.beta + path @ move, point.theta + move, point.v)
        )

    def _first_order(self, theta: np.ndarray, beta: np.ndarray, v: np.ndarray) -> HLMode:
        if self.mean == 0:
            joint = super().mode(theta, beta, v)
            beta, v = joint.point.beta, joint.point.v
            return HLMode(joint.point, joint.bordered, joint.value, self._inner(beta, theta, v))
        start = self._inner(beta, theta, v)
        inner = self._maximum(start)
        full = self._factored(inner.point)
        adjustment = full.logdet() - full.logdet_z() - inner.point.beta.size * LOG_2PI
        return HLMode(inner.point, full, inner.value - 0.5 * adjustment, inner)

    def _inner(self, beta: np.ndarray, theta: np.ndarray, v: np.ndarray) -> Mode:
        """The mode of v for (beta, theta)."""
        return self.inner.mode(np.concatenate([beta, theta]), beta, v)

    def _factored(self, point: HPoint) -> Bordered:
        """H in (beta, v)."""
        try:
            return self.system.factor(point.weight, point.random_weight)
        except NotPositiveDefinite as error:
            raise ModeError(f"the curvature of h is not positive definite: {error}") from error

    def _maximum(self, start: Mode) -> Mode:
        """The maximum of p_v(h) in beta: Newton's method with the last known curvature, else a search."""
        if not self.n_beta:
            return start
        found = None if self._curvature is None else self._newton(start, self._curvature)
        return self._search(start) if found is None else found

    def _newton(self, start: Mode, curvature: np.ndarray) -> Mode | None:
        """Steps with a fixed curvature, shape (p, p); None where they do not become shorter fast."""
        found, last = start, np.inf
        for _ in range(MAX_NEWTON):
            score = self.inner.gradient(found)[: self.n_beta]
            step = np.linalg.solve(curvature, score)
            length = np.sqrt(abs(score @ step))
            if length < EXACT:
                return found
            if length > 0.5 * last:
                return None
            last = length
            found = self._inner(found.point.beta + step, start.point.theta, found.point.v)
        return None

    def _search(self, start: Mode) -> Mode:
        """A quasi-Newton search (Powell's hybrid method) that begins with the curvature of h."""
        root = np.linalg.cholesky(self._factored(start.point).inverse_x)
        found = start

        def score(z: np.ndarray) -> np.ndarray:
            nonlocal found
            found = self._inner(start.point.beta + root @ z, start.point.theta, found.point.v)
            return root.T @ self.inner.gradient(found)[: self.n_beta]

        unit = np.eye(self.n_beta)
        begin = np.zeros(self.n_beta)
        solution = optimize.root(score, begin, jac=lambda z: -unit, method="hybr", tol=1e-12)  # type: ignore[call-overload]
        if not np.abs(score(solution.x)).max() < SCORE:
            raise ModeError("p_v(h) has no maximum in the fixed effects")
        return found

    def _marginal_gradient(self, mode: HLMode, path: np.ndarray) -> np.ndarray:
        """dR/dtheta; `path` is d beta / d theta, (p, r)."""
        p, inner = self.n_beta, mode.inner
        kappa, kappa_v = self._inverse_forms(mode.bordered)
        inner_kappa, inner_kappa_v = self.inner._inverse_forms(inner.bordered)
        nothing = np.zeros_like(mode.point.v)
        slope = implicit_gradient(self.inner, inner, kappa - inner_kappa, kappa_v - inner_kappa_v, nothing)
        return self.inner.gradient(inner)[p:] + slope[p:] + path.T @ slope[:p]

    def beta_errors(self, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
        """Covariance of beta given theta, (p, p), and d beta / d theta, (p, r), from p_v(h): for ``mean=1``.

        Raises
        ------
        ModeError
            Where p_v(h) is not concave in beta.
        """
        assert isinstance(mode, HLMode)
        p, second = self.n_beta, self._second_derivatives(mode)
        if not p:
            return np.zeros((0, 0)), np.zeros((0, mode.point.theta.size))
        curvature = -0.5 * (second[:p] + second[:p].T)
        if np.linalg.eigvalsh(curvature)[0] <= 0:
            raise ModeError("p_v(h) has no maximum in the fixed effects")
        return np.linalg.inv(curvature), np.linalg.solve(curvature, second[p:].T)

    def _second_derivatives(self, mode: HLMode) -> np.ndarray:
        """Second derivatives of p_v(h) by (beta, theta) and beta, shape (p + r, p)."""
        point = mode.point
        steps = STEP * np.sqrt(np.diag(mode.bordered.inverse_x))
        result = np.zeros((self.n_beta + point.theta.size, self.n_beta))
        for column, move in enumerate(np.diag(steps)):
            up, down = (
                self.inner.gradient(self._inner(point.beta + sign * move, point.theta, point.v)) for sign in (1, -1)
            )
            result[:, column] = (up - down) / (2 * steps[column])
        return result

    def _second_gradient(self, point: HPoint, moved: Callable[[np.ndarray], Mode]) -> np.ndarray:
        """The gradient of -F/24 by theta; `moved` gives the mode of v beside, beta having moved with theta."""
        gradient = np.zeros(point.theta.size)
        if self.second is None:
            return gradient
        for k, move in enumerate(THETA_STEP * np.eye(point.theta.size)):
            low2, low1, high1, high2 = (self.second.value(moved(times * move)) for times in (-2, -1, 1, 2))
            gradient[k] = (low2 - 8 * low1 + 8 * high1 - high2) / (12 * THETA_STEP)
        return gradient
