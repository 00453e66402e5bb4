r"""The log-likelihood of models with multivariate t effects: an integral over their scales around another profile.

With L(psi | w) the likelihood given the scales w of the t densities (`hlik.scale_mixture`), by adaptive quadrature or
by Laplace's approximation,

.. math:: \log \int L(\psi \mid w) \prod_j p(w_j; \nu_j)\, dw, \qquad p = \mathrm{Gamma}(\nu_j/2, \nu_j/2).

The rule is the trapezoidal one in log w, centred at the mode of the integrand, of two or more dimensions their product:
its error falls exponentially with the distance of the nodes for integrands that are smooth on the whole line (Trefethen
& Weideman 2014). As a function of log w this one is close to a gamma density: it is one where the effects are known,
and where the data say nothing about them. With a the shape of the gamma density of the same curvature at the mode,
nodes at the distance d have the relative error :math:`2 |\Gamma(a + 2 \pi i / d)| / \Gamma(a)`, which sets d. They
reach as far as the integrand counts, left further than right. Mode, curvature and reach are those of Laplace's
approximation.

The gradient is the mean over the nodes, by their shares of the integral, of the gradients given w and those of log p.
How the nodes move with psi is left out: the integral does not depend on where they are, up to the error of the rule.

References
----------
Trefethen, L. N. & Weideman, J. A. C. (2014). The exponentially convergent trapezoidal rule. SIAM Review 56, 385-458.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import optimize, special

from hlik.adjusted_profile import Mode, ModeError, Profile
from hlik.hlikelihood import HLikelihood
from hlik.linalg import NotPositiveDefinite
from hlik.scale_mixture import ScaleMixture, log_scale_density, log_scale_slope

MAX_STEPS = 100
CENTRED = 1e-4  # standard deviations of log w: the rule hardly depends on its centre
FALL = 1e-3  # of the log integrand that differences may cause
STEP = 0.3  # of differences in log w, in its standard deviations if all effects were known
TOLERANCE = 1e-8  # of the integral, relative
MOST = 400  # nodes on each side of the centre
MAY_FAIL = 1e-6  # share of a node by Laplace's approximation below which the likelihood may have no value there


@dataclass(frozen=True, eq=False)
class MixtureMode(Mode):
    """The random effects at their mean over the scales, h given the mean scales there, and the value.

    Attributes
    ----------
    weights
        Means of w given the data, shape (m,).
    gradient
        Of the value by (beta, theta).
    nodes, share
        Values of w, (K, m), and their shares of the integral, (K,).
    v_nodes
        Modes of the random effects there, shape (K, q).
    """

    weights: np.ndarray
    gradient: np.ndarray
    nodes: np.ndarray
    share: np.ndarray
    v_nodes: np.ndarray


class ScaleMixtureProfile(Profile):
    """The marginal log-likelihood of (beta, theta) with the scales of multivariate t effects integrated out.

    Parameters
    ----------
    likelihood
        h of the model.
    inner
        Makes the profile of the model given the scales.
    tolerance
        Relative error of the integral over the scales.

    Notes
    -----
    Cost: 15 to 30 values and gradients of the inner profile, for two t densities the square of that, and two or three
    times as many modes of h to find out where.
    """

    moves_effects = True

    def __init__(self, likelihood: HLikelihood, inner: Callable[[HLikelihood], Profile], tolerance: float = TOLERANCE):
        self.mixture = ScaleMixture(likelihood)
        super().__init__(self.mixture.conditional, integrate_beta=False)
        self.inner, self.tolerance = inner(self.mixture.conditional), tolerance
        self.plain = Profile(self.mixture.conditional)
        self._centre = np.zeros(self.mixture.size)  # log w

    def mode(self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray) -> MixtureMode:
        """The value, its gradient, and the random effects: their modes given w, averaged over w.

        Raises
        ------
        ModeError
            Where the likelihood has no value at scales that count.
        """
        beta, theta = self.split(psi, beta)
        degrees = np.array([float(found.value(theta)[0]) for found in self.mixture.degrees])
        if not np.all(np.isfinite(degrees) & (degrees > 0)):
            raise ModeError("the degrees of freedom are not positive numbers")
        search = _Search(self, psi, beta, v, degrees)
        centre, shape = self._centred(search)
        nodes, rough, spacing = self._rule(search, centre, shape)
        terms = sum(log_scale_density(nodes[:, j], nu) for j, nu in enumerate(degrees)) + np.log(spacing).sum()
        gradients, modes = np.zeros((len(nodes), psi.size)), np.tile(search.v, (len(nodes), 1))
        start = {True: search.centre_v, False: search.centre_v}
        first = nodes[:, 0] - np.exp(centre[0])
        for k in np.argsort(np.abs(first)):  # away from the centre, each from its neighbour's mode
            side = bool(first[k] > 0)
            value, gradients[k], modes[k] = self._at_node(psi, beta, start[side], nodes[k], rough[k])
            terms[k] += value
            start[side] = modes[k]
        total = float(special.logsumexp(terms))
        if not np.isfinite(total):
            raise ModeError("the integral over the scales has no finite value")
        share = np.exp(terms - total)
        gradient = share @ gradients
        for j, nu in enumerate(degrees):
            slope = float(share @ log_scale_slope(nodes[:, j], nu))
            gradient[self.n_beta :] += slope * self.mixture.degrees[j].jacobian(theta)[0]
        self._centre = centre
        return self._summed(total, gradient, nodes, share, modes, (beta, theta))

    def gradient(self, mode: Mode) -> np.ndarray:
        """Gradient of the value by (beta, theta), kept with it."""
        assert isinstance(mode, MixtureMode)
        return mode.gradient

    def given(self, mode: MixtureMode, k: int) -> Mode:
        """The mode of h given the scales of node k."""
        self.mixture.condition(mode.nodes[k])
        point = mode.point
        return self.plain.mode(np.concatenate([point.beta, point.theta]), point.beta, mode.v_nodes[k])

    def _rule(
        self, search: _Search, centre: np.ndarray, shape: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nodes w, (K, m), the rough height of the integrand there, (K,), and their distances in log w, (m,)."""
        spacing = np.array([_spacing(a, self.tolerance) for a in shape])
        least = np.log(self.tolerance) - 3.0  # many nodes are left out
        top, lines = search.value(centre), []
        for j, step in enumerate(np.diag(spacing)):
            reach = [
                next(k for k in range(1, MOST) if search.value(centre + s * k * step) < top + least) for s in (-1, 1)
            ]
            lines.append(centre[j] + spacing[j] * np.arange(-reach[0], reach[1] + 1))
        log_w = np.array(list(product(*lines)))
        height = np.array([search.value(z) for z in log_w]) - top
        return np.exp(log_w[height > least]), height[height > least], spacing

    def _at_node(
        self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray, weights: np.ndarray, height: float
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and mode given w; no value where there is none and the node hardly counts."""
        self.mixture.condition(weights)
        try:
            found = self.inner.mode(psi, beta, v)
            return found.value, self.inner.gradient(found), found.point.v
        except (ModeError, NotPositiveDefinite):
            if height > np.log(MAY_FAIL):
                raise
            return -np.inf, np.zeros(psi.size), v

    def _summed(
        self,
        value: float,
        gradient: np.ndarray,
        nodes: np.ndarray,
        share: np.ndarray,
        modes: np.ndarray,
        parameters: tuple[np.ndarray, np.ndarray],
    ) -> MixtureMode:
        """The means over the nodes, and h given the mean scales there."""
        beta, theta = parameters
        weights = share @ nodes
        self.mixture.condition(weights)
        point = self.mixture.conditional.at(beta, share @ modes, theta)
        if point is None:
            raise ModeError("h has no value at the mean of the random effects")
        try:
            bordered = self.system.factor(point.weight, point.random_weight)
        except NotPositiveDefinite as error:
            raise ModeError(f"h has no curvature at the mean of the random effects: {error}") from error
        return MixtureMode(point, bordered, value, weights, gradient, nodes, share, modes)

    # ------------------------------------------------------------ where the nodes are

    def _centred(self, search: _Search) -> tuple[np.ndarray, np.ndarray]:
        """Mode of log w, and shapes of the gamma densities that match the integrand there, both (m,)."""
        centre = self._centre
        if not np.isfinite(search.value(centre)):
            centre = np.zeros_like(centre)
        for _ in range(MAX_STEPS):
            slope, curvature = search.derivatives(centre)
            values, vectors = np.linalg.eigh(curvature)
            usable = np.maximum(np.abs(values), 0.05 * search.degrees.min())
            step = np.clip(vectors @ ((vectors.T @ slope) / usable), -1.0, 1.0)
            if np.all(np.abs(step) * np.sqrt(usable.max()) < CENTRED):
                variance = np.diag((vectors / usable) @ vectors.T)
                search.centre_v = search.v
                return centre + step, 1.0 / variance
            now, length = search.value(centre), 1.0
            while search.value(centre + length * step) < now - FALL and length > 1e-3:
                length *= 0.5
            centre = centre + length * step
        raise ModeError("the scales of the t densities have no mode")


def _spacing(shape: float, tolerance: float) -> float:
    """Distance of the nodes of the trapezoidal rule for the log of a gamma variable, at which its error is so large."""
    wanted = np.log(tolerance / 2)
    peak = special.loggamma(shape).real

    def excess(log_frequency: float) -> float:
        return float(special.loggamma(complex(shape, np.exp(log_frequency))).real - peak - wanted)

    low = 0.5 * np.log(shape)
    high = low
    while excess(high) > 0:
        high += 1.0
    while excess(low) < 0:
        low -= 1.0
    return 2 * np.pi / float(np.exp(optimize.brentq(excess, low, high, xtol=1e-10)))


class _Search:
    """Laplace's approximation of the log integrand as a function of log w, with its derivatives by differences."""

    def __init__(
        self, profile: ScaleMixtureProfile, psi: np.ndarray, beta: np.ndarray, v: np.ndarray, degrees: np.ndarray
    ):
        self.profile, self.psi, self.beta, self.v, self.degrees = profile, psi, beta, v, degrees
        self.centre_v = v
        self.steps = STEP / np.sqrt(0.5 * (degrees + v.size))
        self._known: dict[bytes, float] = {}

    def value(self, log_w: np.ndarray) -> float:
        """The log integrand, -inf where h has no mode."""
        key = log_w.tobytes()
        if key not in self._known:
            self._known[key] = self._computed(log_w)
        return self._known[key]

    def _computed(self, log_w: np.ndarray) -> float:
        w = np.exp(log_w)
        self.profile.mixture.condition(w)
        try:
            mode = self.profile.plain.mode(self.psi, self.beta, self.v)
        except (ModeError, NotPositiveDefinite):
            return -np.inf
        self.v = mode.point.v
        return mode.value + float(sum(log_scale_density(w[j], nu) for j, nu in enumerate(self.degrees)))

    def derivatives(self, log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First derivatives, (m,), and minus the second ones, (m, m), by central differences."""
        m, moves = log_w.size, np.diag(self.steps)
        slope, curvature, centre = np.zeros(m), np.zeros((m, m)), self.value(log_w)
        for j in range(m):
            up, down = self.value(log_w + moves[j]), self.value(log_w - moves[j])
            slope[j] = (up - down) / (2 * self.steps[j])
            curvature[j, j] = (2 * centre - up - down) / self.steps[j] ** 2
            for i in range(j):
                ends = [self.value(log_w + a * moves[i] + b * moves[j]) * a * b for a in (1, -1) for b in (1, -1)]
                curvature[i, j] = curvature[j, i] = -sum(ends) / (4 * self.steps[i] * self.steps[j])
        if not (np.all(np.isfinite(slope)) and np.all(np.isfinite(curvature))):
            raise ModeError("h has no mode near the scales that the data point to")
        return slope, curvature
