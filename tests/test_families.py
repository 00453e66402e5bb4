"""Every response family with every link that suits it: density against PyMC, deviance, checks."""

import numpy as np
import pymc as pm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from scipy.integrate import quad
from scipy.special import gammaln

from hlik.errors import ModelError
from hlik.families import FAMILIES, Bernoulli, Binomial, Gamma, InverseGaussian, Normal, Poisson, ResponseFamily
from hlik.links import LINKS
from tests.family_grids import (
    EVERY_FAMILY,
    EVERY_PAIR,
    MEANS,
    RESPONSES,
    WEIGHTS,
    dispersion,
    four_point,
    responses_and_eta,
    responses_and_means,
)


def pymc_log_density(family: ResponseFamily, y, mu, phi, w=1.0):
    """The same density as PyMC has it. Weights divide phi (Normal, Gamma, Wald) or are the trials (Binomial)."""
    phi = phi / w
    variable, value = {
        "normal": lambda: (pm.Normal.dist(mu, sigma=np.sqrt(phi)), y),
        "bernoulli": lambda: (pm.Bernoulli.dist(p=mu), y.astype(int)),
        "binomial": lambda: (pm.Binomial.dist(n=np.rint(w).astype(int), p=mu), np.rint(w * y).astype(int)),
        "poisson": lambda: (pm.Poisson.dist(mu), y.astype(int)),
        "gamma": lambda: (pm.Gamma.dist(alpha=1 / phi, beta=1 / (phi * mu)), y),
        "inverse_gaussian": lambda: (pm.Wald.dist(mu=mu, lam=1 / phi), y),
    }[family.name]()
    return pm.logp(variable, value).eval(mode=Mode(linker="py", optimizer=None))


# --- density and deviance -------------------------------------------------------------------------------------


