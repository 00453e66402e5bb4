"""The binomial and Bernoulli families: kernels in ln mu and ln(1 - mu) (see `hlik.families`)."""

from __future__ import annotations

import numpy as np
from scipy import special as sc

from hlik.family_base import ResponseFamily, Values, quasi, times_or_zero
from hlik.link_base import Link
from hlik.links import LOGIT
from hlik.probability_links import SymmetricLink
from hlik.special import Array, quiet, relative_deviance, stirling_excess

TAIL_PROBABILITY = 1e-20
"""Below it densities and probabilities lose digits of their exponents; their ratio then comes from logarithms."""
COUNT_TOLERANCE = 1e-9
"""How far w y may be from a whole number, relative to w: a proportion y = r/w has been rounded once."""


class Binomial(ResponseFamily):
    """w y ~ Binomial(w, mu): y is the proportion of successes, w the number of trials.

    The kernel is y ln mu + (1 - y) ln(1 - mu); with a = (ln mu)' and b = (ln(1 - mu))' the expected weight is
    -a b.
    """

    name = "binomial"
    canonical_link = LOGIT
    has_dispersion = False
    support = "proportions y in [0, 1] with y * trials a whole number"

    def variance(self, mu: Array) -> Array:
        return mu * (1 - mu)

    def variance_derivative(self, mu: Array) -> Array:
        return 1 - 2 * mu

    def variance_derivative2(self, mu: Array) -> Array:
        return np.full_like(mu, -2.0, dtype=float)

    @quiet
    def unit_deviance(self, y: Array, mu: Array) -> Array:
        difference = np.asarray(mu - y)
        ones = times_or_zero(y, relative_deviance(mu, y, difference), mu)
        zeros = times_or_zero(1 - y, relative_deviance(1 - mu, 1 - y, -difference), 1 - mu)
        return 2 * (ones + zeros)

    @quiet
    def unit_deviance_at(self, y: Array, eta: Array, link: Link) -> Array:
        log_mean = link.log_mean_derivatives(eta, 0)[0]
        log_complement = link.log_complement_derivatives(eta, 0)[0]
        entropy = sc.xlogy(y, y) + sc.xlog1py(1 - y, -y)
        deviance = np.asarray(2 * (entropy - _mix(y, log_mean, log_complement)))
        near = (deviance < 0.05) & (entropy < 0)  # with y = 0 or 1 there is nothing to cancel
        if near.any():
            y, eta = (array[near] for array in np.broadcast_arrays(y, eta))
            mu, complement = link.inverse(eta), link.complement(eta)
            difference = mu * (1 - y) - complement * y
            ones = y * relative_deviance(mu, y, difference)
            zeros = (1 - y) * relative_deviance(complement, 1 - y, -difference)
            deviance[near] = 2 * (ones + zeros)
        return deviance

    def saturated_log_density(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        """Return ln C(w, w y) + w y ln y + w (1 - y) ln(1 - y), from Stirling's remainders (Loader 2000)."""
        successes = _snap(np.multiply(y, w), w)
        failures = np.maximum(w - successes, 0.0)
        saturated = stirling_excess(w) - stirling_excess(successes) - stirling_excess(failures)
        return quasi(saturated, phi)

    @quiet
    def kernel(self, y: Array, eta: Array, mu: Array, link: Link) -> Array:
        """With the logit link y ln mu + (1 - y) ln(1 - mu)."""
        return _logistic_kernel(y, eta, mu) if link == LOGIT else super().kernel(y, eta, mu, link)

    @quiet
    def kernel_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        if link == LOGIT:
            return self._logit_derivatives(y, eta, order)
        log_mean = link.log_mean_derivatives(eta, order)
        log_complement = link.log_complement_derivatives(eta, order)
        return tuple(_mix(y, a, b) for a, b in zip(log_mean[1:], log_complement[1:], strict=True))

    def _logit_derivatives(self, y: Array, eta: Array, order: int) -> tuple[Array, ...]:
        mu, weight, score = _logistic_working(y, eta)
        third = (weight * (2 * mu - 1),) if order > 2 else ()
        return (score, -weight, *third)[:order]

    @quiet
    def _unit_working(self, y: Array, eta: Array, link: Link) -> tuple[Array, Array, Array]:
        """With theta' = mu'/(mu (1 - mu)): weight mu' theta', score (y - mu) theta'; in the tails from a and b."""
        if link == LOGIT:
            return _logistic_working(y, eta)
        y, eta = np.broadcast_arrays(y, eta)
        mu, slope = link.inverse_derivatives(eta, 1)
        complement = link.complement(eta)
        theta1 = slope / (mu * complement)
        weight, score = np.asarray(slope * theta1), np.asarray((y * complement - (1 - y) * mu) * theta1)
        tail = np.asarray(~(mu * complement > TAIL_PROBABILITY))
        if tail.any():
            a = link.log_mean_derivatives(eta[tail], 1)[1]
            b = link.log_complement_derivatives(eta[tail], 1)[1]
            weight[tail], score[tail] = -a * b, _mix(y[tail], a, b)
        return mu, weight, score

    @quiet
    def _unit_weight_derivative(self, eta: Array, link: Link) -> Array:
        if link == LOGIT:
            mu, weight, _ = _logistic_working(np.zeros(1), eta)
            return weight * (1 - 2 * mu)
        _, a, a1 = link.log_mean_derivatives(eta, 2)
        _, b, b1 = link.log_complement_derivatives(eta, 2)
        return -(a1 * b + a * b1)

    def valid_mean(self, mu: Array) -> np.ndarray:
        return np.greater_equal(mu, 0) & np.less_equal(mu, 1)

    def in_support(self, y: Array, w: Values) -> np.ndarray:
        successes = np.multiply(y, w)
        whole = np.abs(successes - np.rint(successes)) <= COUNT_TOLERANCE * np.maximum(w, 1)
        return (y >= 0) & (y <= 1) & whole

    def initial_mean(self, y: Array, w: Values = 1.0) -> Array:
        return (np.multiply(w, y) + 0.5) / (np.asarray(w) + 1)


class Bernoulli(Binomial):
    """y ~ Bernoulli(mu), y = 0 or 1 and nothing between; a weight w counts the observation w times."""

    name = "bernoulli"
    support = "0 or 1"

    @quiet
    def unit_deviance(self, y: Array, mu: Array) -> Array:
        return -2 * np.where(np.equal(y, 1), np.log(mu), np.log1p(-mu))

    def unit_deviance_at(self, y: Array, eta: Array, link: Link) -> Array:
        if isinstance(link, SymmetricLink):
            return -2 * link.log_mean_derivatives((2 * y - 1) * eta, 0)[0]
        log_mean = link.log_mean_derivatives(eta, 0)[0]
        log_complement = link.log_complement_derivatives(eta, 0)[0]
        return -2 * _mix(y, log_mean, log_complement)

    @quiet
    def kernel_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        """With a symmetric link the kernel is ln mu(s eta), s = 2 y - 1: one of ln mu and ln(1 - mu) is enough."""
        if link == LOGIT or not isinstance(link, SymmetricLink):
            return super().kernel_derivatives(y, eta, link, order)
        sign = 2 * y - 1
        terms = link.log_mean_derivatives(sign * eta, order)[1:]
        return tuple(sign * term if k % 2 == 0 else term for k, term in enumerate(terms))

    def half_deviance_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        """With the logit link value and derivatives from one exponential."""
        if link != LOGIT:
            return super().half_deviance_derivatives(y, eta, link, order)
        if order == 0:
            return (_logistic_kernel(y, eta, 1 / (1 + np.exp(-np.maximum(eta, -709.0)))),)
        mu, weight, score = _logistic_working(y, eta)
        third = (weight * (2 * mu - 1),) if order > 2 else ()
        return (_logistic_kernel(y, eta, mu), score, -weight, *third)[: order + 1]

    def saturated_log_density(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        return quasi(np.zeros(np.broadcast_shapes(np.shape(y), np.shape(w))), phi)

    def in_support(self, y: Array, w: Values) -> np.ndarray:
        return (y == 0) | (y == 1)


def _mix(y: Array, a: Array, b: Array) -> Array:
    """Return y a + (1 - y) b with 0 * inf = 0."""
    result = np.asarray(y * a + (1 - y) * b)
    lost = np.isnan(result)
    if lost.any():
        result = np.where(lost & np.equal(y, 1), a, np.where(lost & np.equal(y, 0), b, result))
    return result


def _snap(counts: Array, w: Values) -> Array:
    """Whole numbers where the counts are such up to rounding."""
    whole = np.rint(counts)
    return np.where(np.abs(counts - whole) <= COUNT_TOLERANCE * np.maximum(w, 1), whole, counts)


@quiet
def _logistic_kernel(y: Array, eta: Array, mu: Array) -> Array:
    """Return y ln mu + (1 - y) ln(1 - mu) = ln mu - (1 - y) eta for the logit link and mu as `_logistic_working`'s."""
    return np.log(mu) - (1 - y) * np.maximum(eta, -709.0)


@quiet
def _logistic_working(y: Array, eta: Array) -> tuple[Array, Array, Array]:
    """Return mu, mu (1 - mu), y - mu for the logit link to full relative accuracy in both tails.

    Below eta = -709, where mu = exp(eta) leaves the range of double precision, mu stays at 1e-308.
    """
    eta, y = np.asarray(eta, dtype=float), np.asarray(y, dtype=float)
    odds_against = np.asarray(np.maximum(eta, -709.0))
    np.negative(odds_against, out=odds_against)
    np.exp(odds_against, out=odds_against)
    mu = np.asarray(odds_against + 1)
    np.reciprocal(mu, out=mu)
    complement = np.multiply(odds_against, mu, out=odds_against)
    weight = mu * complement
    score = np.multiply(y, complement, out=complement) if np.shape(y) == complement.shape else y * complement
    return mu, weight, score - (1 - y) * mu
