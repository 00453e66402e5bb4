"""What a response family is: an exponential dispersion model on its mean (see `hlik.families`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from hlik.errors import ModelError
from hlik.link_base import Link
from hlik.special import Array, quiet
from hlik.stateless import Stateless

Values = Array | float
"""A number, or an array that broadcasts against the response."""


class Working(NamedTuple):
    """What one step of iteratively weighted least squares needs, per observation."""

    mu: Array
    weight: Array
    """Expected information in eta: w (dmu/deta)^2 / (phi V(mu))."""
    score: Array
    """dl/deta = w (y - mu) (dmu/deta) / (phi V(mu)); the working response is eta + score/weight."""


class DispersionDerivatives(NamedTuple):
    """Derivatives of the log density l with respect to log phi, alone and with eta, per observation."""

    l_phi: Array
    l_phiphi: Array
    l_eta_phi: Array
    l_etaeta_phi: Array


class ResponseFamily(Stateless, ABC):
    """Exponential dispersion model: mean mu, variance phi V/w, log density s(y, phi, w) - w d(y, mu)/(2 phi).

    A new family is one subclass with the abstract members below. It then has working quantities and all
    derivatives, by the chain rule through V and the link; a subclass overrides them where it knows a form
    that neither overflows nor cancels. Instances hold nothing and compare equal within a class.

    Arguments everywhere: ``y``, ``eta``, ``mu`` of shape (n,) (any shape works); ``link`` maps mu to eta;
    ``phi`` > 0 the dispersion and ``w`` >= 0 the prior weight, numbers or of shape (n,). Nothing is checked
    here: see `check_response`, `valid_mean` and `Link.valid_eta`. Results may share memory with each other;
    do not write into them.
    """

    name: ClassVar[str]
    canonical_link: ClassVar[Link]
    canonical_slope: ClassVar[float] = 1.0
    """d theta/d eta at the canonical link: -1 for eta = 1/mu, where theta = -1/mu."""
    has_dispersion: ClassVar[bool]
    """Whether phi is a parameter of the density; else phi is 1, and another means quasi-likelihood."""
    support: ClassVar[str]
    """The values y can take, in words, for messages."""

    # --- what a family must say -----------------------------------------------------------------------------

    @abstractmethod
    def variance(self, mu: Array) -> Array:
        """Return the variance function V(mu)."""

    @abstractmethod
    def variance_derivative(self, mu: Array) -> Array:
        """Return V'(mu)."""

    @abstractmethod
    def variance_derivative2(self, mu: Array) -> Array:
        """Return V''(mu)."""

    @abstractmethod
    def unit_deviance(self, y: Array, mu: Array) -> Array:
        """Return d(y, mu) = 2 int_mu^y (y - t)/V(t) dt >= 0, exactly 0 at y = mu."""

    @abstractmethod
    def saturated_log_density(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        """Return s(y, phi, w), the log density at mu = y."""

    @abstractmethod
    def valid_mean(self, mu: Array) -> np.ndarray:
        """Return where mu is a possible mean (bool); boundaries to which links round count as such."""

    @abstractmethod
    def in_support(self, y: Array, w: Values) -> np.ndarray:
        """Return where y is a possible response (bool); y and w are finite."""

    # --- what follows ---------------------------------------------------------------------------------------

    def saturated_dispersion_derivatives(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> tuple[Values, Values]:
        """Return the first two derivatives of s(y, phi, w) with respect to log phi.

        Here -1/2 and 0, which holds wherever s = -ln(phi)/2 + a function of y and w: normal, inverse Gaussian
        and all extended quasi-likelihoods.
        """
        return -0.5, 0.0

    def initial_mean(self, y: Array, w: Values = 1.0) -> Array:
        """Return a mean near y and inside the range of every link, to start from."""
        return np.array(y, dtype=float)

    def log_density(self, y: Array, mu: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        """Return the log density of y, normalised: s(y, phi, w) - w d(y, mu)/(2 phi)."""
        return self.saturated_log_density(y, phi, w) - times(self.unit_deviance(y, mu), weight_scale(phi, w)) / 2

    def unit_deviance_at(self, y: Array, eta: Array, link: Link) -> Array:
        """Return d(y, mu(eta)), right also where mu rounds to the boundary of its range."""
        return self.unit_deviance(y, link.inverse(eta))

    def kernel(self, y: Array, eta: Array, mu: Array, link: Link) -> Array:
        """Return -d(y, mu)/2 up to a function of y, for phi = w = 1, at mu = mu(eta): what likelihoods compare by."""
        return -0.5 * self.unit_deviance(y, mu)

    @quiet
    def kernel_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        """Return derivatives 1 to ``order`` <= 3 of -d(y, mu(eta))/2 with respect to eta (observed).

        With theta' = mu'/V: (y - mu) theta', (y - mu) theta'' - mu' theta', (y - mu) theta''' - 2 mu' theta''
        - mu'' theta'. With the canonical link theta' is constant, and the observed information is the
        expected one.
        """
        mu, *slopes = link.inverse_derivatives(eta, order)
        if link == self.canonical_link:
            terms = (y - mu, *(-slope for slope in slopes))[:order]
            return tuple(times(term, self.canonical_slope) for term in terms)
        v = self.variance(mu)
        theta1 = slopes[0] / v
        residual = y - mu
        result = [residual * theta1]
        if order > 1:
            v1 = self.variance_derivative(mu) * slopes[0]
            theta2 = (slopes[1] - v1 * theta1) / v
            result.append(residual * theta2 - slopes[0] * theta1)
        if order > 2:
            v2 = self.variance_derivative2(mu) * slopes[0] ** 2 + self.variance_derivative(mu) * slopes[1]
            theta3 = (slopes[2] - v2 * theta1 - 2 * v1 * theta2) / v
            result.append(residual * theta3 - 2 * slopes[0] * theta2 - slopes[1] * theta1)
        return tuple(result)

    def log_density_derivatives(
        self, y: Array, eta: Array, link: Link, phi: Values = 1.0, w: Values = 1.0, order: int = 2
    ) -> tuple[Array, ...]:
        """Return l and its derivatives with respect to eta, (l, l', l'', l''')[: order + 1], observed."""
        scale = weight_scale(phi, w)
        value, *slopes = (times(term, scale) for term in self.half_deviance_derivatives(y, eta, link, order))
        return (self.saturated_log_density(y, phi, w) + value, *slopes)

    def half_deviance_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        """Return -d(y, mu(eta))/2 and its derivatives 1 to ``order`` with respect to eta, for phi = w = 1."""
        value = -0.5 * self.unit_deviance_at(y, eta, link)
        return (value, *self.kernel_derivatives(y, eta, link, order)) if order > 0 else (value,)

    def dispersion_derivatives(
        self, y: Array, eta: Array, link: Link, phi: Values = 1.0, w: Values = 1.0
    ) -> DispersionDerivatives:
        """Return the derivatives of l with respect to log phi: once, twice, with eta, with eta twice.

        For a family without a dispersion parameter these are of the extended quasi-likelihood.
        """
        scale = weight_scale(phi, w)
        half_deviance = times(self.unit_deviance_at(y, eta, link), scale) / 2
        first, second = self.saturated_dispersion_derivatives(y, phi, w)
        l_eta, l_etaeta = (times(term, scale) for term in self.kernel_derivatives(y, eta, link, 2))
        return DispersionDerivatives(first + half_deviance, second - half_deviance, -l_eta, -l_etaeta)

    def working(self, y: Array, eta: Array, link: Link, phi: Values = 1.0, w: Values = 1.0) -> Working:
        """Return mean, expected working weight and score in one pass."""
        mu, weight, score = self._unit_working(y, eta, link)
        scale = weight_scale(phi, w)
        return Working(mu, times(weight, scale), times(score, scale))

    @quiet
    def _unit_working(self, y: Array, eta: Array, link: Link) -> tuple[Array, Array, Array]:
        """`working` for phi = w = 1."""
        mu, slope = link.inverse_derivatives(eta, 1)
        if link == self.canonical_link:
            return mu, times(slope, self.canonical_slope), times(y - mu, self.canonical_slope)
        theta1 = slope / self.variance(mu)
        return mu, theta1 * slope, (y - mu) * theta1

    def weight_derivative(self, eta: Array, link: Link, phi: Values = 1.0, w: Values = 1.0) -> Array:
        """Return the derivative of the expected working weight with respect to eta."""
        return times(self._unit_weight_derivative(eta, link), weight_scale(phi, w))

    @quiet
    def _unit_weight_derivative(self, eta: Array, link: Link) -> Array:
        """`weight_derivative` for phi = w = 1: (2 mu'' - V' mu'^2/V) mu'/V."""
        mu, first, second = link.inverse_derivatives(eta, 2)
        if link == self.canonical_link:
            return times(second, self.canonical_slope)
        v = self.variance(mu)
        return (2 * second - self.variance_derivative(mu) * first * (first / v)) * (first / v)

    def check_response(self, name: str, y: Array, w: Values = 1.0) -> None:
        """Raise `ModelError` (a ValueError) at the first value outside the support, naming variable and row.

        Parameters
        ----------
        name : str
            The variable's name in the model.
        y : array, shape (n,)
            Response; the proportion of successes for the binomial family.
        w : float or array, shape (n,)
            Prior weights; the number of trials for the binomial family.
        """
        y = np.asarray(y, dtype=float)
        usable = np.isfinite(w) & (np.greater(w, 0) if self.has_dispersion else np.greater_equal(w, 0))
        least = "positive (leave rows of weight 0 out)" if self.has_dispersion else ">= 0"
        _refuse_unless(usable, name, f"weights (or trials) must be finite and {least}", w)
        _refuse_unless(np.isfinite(y), name, f"the {self.name} family expects {self.support}", y)
        _refuse_unless(self.in_support(y, w), name, f"the {self.name} family expects {self.support}", y)


def _refuse_unless(good: np.ndarray, name: str, expectation: str, values: Values) -> None:
    if np.all(good):
        return
    row = int(np.argmin(np.ravel(good)))
    values = np.broadcast_to(values, np.shape(good))
    value, bad = np.ravel(values)[row], int(np.size(good) - np.count_nonzero(good))
    where = f"at row {row} ({bad} of {np.size(good)} values are like this)" if np.ndim(good) else ""
    raise ModelError(f"response '{name}': {expectation}; found {value} {where}".rstrip() + ".")


def weight_scale(phi: Values, w: Values) -> Values:
    """w/phi, as a number where it is one, so that `times` can leave out a factor of 1."""
    unit = np.size(phi) == 1 and np.all(np.equal(phi, 1))
    scale = np.asarray(w, dtype=float) if unit else np.divide(w, phi)
    return float(scale.item()) if scale.size == 1 else scale


def times(values: Array, scale: Values) -> Array:
    """Return values * scale, without the pass where the scale is the number 1."""
    if isinstance(scale, float | int) and scale == 1:
        return values
    return values * scale


def quasi(saturated: Array, phi: Values) -> Array:
    """Extended quasi-likelihood (Nelder and Pregibon 1987): -ln(phi)/2 more, nothing at phi = 1."""
    return saturated if isinstance(phi, float | int) and phi == 1 else saturated - 0.5 * np.log(phi)


def times_or_zero(y: Array, deviance: Array, at_zero: Array) -> Array:
    """Return y * deviance, and its limit ``at_zero`` where y = 0 (deviance is infinite there)."""
    return np.where(np.equal(y, 0), at_zero, y * deviance)