@EVERY_FAMILY
@pytest.mark.parametrize("phi", [0.02, 1.0, 3.0])
def test_log_density_is_that_of_pymc(family, phi):
    y, mu = responses_and_means(family)
    phi = phi if family.has_dispersion else 1.0
    w = np.full(y.shape, WEIGHTS.get(family.name, 2.5 if family.has_dispersion else 1.0))
    expected = pymc_log_density(family, y, mu, phi, w)
    np.testing.assert_allclose(family.log_density(y, mu, phi, w), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trials", [1, 7, 250, 10**6])
def test_binomial_log_density_with_many_trials(trials):
    r = np.unique(np.linspace(0, trials, 8).round())
    mu = np.full(r.shape, 0.31)
    choose = gammaln(trials + 1) - gammaln(r + 1) - gammaln(trials - r + 1)
    expected = choose + r * np.log(mu) + (trials - r) * np.log1p(-mu)
    # the plain formula subtracts numbers of the size of trials
    np.testing.assert_allclose(Binomial().log_density(r / trials, mu, 1.0, float(trials)), expected,
                               rtol=1e-9, atol=1e-15 * trials * 20)  # fmt: skip


@pytest.mark.parametrize("family", [Normal(), Gamma(), InverseGaussian()], ids=repr)
@pytest.mark.parametrize("phi", [0.05, 0.8])
def test_continuous_densities_integrate_to_one_with_the_moments_of_the_model(family, phi):
    mu, w, low = 1.7, 2.0, (-np.inf if family == Normal() else 0)

    def moment(power):
        return quad(lambda y: y**power * np.exp(family.log_density(np.float64(y), mu, phi, w)), low, np.inf,
                    epsabs=1e-11, limit=200)[0]  # fmt: skip

    assert moment(0) == pytest.approx(1, abs=1e-8)
    assert moment(1) == pytest.approx(mu, abs=1e-7)
    assert moment(2) - moment(1) ** 2 == pytest.approx(phi * family.variance(mu) / w, abs=1e-6)


def test_discrete_densities_sum_to_one_with_the_moments_of_the_model():
    for family, y, mu, w in [(Poisson(), np.arange(200.0), 6.5, 1.0), (Binomial(), np.arange(13) / 12, 0.3, 12.0),
                             (Bernoulli(), np.array([0.0, 1.0]), 0.3, 1.0)]:  # fmt: skip
        density = np.exp(family.log_density(y, np.full(y.shape, mu), 1.0, w))
        assert density.sum() == pytest.approx(1, abs=1e-14)
        assert density @ y == pytest.approx(mu, abs=1e-13)
        assert density @ (y - mu) ** 2 == pytest.approx(family.variance(mu) / w, abs=1e-13)


@EVERY_FAMILY
def test_unit_deviance_is_the_integral_of_its_definition(family):
    y, mu = responses_and_means(family)
    expected = [2 * quad(lambda t, y=a: (y - t) / family.variance(t), b, a)[0] if a != b else 0.0
                for a, b in zip(y, mu, strict=True) if a > 0 or family == Normal()]  # fmt: skip
    inside = (y > 0) & ((y < 1) | ("b" not in family.name)) if family != Normal() else np.isfinite(y)
    expected = np.array(expected)[inside[(y > 0) | (family == Normal())]]
    np.testing.assert_allclose(family.unit_deviance(y, mu)[inside], expected, rtol=1e-7, atol=1e-10)


@EVERY_FAMILY
def test_unit_deviance_at_the_edges(family):
    """Where y is 0 (or 1) the limit of the definition; zero exactly at y = mu."""
    means = np.array(MEANS[family.name])
    inside = means[means > 0] if family != Bernoulli() else np.array([0.0, 1.0])
    assert np.all(family.unit_deviance(inside, inside) == 0)
    y, mu = responses_and_means(family)
    assert np.all(family.unit_deviance(y, mu) >= 0)
    if family == Poisson():
        np.testing.assert_allclose(family.unit_deviance(np.zeros(5), means), 2 * means, rtol=1e-15)
        assert family.unit_deviance(np.array([0.0, 2.0]), np.array([0.0, 0.0])).tolist() == [0, np.inf]
    if isinstance(family, Binomial):
        np.testing.assert_allclose(family.unit_deviance(np.zeros(5), means), -2 * np.log1p(-means), rtol=1e-14)
        np.testing.assert_allclose(family.unit_deviance(np.ones(5), means), -2 * np.log(means), rtol=1e-14)
        edges = family.unit_deviance(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0]))
        assert edges.tolist() == [0, 0, np.inf, np.inf]


@EVERY_FAMILY
def test_unit_deviance_near_its_zero_does_not_cancel(family):
    """d = (y - mu)^2/V (1 + O(y - mu)): second order exact to the relative size of the step."""
    if family == Bernoulli():
        pytest.skip("y is 0 or 1")
    y = np.array([0.4, 0.4, 0.9])
    mu = y * (1 + np.array([1e-7, -1e-7, 3e-8]))
    np.testing.assert_allclose(family.unit_deviance(y, mu), (y - mu) ** 2 / family.variance(y), rtol=1e-5)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-12, 1 - 1e-12))
def test_unit_deviance_is_never_negative(y, mu):
    for family in FAMILIES.values():
        if family != Bernoulli():
            assert family.unit_deviance(np.float64(y), np.float64(mu)) >= 0


@EVERY_FAMILY
def test_density_is_saturated_part_less_deviance(family):
    y, mu = responses_and_means(family)
    phi, w = dispersion(family), WEIGHTS.get(family.name, 2.0)
    expected = family.saturated_log_density(y, phi, w) - w * family.unit_deviance(y, mu) / (2 * phi)
    np.testing.assert_allclose(family.log_density(y, mu, phi, w), expected, rtol=1e-14)


