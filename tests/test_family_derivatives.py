"""Every response family with every link that suits it: derivatives against differences, and far tails."""

import numpy as np
import pytest
from scipy.differentiate import derivative

from hlik.families import FAMILIES, Binomial, Poisson, ResponseFamily
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
)


@EVERY_FAMILY
def test_variance_and_its_derivatives(family):
    mu = np.array(MEANS[family.name])
    step = {"initial_step": 0.01}
    for function, slope in [(family.variance, family.variance_derivative),
                            (family.variance_derivative, family.variance_derivative2)]:  # fmt: skip
        np.testing.assert_allclose(slope(mu), derivative(lambda t, f=function: np.array(f(t)), mu, **step).df,
                                   rtol=1e-8, atol=1e-8)  # fmt: skip


@EVERY_FAMILY
def test_canonical_link_makes_theta_linear(family):
    """d theta/d mu = 1/V, so d theta/d eta = 1/(V g') is the constant `canonical_slope`."""
    mu = np.array(MEANS[family.name])
    mu = mu[mu > 0]
    link = family.canonical_link
    slope = link.inverse_derivatives(link.link(mu), 1)[1] / family.variance(mu)
    np.testing.assert_allclose(slope, family.canonical_slope, rtol=1e-13)


@EVERY_PAIR
def test_log_density_derivatives(family, link):
    y, eta = responses_and_eta(family, link)
    phi, w = dispersion(family), WEIGHTS.get(family.name, 2.0)

    def term(k, t):
        full = np.broadcast_to(np.expand_dims(y, tuple(range(1, np.ndim(t)))), np.shape(t)) if np.ndim(t) > 1 else y
        return np.array(family.log_density_derivatives(full, t, link, phi, w, order=3)[k])

    values = family.log_density_derivatives(y, eta, link, phi, w, order=3)
    np.testing.assert_allclose(values[0], family.log_density(y, link.inverse(eta), phi, w), rtol=1e-11, atol=1e-12)
    for k in range(3):
        expected = four_point(lambda t, k=k: term(k, t), eta)
        np.testing.assert_allclose(values[k + 1], expected, rtol=2e-7, atol=2e-7 * np.abs(expected).max())
        assert len(family.log_density_derivatives(y, eta, link, phi, w, order=k)) == k + 1


@EVERY_PAIR
def test_closed_forms_are_the_chain_rule_through_the_variance(family, link):
    """What a family overrides is what the base class derives from V alone."""
    y, eta = responses_and_eta(family, link)
    pairs = zip(family.kernel_derivatives(y, eta, link, 3), ResponseFamily.kernel_derivatives(family, y, eta, link, 3),
                strict=True)  # fmt: skip
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * (1 + np.abs(expected).max()))
    pairs = zip(family._unit_working(y, eta, link), ResponseFamily._unit_working(family, y, eta, link), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    expected = ResponseFamily._unit_weight_derivative(family, eta, link)
    np.testing.assert_allclose(family._unit_weight_derivative(eta, link), expected, rtol=1e-10,
                               atol=1e-12 * (1 + np.abs(expected).max()))  # fmt: skip


@EVERY_PAIR
def test_working_quantities(family, link):
    y, eta = responses_and_eta(family, link)
    phi, w = dispersion(family), np.linspace(0.5, 2, y.size)
    mu, weight, score = family.working(y, eta, link, phi, w)
    slope = link.inverse_derivatives(eta, 1)[1]
    np.testing.assert_allclose(mu, link.inverse(eta), rtol=1e-14)
    np.testing.assert_allclose(weight, w * slope**2 / (phi * family.variance(mu)), rtol=1e-11)
    np.testing.assert_allclose(score, w * (y - mu) * slope / (phi * family.variance(mu)), rtol=1e-11, atol=1e-14)
    _, l_eta, l_etaeta = family.log_density_derivatives(y, eta, link, phi, w)
    np.testing.assert_allclose(score, l_eta, rtol=1e-11, atol=1e-13)
    if link == family.canonical_link:
        np.testing.assert_allclose(weight, -l_etaeta, rtol=1e-13)
    expected = four_point(lambda t: np.array(family.working(y, t, link, phi, w).weight), eta)
    found = family.weight_derivative(eta, link, phi, w)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * (1 + np.abs(expected).max()))


@EVERY_FAMILY
def test_weight_is_the_expected_information(family):
    """E(-l'') = E(l'^2) over y, with a link that is not canonical."""
    if family.has_dispersion:
        pytest.skip("sums over y are for counts")
    link, w = LINKS["log"] if family != Poisson() else LINKS["sqrt"], WEIGHTS.get(family.name, 1.0)
    y = np.arange(0, 120.0) if family == Poisson() else np.arange(w + 1) / w
    eta = np.full(y.shape, -0.7 if family != Poisson() else 2.1)
    density = np.exp(family.log_density(y, link.inverse(eta), 1.0, w))
    _, first, second = family.log_density_derivatives(y, eta, link, 1.0, w)
    weight = family.working(y, eta, link, 1.0, w).weight[0]
    assert density @ -second == pytest.approx(weight, rel=1e-10)
    assert density @ first**2 == pytest.approx(weight, rel=1e-10)


