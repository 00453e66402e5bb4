"""Every registered link: inverse of inverse, derivatives, logarithms in the tails, recognition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.differentiate import derivative
from scipy.special import expit

from hlik.links import LINKS, LOG, LOGIT, SQRT, Link, identify_inverse

EVERY_LINK = pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
PROBABILITY = ("logit", "probit", "cloglog", "loglog", "cauchit")

# 60 to 900 digits of mpmath 1.4: ln mu and its three derivatives, then those of ln(1 - mu).
LOG_MEAN = {
    ("logit", -700): (-700.0, 1.0, -9.85967654375977e-305, -9.85967654375977e-305),
    ("logit", 40): (-4.248354255291589e-18, 4.248354255291589e-18, -4.248354255291589e-18, 4.248354255291589e-18),
    ("probit", -700): (-245007.47002090907, 700.0014285655977, -0.9999979592086626, 5.830760996086319e-09),
    ("probit", -38): (-726.5572160188201, 38.02627946657587, -0.9993103402465338, 3.614816327127331e-05),
    ("probit", -3): (-6.607726221510349, 3.2830986549304364, -0.9294408132147319, 0.03147067283084249),
    ("probit", 9): (-1.1285884059538405e-19, 1.0279773571668915e-18, -9.251796214502023e-18, 8.223818857335131e-17),
    ("cloglog", -20): (-20.00000000103058, 0.9999999989694232, -1.0305768105112198e-09, -1.0305768098031608e-09),
    ("cloglog", 1.5): (-0.011378779845083259, 0.05128739387195545, -0.18119715546028783, 0.4196042629415046),
    ("cloglog", 5): (-3.507389196464623e-65, 5.205427108495624e-63, -7.673484545415308e-61, 1.1234470593479691e-58),
    ("loglog", -5): (-148.4131591025766, 148.4131591025766, -148.4131591025766, 148.4131591025766),
    ("loglog", 30): (-9.357622968840175e-14, 9.357622968840175e-14, -9.357622968840175e-14, 9.357622968840175e-14),
    ("cauchit", -1e6): (-14.960240443814008, 9.999999999993333e-07, 9.99999999998e-13, 1.999999999992e-18),
    ("cauchit", 50): (-0.006385694317785949, 0.0001280883724619096, -5.137892935114742e-06, 3.09097567737519e-07),
}
LOG_COMPLEMENT = {
    ("logit", 700): (-700.0, -1.0, -9.85967654375977e-305, 9.85967654375977e-305),
    ("probit", 38): (-726.5572160188201, -38.02627946657587, -0.9993103402465338, -3.614816327127331e-05),
    ("cloglog", -30): (-9.357622968840175e-14, -9.357622968840175e-14, -9.357622968840175e-14, -9.357622968840175e-14),
    ("cloglog", 5): (-148.4131591025766, -148.4131591025766, -148.4131591025766, -148.4131591025766),
    ("loglog", 20): (-20.00000000103058, -0.9999999989694232, -1.0305768105112198e-09, 1.0305768098031608e-09),
    ("log", -1e-9): (-20.723265837446412, -999999999.4999999, -9.999999999999999e17, -1.9999999999999998e27),
    ("log", -40): (-4.248354255291589e-18, -4.248354255291589e-18, -4.248354255291589e-18, -4.248354255291589e-18),
    ("cauchit", 1e6): (-14.960240443814008, -9.999999999993333e-07, 9.99999999998e-13, -1.999999999992e-18),
}  # fmt: skip


def inside(link: Link) -> np.ndarray:
    """Values of eta in the domain, moderate, and with mu in (0, 1) where 1 - mu is of interest."""
    eta = np.array([-2.6, -1.7, -0.9, -0.3, 0.2, 0.7, 1.1, 1.9, 2.3])
    return eta if link.valid_eta(eta).all() else np.abs(eta)


def with_complement(link: Link) -> np.ndarray:
    eta = inside(link)
    return eta[(link.inverse(eta) > 0) & (link.inverse(eta) < 1)]


def assert_derivatives(functions, x):
    """Each function is the derivative of the one before (SciPy's adaptive differences)."""
    for order in range(len(functions) - 1):
        expected = derivative(functions[order], x, initial_step=0.05)
        error = np.abs(functions[order + 1](x) - expected.df)
        assert np.all(error <= 1e-8 * (1 + np.abs(expected.df))), order + 1


@EVERY_LINK
def test_link_and_inverse_undo_each_other(link):
    eta = inside(link)
    np.testing.assert_allclose(link.link(link.inverse(eta)), eta, rtol=2e-14)


@EVERY_LINK
def test_derivatives_are_those_of_the_inverse(link):
    functions = [lambda t, k=k: np.array(link.inverse_derivatives(t, 3)[k]) for k in range(4)]
    assert_derivatives(functions, inside(link))
    np.testing.assert_allclose(functions[0](inside(link)), link.inverse(inside(link)), rtol=1e-15)


@EVERY_LINK
def test_logarithms_and_their_derivatives(link):
    eta = inside(link)
    eta = eta[link.inverse(eta) > 0]
    functions = [lambda t, k=k: np.array(link.log_mean_derivatives(t, 3)[k]) for k in range(4)]
    np.testing.assert_allclose(functions[0](eta), np.log(link.inverse(eta)), rtol=1e-12, atol=1e-15)
    assert_derivatives(functions, eta)

    eta = with_complement(link)
    functions = [lambda t, k=k: np.array(link.log_complement_derivatives(t, 3)[k]) for k in range(4)]
    np.testing.assert_allclose(functions[0](eta), np.log1p(-link.inverse(eta)), rtol=1e-12)
    np.testing.assert_allclose(link.complement(eta), 1 - link.inverse(eta), rtol=1e-12)
    assert_derivatives(functions, eta)


@EVERY_LINK
@pytest.mark.parametrize("power", [-2.0, -1.0, 1.0, 2.0, 0.3])
def test_powers_of_the_mean(link, power):
    eta = inside(link)
    eta = eta[link.inverse(eta) > 0]
    functions = [lambda t, k=k: np.array(link.mean_power_derivatives(t, power, 3)[k]) for k in range(4)]
    np.testing.assert_allclose(functions[0](eta), link.inverse(eta) ** power, rtol=1e-13)
    assert_derivatives(functions, eta)


@EVERY_LINK
@pytest.mark.parametrize("order", range(4))
def test_orders_agree_and_are_computed_up_to_the_one_asked_for(link, order):
    eta = with_complement(link)
    for method in (link.inverse_derivatives, link.log_mean_derivatives, link.log_complement_derivatives):
        few, all_of_them = method(eta, order), method(eta, 3)
        assert len(few) == order + 1
        for one, other in zip(few, all_of_them[: order + 1], strict=True):
            assert one.shape == eta.shape
            np.testing.assert_allclose(one, other, rtol=1e-13)


@EVERY_LINK
def test_scalars_integers_and_any_shape(link):
    grid = np.array([[0.3, 0.5], [0.6, 0.9]])
    for k in range(4):
        whole = link.inverse_derivatives(grid, 3)[k]
        assert whole.shape == grid.shape
        np.testing.assert_allclose(link.inverse_derivatives(np.float64(0.6), 3)[k], whole[1, 0], rtol=1e-15)
    np.testing.assert_allclose(link.inverse(np.array([1])), link.inverse(np.array([1.0])))


@EVERY_LINK
def test_no_overflow_and_no_warning_at_the_ends(link):
    eta = np.array([-700.0, -40.0, 40.0, 700.0])
    eta = eta[link.valid_eta(eta)]
    assert np.isfinite(link.inverse_derivatives(eta, 3)).all()
    if link.name in PROBABILITY:
        assert np.isfinite(link.log_mean_derivatives(eta, 3)).all()
        assert np.isfinite(link.log_complement_derivatives(eta, 3)).all()


@pytest.mark.parametrize("table, method", [(LOG_MEAN, "log_mean_derivatives"),
                                           (LOG_COMPLEMENT, "log_complement_derivatives")])  # fmt: skip
def test_tails_against_multiple_precision(table, method):
    for (name, eta), expected in table.items():
        found = getattr(LINKS[name], method)(np.float64(eta), 3)
        # 2e-14: near eta = 9 the probit's exp(-eta^2/2) carries the rounding of its exponent
        np.testing.assert_allclose(found, expected, rtol=2e-14, err_msg=f"{name} {eta}")


@given(st.floats(-700, 700))
def test_probability_links_add_up(eta):
    for name in PROBABILITY:
        link = LINKS[name]
        assert link.inverse(eta) + link.complement(eta) == pytest.approx(1, rel=1e-15)
        assert 0 <= link.inverse(eta) <= 1


@EVERY_LINK
def test_domain(link):
    assert link.domain
    valid = link.valid_eta(np.array([-1.0, 0.0, 1.0, np.nan, np.inf]))
    positive_only = link.name in ("inverse", "sqrt", "inverse_squared")
    assert valid.tolist() == [not positive_only, not positive_only, True, False, False]


@EVERY_LINK
def test_links_are_values(link):
    assert LINKS[link.name] is link
    assert type(link)() == link
    assert sum(link == other for other in LINKS.values()) == 1
    with pytest.raises(AttributeError):
        link.name = "other"


@EVERY_LINK
def test_identify_its_own_inverse(link):
    assert identify_inverse(link.inverse) is link
    assert identify_inverse(lambda t: float(link.inverse(t)) if np.ndim(t) == 0 else 1 / 0) is link


@pytest.mark.parametrize("function, name", [
    (lambda t: 1 / (1 + np.exp(-t)), "logit"),
    (lambda t: 0.5 * (1 + math.erf(t / math.sqrt(2))), "probit"),
    (lambda t: 1 - np.exp(-np.exp(t)), "cloglog"),
    (lambda t: np.exp(-np.exp(-t)), "loglog"),
    (lambda t: 0.5 + np.arctan(t) / np.pi, "cauchit"),
    (lambda t: t * t, "sqrt"),
    (lambda t: t**-0.5, "inverse_squared"),
    (lambda t: math.pow(t, -0.5), "inverse_squared"),
    (lambda t: 1.0 / t, "inverse"),
    (math.exp, "log"),
    (lambda t: t, "identity"),
])  # fmt: skip
def test_identify_plainly_written_inverses(function, name):
    assert identify_inverse(function) is LINKS[name]


@pytest.mark.parametrize("function", [
    lambda t: expit(2 * t), lambda t: expit(t) * (1 + 1e-9), lambda t: t + 1e-9, np.tanh, lambda t: 0.0 * t, math.log,
    lambda t: np.nan * t, lambda t: 3.0,
])  # fmt: skip
def test_identify_nothing(function):
    assert identify_inverse(function) is None


def test_identify_lets_errors_of_the_function_through():
    def broken(t):
        raise KeyError("a bug, not a domain error")

    with pytest.raises(KeyError):
        identify_inverse(broken)


def test_known_values():
    """McCullagh and Nelder (1989), section 4.3: links by their defining formula."""
    mu = np.array([0.1, 0.5, 0.8])
    np.testing.assert_allclose(LOGIT.link(mu), np.log(mu / (1 - mu)), atol=1e-15)
    np.testing.assert_allclose(LOG.link(mu), np.log(mu))
    np.testing.assert_allclose(SQRT.link(mu), np.sqrt(mu))
    np.testing.assert_allclose(LINKS["probit"].link(np.array([0.975])), 1.959963984540054)
    np.testing.assert_allclose(LINKS["cloglog"].link(mu), np.log(-np.log(1 - mu)))