@pytest.mark.parametrize("family", [f for f in FAMILIES.values() if not f.has_dispersion], ids=repr)
def test_extended_quasi_likelihood(family):
    """Nelder and Pregibon (1987): s(y, 1, w) - ln(phi)/2 - w d/(2 phi)."""
    y, mu = responses_and_means(family)
    phi, w = 2.3, WEIGHTS.get(family.name, 3.0)
    expected = family.saturated_log_density(y, 1.0, w) - 0.5 * np.log(phi) - w * family.unit_deviance(y, mu) / (2 * phi)
    np.testing.assert_allclose(family.log_density(y, mu, phi, w), expected, rtol=1e-14)
    np.testing.assert_allclose(family.log_density(y, mu, np.full(y.shape, phi), w), expected, rtol=1e-14)


@EVERY_FAMILY
def test_weights_are_repeated_observations_or_divide_the_dispersion(family):
    y, mu = responses_and_means(family)
    if family.has_dispersion:
        np.testing.assert_allclose(family.log_density(y, mu, 0.6, 3.0), family.log_density(y, mu, 0.2, 1.0), rtol=1e-14)
    elif family != Binomial():
        np.testing.assert_allclose(family.log_density(y, mu, 1.0, 3.0), 3 * family.log_density(y, mu), rtol=1e-14)


# --- shapes, starts and checks --------------------------------------------------------------------------------


@EVERY_PAIR
def test_arrays_and_scalars_agree_and_inputs_stay_as_they_were(family, link):
    y, eta = responses_and_eta(family, link)
    phi, w = np.linspace(0.5, 1.5, y.size), np.linspace(1, 3, y.size)
    before = [array.copy() for array in (y, eta, phi, w)]

    def everything(y, eta, phi, w):
        return np.array([
            *family.working(y, eta, link, phi, w), *family.kernel_derivatives(y, eta, link, 3),
            *family.dispersion_derivatives(y, eta, link, phi, w), family.unit_deviance_at(y, eta, link),
            family.log_density(y, link.inverse(eta), phi, w),
        ])  # fmt: skip

    together = everything(y, eta, phi, w)
    for row in (0, y.size - 1):
        alone = everything(y[row], eta[row], phi[row], w[row])
        np.testing.assert_allclose(alone, together[:, row], rtol=1e-13, atol=1e-15)
    of_size_one = everything(y, eta, np.array([0.8]), np.array([1.6]))
    np.testing.assert_allclose(
        of_size_one, everything(y, eta, np.full(y.shape, 0.8), np.full(y.shape, 1.6)), rtol=1e-14
    )
    for array, old in zip((y, eta, phi, w), before, strict=True):
        np.testing.assert_array_equal(array, old)


@EVERY_FAMILY
def test_initial_mean_is_inside_every_range(family):
    y = np.array(RESPONSES[family.name])
    mu = family.initial_mean(y, WEIGHTS.get(family.name, 1.0))
    assert mu is not y
    assert family.valid_mean(mu).all()
    assert np.isfinite(family.canonical_link.link(mu)).all()


@EVERY_FAMILY
def test_valid_mean(family):
    inside = {"normal": [True, True, True], "bernoulli": [False, True, False], "binomial": [False, True, False],
              "poisson": [False, True, True]}.get(family.name, [False, True, True])  # fmt: skip
    assert family.valid_mean(np.array([-0.1, 0.5, 1.1])).tolist() == inside
    assert family.valid_mean(np.array([np.nan, np.inf])).tolist() == [False, False]


@EVERY_FAMILY
def test_check_response_accepts_the_support(family):
    y, w = np.array(RESPONSES[family.name]), WEIGHTS.get(family.name, 1.0)
    family.check_response("y", y, w)  # raises nothing
    assert np.all(family.in_support(y, w))


