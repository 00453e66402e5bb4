r"""The marginal log-likelihood of models whose random effects have a density with a kink (Laplace effects).

Such a density, :math:`e^{-|v| / b} / 2b`, has no second derivative at its centre, where the mode of h often is: neither
Laplace's approximation nor a Gauss-Hermite rule around that mode applies. Where every response has one such effect the
likelihood is a product of integrals over the line, and each of them is smooth on both sides of the kink. They are taken
by Gauss-Legendre rules on three panels, which the kink and the mode separate and which end where the integrand has
fallen to :math:`e^{-32}` of its maximum; the error falls exponentially with the number of nodes (Davis & Rabinowitz
1984, section 4.6).

The gradient is the mean of that of h over the nodes, by their shares of the integral: the integral does not depend on
where the panels end, up to the error of the rule. Random effects are means given the responses, their variances too are
those of the integral: :math:`C_{jj} = 1 / \mathrm{var}(v_j \mid y)` takes the place of the curvature of h.

References
----------
Davis, P. J. & Rabinowitz, P. (1984). Methods of Numerical Integration, 2nd ed. Academic Press.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy import special

from hlik.adjusted_profile import Mode, ModeError, Profile
from hlik.batch import Batch, columns_at_once, predictors
from hlik.blocks import Blocks
from hlik.estimators.agq_profile import case_blocks, summing, v_scores
from hlik.estimators.laplace_start import Start, plain_start
from hlik.hlikelihood import HLikelihood, HPoint
from hlik.linalg import NotPositiveDefinite
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel
from hlik.terms import FlatTerm

FALL = 32.0  # of the log integrand, where panels end: what is left out is 1e-14 of the integral
BESIDE = 1e-8  # the distance from a kink at which the slopes on both sides are taken
DOUBLINGS = 100
HALVINGS = 12  # the mode only separates panels: it need not be exact
TO_ROUNDING = 60  # halvings of the place of a kink
NEARER = 3  # halvings of the distance between a point too near and one twice as far


@dataclass(frozen=True, eq=False)
class KinkedMode(Mode):
    """Random effects at their means, with the precisions of the integral, the value, and its gradient by psi.

    `log_sum` (q,) are the logs of the integrals.
    """

    gradient: np.ndarray
    log_sum: np.ndarray


class KinkedProfile(Profile):
    """The marginal log-likelihood of (beta, theta), one effect with a kink in every response.

    Parameters
    ----------
    likelihood
        h of a model whose random effects all have a density with a kink, in blocks of one.
    points
        Nodes of each of the three panels.

    Notes
    -----
    Cost of a value with its gradient: h and its score at ``3 points`` values of v, and some twenty more to place them.
    """

    moves_effects = True

    def __init__(self, likelihood: HLikelihood, points: int):
        super().__init__(likelihood)
        self.nodes, weights = special.roots_legendre(points)
        self.log_weights = np.log(weights)
        blocks = Blocks.of(likelihood)
        _, row_block = blocks.local_design(likelihood.Z)
        count = blocks.size.size
        self.case_block = case_blocks(likelihood, row_block[: likelihood.n_rows], count)
        self.case_sums = summing(self.case_block, count + 1)
        self._width = np.ones((count, 2))  # distances of the ends from the mode, of the last evaluation

    def mode(self, psi: np.ndarray, beta: np.ndarray, v: np.ndarray) -> KinkedMode:
        """The value, its gradient, and means and variances of the random effects.

        Raises
        ------
        ModeError
            Where the integrand has no maximum, or the integral no finite value.
        """
        beta, theta = self.split(psi, beta)
        integrand = _Integrand(self, beta, theta)
        edges = self._edges(integrand)
        half = np.diff(edges, axis=1)[:, :, None] / 2
        middle = integrand.kink[:, None, None] + (edges[:, :-1, None] + edges[:, 1:, None]) / 2
        nodes = (middle + half * self.nodes).reshape(v.size, -1)
        with np.errstate(divide="ignore"):
            log_weight = (np.log(half) + self.log_weights).reshape(v.size, -1)
        log_terms = log_weight + self._by_chunks(beta, theta, nodes)[: v.size]
        log_sum = special.logsumexp(log_terms, axis=1)
        share = np.exp(log_terms - log_sum[:, None])
        rest = self._by_chunks(beta, theta, np.zeros((v.size, 1)))[v.size, 0] if self.case_sums.shape[1] else 0.0
        value = float(log_sum.sum() + rest)
        if not np.isfinite(value):
            raise ModeError("the integral over the random effects has no finite value")
        mean = (share * nodes).sum(axis=1)
        variance = (share * (nodes - mean[:, None]) ** 2).sum(axis=1)
        gradient = self._mean_gradient(beta, theta, nodes, share)
        point, bordered = self._summed(mean, variance, (beta, theta))
        return KinkedMode(point, bordered, value, gradient, log_sum)

    def block_values(self, mode: Mode) -> np.ndarray:
        """The log integral of every effect, shape (q,)."""
        assert isinstance(mode, KinkedMode)
        return mode.log_sum

    def gradient(self, mode: Mode) -> np.ndarray:
        """Gradient of the value by (beta, theta), kept with it."""
        assert isinstance(mode, KinkedMode)
        return mode.gradient

    def _edges(self, integrand: _Integrand) -> np.ndarray:
        """Ends of the panels of every effect, from its kink, shape (q, 4)."""
        mode = integrand.modes()
        top = integrand.value(mode[:, None])
        self._width = _reach(lambda width: integrand.value(mode[:, None] + width * [-1, 1]) < top - FALL, self._width)
        low, high = (mode[:, None] + self._width * [-1, 1]).T
        inner = np.sort(np.column_stack([mode, np.clip(0.0, low, high)]), axis=1)
        return np.column_stack([low, inner, high])

    def log_h(self, beta: np.ndarray, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """h by effect at v (q, m), and what no effect touches below: shape (q + 1, m); -inf out of range."""
        batch = Batch.at(self.likelihood, beta, v, theta)
        found = self.case_sums @ batch.case_values()
        found[: v.shape[0]] += batch.level_values()
        return np.where(np.isnan(found), -np.inf, found)

    def _chunks(self, m: int) -> list[slice]:
        step = columns_at_once(self.likelihood)
        return [slice(start, start + step) for start in range(0, m, step)]

    def _by_chunks(self, beta: np.ndarray, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.hstack([self.log_h(beta, theta, v[:, part]) for part in self._chunks(v.shape[1])])

    def _mean_gradient(self, beta: np.ndarray, theta: np.ndarray, nodes: np.ndarray, share: np.ndarray) -> np.ndarray:
        """The mean of dh/dpsi over the nodes, (p + r,)."""
        centre = nodes[np.arange(len(nodes)), share.argmax(axis=1)]
        safe = np.where(share > 0, nodes, centre[:, None])  # where a node does not count h may have no derivatives
        total = np.zeros(beta.size + theta.size)
        for part in self._chunks(nodes.shape[1]):
            batch = Batch.at(self.likelihood, beta, safe[:, part], theta, order=1, with_theta=True)
            by_case = np.vstack([share[:, part], np.full((1, share[:, part].shape[1]), 1.0 / nodes.shape[1])])
            total += batch.gradient(by_case[self.case_block], share[:, part])
        return total

    def _summed(
        self, mean: np.ndarray, variance: np.ndarray, parameters: tuple[np.ndarray, np.ndarray]
    ) -> tuple[HPoint, Bordered]:
        """h at the means, with the precisions of the integral in the place of its curvature."""
        point = self.likelihood.at(parameters[0], mean, parameters[1])
        if point is None:
            raise ModeError("h has no value at the means of the random effects")
        point = self._with_precisions(point, 1.0 / np.maximum(variance, 1e-300))
        try:
            bordered = self.system.factor(point.weight, point.random_weight)
        except NotPositiveDefinite as error:
            raise ModeError(f"the random effects have no variance: {error}") from error
        return point, bordered

    def _with_precisions(self, point: HPoint, precision: np.ndarray) -> HPoint:
        """The weights of the effects' own densities such that ``diag C`` is `precision`."""
        likelihood = self.likelihood
        square = sp.csr_array(likelihood.Z).power(2)
        missing = precision - point.random_weight - square.T @ point.weight
        return replace(point, random_weight=point.random_weight + missing)


