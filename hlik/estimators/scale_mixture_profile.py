r"""The log-likelihood of models with multivariate t effects: an integral over their scales around another profile.

With L(psi | w) the likelihood given the scales w of the t densities (`hlik.scale_mixture`), by adaptive quadrature or
by Laplace's approximation,

.. math:: \log \int L(\psi \mid w) \prod_j p(w_j; \nu_j)\, dw, \qquad p = \mathrm{Gamma}(\nu_j/2, \nu_j/2).

As a function of log w the integrand is close to a gamma density: it is one where the effects are known, and where the
data say nothing about them. The rule is therefore adaptive Gauss-Laguerre: a gamma density of w with the mode and the
curvature of the integrand in log w (both by Laplace's approximation), its product over j where there are two. The
curvature is the inverse of the marginal variance, so that correlated scales are covered.

The gradient is the mean over the nodes, by their shares of the integral, of the gradients given w and those of log p.
How the nodes move with psi is left out: the integral does not depend on where they are, up to the error of the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import special

from hlik.gamma_rule import gamma_rule, log_gamma_density, log_gamma_slope
from hlik.hlikelihood import HLikelihood
from hlik.linalg import NotPositiveDefinite
from hlik.profile import Mode, ModeError, Profile
from hlik.scale_mixture import ScaleMixture

MAX_STEPS = 100
CENTRED = 1e-4  # standard deviations of log w: the rule hardly depends on its centre
FALL = 1e-3  # of the log integrand that differences may cause
STEP = 0.3  # of differences in log w, in its standard deviations if all effects were known
NEGLIGIBLE = -46.0  # log of a node's probability, 1e-20, below which it is left out
MAY_FAIL = -23.0  # the same, 1e-10, below which the likelihood may have no value there


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
    points
        Nodes a scale.

    Notes
    -----
    Cost: ``points ** m`` values and gradients of the inner profile, m the number of t densities, and about ten modes
    of h to find the centre.
    """

    moves_effects = True

    def __init__(self, likelihood: HLikelihood, inner: Callable[[HLikelihood], Profile], points: int):
        self.mixture = ScaleMixture(likelihood)
        super().__init__(self.mixture.conditional, integrate_beta=False)
        self.inner, self.points = inner(self.mixture.conditional), points
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
        centre, shape, v = self._centred(psi, beta, v, degrees)
        nodes, log_share = self._rule(centre, shape)
        for j, nu in enumerate(degrees):
            log_share += log_gamma_density(nodes[:, j], 0.5 * nu, 0.5 * nu)
            log_share -= log_gamma_density(nodes[:, j], shape[j], shape[j] / np.exp(centre[j]))
        gradients, modes = np.zeros((len(nodes), psi.size)), np.tile(v, (len(nodes), 1))
        start: dict[bool, np.ndarray] = {}
        first = nodes[:, 0] - np.exp(centre[0])
        for k in np.argsort(np.abs(first)):  # away from the centre, each from its neighbour's mode
            side = bool(first[k] > 0)
            value, gradients[k], modes[k] = self._at_node(psi, beta, start.get(side, v), nodes[k], log_share[k])
            log_share[k] += value
            if np.isfinite(value):
                start[side] = modes[k]
        total = float(special.logsumexp(log_share))
        if not np.isfinite(total):
            raise ModeError("the integral over the scales has no finite value")
        share = np.exp(log_share - total)
        gradient = share @ gradients
        for j, nu in enumerate(degrees):
            slope = 0.5 * float(share @ log_gamma_slope(nodes[:, j], 0.5 * nu))
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

    def _rule(self, centre: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nodes w, (K, m), and the logs of their probabilities, (K,), without those that do not count."""
        rules = [gamma_rule(self.points, a, a / np.exp(z)) for z, a in zip(centre, shape, strict=True)]
        nodes = np.array(list(product(*(nodes for nodes, _ in rules))))
        log_share = np.array([sum(found) for found in product(*(probabilities for _, probabilities in rules))])
        kept = log_share > NEGLIGIBLE
        return nodes[kept], log_share[kept]

    def _at_node(
        self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray, weights: np.ndarray, log_share: float
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and mode given w; no value where there is none and the node hardly counts."""
        self.mixture.condition(weights)
        try:
            found = self.inner.mode(psi, beta, v)
            return found.value, self.inner.gradient(found), found.point.v
        except (ModeError, NotPositiveDefinite):
            if log_share > MAY_FAIL:
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

    def _centred(
        self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray, degrees: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mode of log w, shapes of the matching gamma densities, both (m,), and v there, by Laplace's approximation."""
        search = _Search(self, psi, beta, v, degrees)
        centre = self._centre
        if not np.isfinite(search.value(centre)):
            centre = np.zeros_like(centre)
        for _ in range(MAX_STEPS):
            slope, curvature = search.derivatives(centre)
            values, vectors = np.linalg.eigh(curvature)
            usable = np.maximum(np.abs(values), 0.05 * degrees.min())
            step = np.clip(vectors @ ((vectors.T @ slope) / usable), -1.0, 1.0)
            if np.all(np.abs(step) * np.sqrt(usable.max()) < CENTRED):
                variance = np.diag((vectors / usable) @ vectors.T)
                return centre + step, 1.0 / variance, search.v
            now, length = search.value(centre), 1.0
            while search.value(centre + length * step) < now - FALL and length > 1e-3:
                length *= 0.5
            centre = centre + length * step
        raise ModeError("the scales of the t densities have no mode")


class _Search:
    """Laplace's approximation of the log integrand as a function of log w, with its derivatives by differences."""

    def __init__(
        self, profile: ScaleMixtureProfile, psi: np.ndarray, beta: np.ndarray, v: np.ndarray, degrees: np.ndarray
    ):
        self.profile, self.psi, self.beta, self.v, self.degrees = profile, psi, beta, v, degrees
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
        density = (log_gamma_density(w[j : j + 1], 0.5 * nu, 0.5 * nu)[0] for j, nu in enumerate(self.degrees))
        return mode.value + float(sum(density))

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