@pytest.mark.parametrize("name, y, w, words", [
    ("normal", [0, np.nan], 1.0, "finite real numbers; found nan at row 1"),
    ("bernoulli", [0, 1, 2], 1.0, "0 or 1; found 2.0 at row 2"),
    ("bernoulli", [0.5], 1.0, "0 or 1; found 0.5 at row 0"),
    ("binomial", [0.5, 0.3], 4.0, "whole number; found 0.3 at row 1"),
    ("binomial", [3.0, 0.5], 4.0, r"proportions y in \[0, 1\].*found 3.0 at row 0"),
    ("poisson", [1, 2, -1], 1.0, "whole numbers >= 0; found -1.0 at row 2"),
    ("poisson", [1, 2.5, -1], 1.0, r"found 2.5 at row 1 \(2 of 3"),
    ("poisson", [1, np.inf], 1.0, "found inf"),
    ("gamma", [1, 0], 1.0, "positive finite numbers; found 0.0 at row 1"),
    ("inverse_gaussian", [-2], 1.0, "positive finite numbers; found -2.0"),
    ("gamma", [1, 2], [1, -3], "weights .* found -3 at row 1"),
    ("normal", [1, 2], np.nan, "weights .* found nan"),
    ("normal", [1, 2], [0, 1], "weights .* positive .* found 0 at row 0"),
])  # fmt: skip
def test_check_response_names_variable_expectation_value_and_row(name, y, w, words):
    with pytest.raises(ValueError, match=words) as error:
        FAMILIES[name].check_response("r", np.array(y, dtype=float), w if np.ndim(w) == 0 else np.array(w))
    assert isinstance(error.value, ModelError)
    assert "response 'r'" in str(error.value)


def test_binomial_proportions_of_counts_are_counts_again():
    trials = np.arange(1.0, 2000)
    proportions = np.floor(trials / 3) / trials
    Binomial().check_response("r", proportions, trials)  # raises nothing
    assert np.all(Binomial().in_support(proportions, trials))


def test_families_are_values():
    assert Normal() == Normal() != Gamma()
    assert Bernoulli() != Binomial()
    assert len({Poisson(), Poisson(), Gamma()}) == 2
    assert all(FAMILIES[family.name] is family for family in FAMILIES.values())


# --- a new family is one class --------------------------------------------------------------------------------


class HyperbolicSecant(ResponseFamily):
    """Jorgensen (1997), generalised hyperbolic secant: V = 1 + mu^2, theta = arctan mu, b = ln(1 + mu^2)/2."""

    name = "hyperbolic_secant"
    canonical_link = LINKS["cauchit"]  # not used: only its identity matters
    has_dispersion = True
    support = "finite real numbers"

    def variance(self, mu):
        return 1 + mu**2

    def variance_derivative(self, mu):
        return 2 * mu

    def variance_derivative2(self, mu):
        return np.full_like(mu, 2.0)

    def unit_deviance(self, y, mu):
        return 2 * y * (np.arctan(y) - np.arctan(mu)) + np.log((1 + mu**2) / (1 + y**2))

    def saturated_log_density(self, y, phi=1.0, w=1.0):
        return -0.5 * np.log(2 * np.pi * phi / w * self.variance(y))  # saddlepoint approximation

    def valid_mean(self, mu):
        return np.isfinite(mu)

    def in_support(self, y, w):
        return np.isfinite(y)


@pytest.mark.parametrize("name", ["identity", "log", "probit"])
def test_a_new_family_is_one_class(name):
    family, link = HyperbolicSecant(), LINKS[name]
    y, eta, phi, w = np.array([-1.0, 0.3, 2.0]), np.array([0.4, -0.8, 1.1]), 0.7, 1.5
    values = family.log_density_derivatives(y, eta, link, phi, w, order=3)
    for k in range(3):
        expected = four_point(lambda t, k=k: np.array(family.log_density_derivatives(y, t, link, phi, w, 3)[k]), eta)
        np.testing.assert_allclose(values[k + 1], expected, rtol=1e-8, atol=1e-9)
    assert family.working(y, eta, link, phi, w).score == pytest.approx(values[1], rel=1e-13)
    expected = four_point(lambda t: np.array(family.working(y, t, link, phi, w).weight), eta)
    np.testing.assert_allclose(family.weight_derivative(eta, link, phi, w), expected, rtol=1e-8, atol=1e-9)
    family.check_response("y", y)