def kink_obstacles(model: HierarchicalModel) -> list[str]:
    """Why the integrals cannot be taken here; empty where they can."""
    kinked = model.kinks[0].split(" has")[0]
    if len(model.kinks) < len(model.random_effects):
        return [f"{kinked} has a kink and other random effects have none, and AGQ takes models of either kind"]
    if Blocks.of(HLikelihood(model)).largest > 1:
        return [f"{kinked} has a kink, and AGQ then takes one random effect an observation, not several"]
    return []


def start_without_effects(likelihood: HLikelihood, start: dict[str, np.ndarray]) -> Start:
    """Starting values with the fixed effects of the model without random effects."""
    model = likelihood.model
    first = len(model.responses)
    rest = model.extra_terms[sum(isinstance(term, FlatTerm) for term in likelihood.random_terms) :]
    empty = sp.csr_array((model.n_rows, 0))
    reduced = HLikelihood(replace(model, random_effects=(), Z=empty, extra_terms=rest))
    assert len(reduced.terms) == first + len(rest)
    begin = plain_start(reduced, False, start)
    return replace(begin, v=likelihood.start_v())


class _Integrand:
    """h by effect as a function of the effects' distances from their kinks, at fixed parameters."""

    def __init__(self, profile: KinkedProfile, beta: np.ndarray, theta: np.ndarray):
        self.likelihood, self.log_h = profile.likelihood, profile.log_h
        self.beta, self.theta = beta, theta
        self.size = profile.likelihood.model.n_random
        self.kink = self._kinks()

    def value(self, distance: np.ndarray) -> np.ndarray:
        """Shape (q, m)."""
        return self.log_h(self.beta, self.theta, self.kink[:, None] + distance)[: self.size]

    def score(self, distance: np.ndarray) -> np.ndarray:
        """Derivative by v, shape (q, m)."""
        v = self.kink[:, None] + distance
        return v_scores(self.likelihood, Batch.at(self.likelihood, self.beta, v, self.theta, order=1), v.shape)

    def _kinks(self) -> np.ndarray:
        """Where the log densities stop rising, shape (q,): zero, or by bisection for densities about another centre."""
        beside = [self._density_score(np.full(self.size, at)) for at in (-BESIDE, BESIDE)]
        away = np.where(beside[1] > 0, 1.0, np.where(beside[0] < 0, -1.0, 0.0))
        if not away.any():
            return away
        far = _doubled(lambda t: away * self._density_score(away * t) <= 0, np.ones(self.size))
        near = np.zeros(self.size)
        for _ in range(TO_ROUNDING):
            middle = (near + far) / 2
            rises = away * self._density_score(away * middle) > 0
            near, far = np.where(rises, middle, near), np.where(rises, far, middle)
        return away * (near + far) / 2

    def _density_score(self, v: np.ndarray) -> np.ndarray:
        """Derivative of the effects' own log densities, shape (q,)."""
        model = self.likelihood.model
        first = len(model.responses)
        eta, by_row = predictors(self.likelihood, self.beta, v[:, None], self.theta), np.zeros((model.n_rows, 1))
        for term in self.likelihood.terms[first : first + len(model.random_effects)]:
            by_row[term.rows] = term.cases(eta, self.theta, 1).score.reshape(-1, 1)
        return np.asarray(model.Z.T @ by_row)[:, 0]

    def modes(self) -> np.ndarray:
        """Where each is largest, shape (q,): at the kink, or by bisection on the side to which it rises."""
        beside = self.score(np.tile([BESIDE, -BESIDE], (self.size, 1)))
        side = np.where(beside[:, 0] > 0, 1.0, np.where(beside[:, 1] < 0, -1.0, 0.0))
        if not side.any():
            return side
        near = np.zeros(self.size)
        far = _doubled(lambda t: side * self.score((side * t)[:, None])[:, 0] <= 0, np.ones(self.size))
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            rises = side * self.score((side * middle)[:, None])[:, 0] > 0
            near, far = np.where(rises, middle, near), np.where(rises, far, middle)
        return side * (near + far) / 2


def _doubled(is_beyond: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Distances doubled until they are beyond, element by element."""
    distance = start
    for _ in range(DOUBLINGS):
        beyond = is_beyond(distance)
        if beyond.all():
            return distance
        distance = np.where(beyond, distance, 2 * distance)
    raise ModeError("the density of the random effects given the responses has no maximum")


def _reach(is_beyond: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Distances that are beyond, by at most an eighth too far."""
    far = _doubled(is_beyond, start)
    for _ in range(DOUBLINGS):
        beyond = is_beyond(far / 2)
        if not beyond.any():
            break
        far = np.where(beyond, far / 2, far)
    near = far / 2
    for _ in range(NEARER):
        middle = (near + far) / 2
        beyond = is_beyond(middle)
        near, far = np.where(beyond, near, middle), np.where(beyond, middle, far)
    return far