@EVERY_PAIR
def test_dispersion_derivatives(family, link):
    """With respect to log phi, also of the extended quasi-likelihood of families without a dispersion parameter."""
    y, eta = responses_and_eta(family, link)
    w, log_phi = WEIGHTS.get(family.name, 2.0), np.full(y.shape, -0.4)

    def density(r):
        return np.array(family.log_density_derivatives(y, eta, link, np.exp(r), w))

    found = family.dispersion_derivatives(y, eta, link, np.exp(log_phi), w)
    l_phi, l_eta_phi, l_etaeta_phi = four_point(density, log_phi)
    l_phiphi = four_point(lambda r: np.array(family.dispersion_derivatives(y, eta, link, np.exp(r), w).l_phi), log_phi)
    for name, expected in [("l_phi", l_phi), ("l_phiphi", l_phiphi), ("l_eta_phi", l_eta_phi),
                           ("l_etaeta_phi", l_etaeta_phi)]:  # fmt: skip
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-8, atol=1e-9 * (1 + scale), err_msg=name)


# --- tails ----------------------------------------------------------------------------------------------------

# mpmath 1.4, closed forms: (family, link, y, eta): (unit deviance, kernel derivatives 1 to 3, working weight)
TAILS = {
    ("bernoulli", "logit", 1.0, 40.0): (8.496708510583178e-18, 4.248354255291589e-18, -4.248354255291589e-18,
                                        4.248354255291589e-18, 4.248354255291589e-18),
    ("bernoulli", "logit", 0.0, 700.0): (1400.0, -1.0, -9.85967654375977e-305, 9.85967654375977e-305,
                                         9.85967654375977e-305),
    ("binomial", "logit", 1.0, -700.0): (1400.0, 1.0, -9.85967654375977e-305, -9.85967654375977e-305,
                                         9.85967654375977e-305),
    ("bernoulli", "probit", 1.0, -38.0): (1453.1144320376402, 38.02627946657587, -0.9993103402465338,
                                          3.614816327127331e-05, 0.0),
    ("bernoulli", "cloglog", 0.0, 5.0): (296.8263182051532, -148.4131591025766, -148.4131591025766,
                                         -148.4131591025766, 7.725538816500263e-61),
    ("poisson", "log", 3.0, -700.0): (4200.591673732009, 3.0, -9.85967654375977e-305, -9.85967654375977e-305,
                                      9.85967654375977e-305),
    ("poisson", "log", 0.0, 700.0): (2 * np.exp(700), -np.exp(700), -np.exp(700), -np.exp(700), np.exp(700)),
    ("gamma", "log", 2.0, 700.0): (1396.6137056388801, -1.0, -1.971935308751954e-304, 1.971935308751954e-304, 1.0),
    ("gamma", "log", 1.0, -700.0): (2 * np.exp(700), np.exp(700), -np.exp(700), np.exp(700), 1.0),
    ("inverse_gaussian", "log", 0.5, 700.0): (2.0, -9.85967654375977e-305, 9.85967654375977e-305,
                                              -9.85967654375977e-305, 9.85967654375977e-305),
    ("gamma", "inverse", 1.0, 1e-200): (2 * 459.51701859880916, 1e200, -1e400, 2e600, 1e400),
}  # fmt: skip


@pytest.mark.parametrize("case", TAILS, ids=str)
def test_far_tails(case):
    name, link_name, y, eta = case
    family, link = FAMILIES[name], LINKS[link_name]
    y, eta = np.float64(y), np.float64(eta)
    deviance, first, second, third, weight = TAILS[case]
    assert family.unit_deviance_at(y, eta, link) == pytest.approx(deviance, rel=1e-13)
    found = family.kernel_derivatives(y, eta, link, 3)
    np.testing.assert_allclose(found, [first, second, third], rtol=1e-13)
    mu, found_weight, score = family.working(y, eta, link)
    assert mu == link.inverse(eta)
    assert score == pytest.approx(first, rel=1e-13)
    assert found_weight == pytest.approx(weight, rel=1e-13, abs=1e-307)


@EVERY_PAIR
def test_nothing_is_nan_in_the_tails(family, link):
    y, eta = (array.ravel() for array in np.meshgrid(RESPONSES[family.name], [-700.0, -40.0, 40.0, 700.0]))
    mu = link.inverse(eta)
    keep = link.valid_eta(eta) & family.valid_mean(mu)
    if link.name in ("log", "identity", "inverse", "sqrt", "inverse_squared") and isinstance(family, Binomial):
        keep &= (mu > 0) & (mu < 1)
    y, eta = y[keep], eta[keep]
    results = [*family.log_density_derivatives(y, eta, link, 1.0, 1.0, order=3), *family.working(y, eta, link),
               family.weight_derivative(eta, link)]  # fmt: skip
    assert not np.isnan(results).any()
    if link == family.canonical_link and link.name in ("log", "logit", "identity"):
        assert np.isfinite(results).all()


@pytest.mark.parametrize("link", ["probit", "cloglog", "loglog", "cauchit"])
def test_working_joins_where_the_tails_take_over(link):
    """Score and weight have no step: they are the derivative and (minus, in sum over y) the product of two terms."""
    eta = np.linspace(-12, 12, 4001)
    for y in (0.0, 1.0, 0.3):
        found = Binomial().working(np.full(eta.shape, y), eta, LINKS[link])
        a, b = (f(eta, 1)[1] for f in (LINKS[link].log_mean_derivatives, LINKS[link].log_complement_derivatives))
        np.testing.assert_allclose(found.score, y * a + (1 - y) * b, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found.weight, -a * b, rtol=1e-11, atol=1e-300)
