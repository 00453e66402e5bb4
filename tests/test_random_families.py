"""Every family of random effects: density against PyMC and quadrature, derivatives, deviance, limits."""

import numpy as np
import pymc as pm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytensor import tensor as pt
from pytensor.compile.mode import Mode
from scipy.differentiate import derivative
from scipy.integrate import quad
from scipy.stats import norm

from hlik.random_families import RANDOM_FAMILIES, Beta, Gamma, InverseGamma, Normal

EVERY_FAMILY = pytest.mark.parametrize("family", RANDOM_FAMILIES.values(), ids=RANDOM_FAMILIES)
LAMBDAS = (0.003, 0.3, 0.9, 7.0)

# mpmath 1.4, 80 digits: log density at the mode and two derivatives with respect to log lam
PEAK = {
    ("gamma", 1e-10): (10.593986931757222, -0.5000000000083333, -8.333333333333334e-12),
    ("gamma", 0.001): (2.53485577295584, -0.500083333325, -8.333330833335318e-05),
    ("gamma", 0.12): (0.13119801535587874, -0.5099856972874701, -0.009957283598972376),
    ("gamma", 0.13): (0.09034462140025293, -0.5108151698007595, -0.010779127408574634),
    ("gamma", 1.0): (-1.0, -0.5772156649015329, -0.06771840194669358),
    ("gamma", 1e4): (-9.21130369267116, -0.9991366710811538, -0.0007633453657830641),
    ("beta", 1e-10): (9.90083975118061, -0.500000000025, -2.5e-11),
    ("beta", 0.001): (1.8415419257681171, -0.5002499998750003, -0.00024999962500125),
    ("beta", 0.12): (-0.5818831393866194, -0.5297898747919577, -0.029380742571526085),
    ("beta", 0.13): (-0.6243855270271534, -0.532234060424159, -0.03171847787301518),
    ("beta", 1.0): (-1.8378770664093456, -0.6931471805599453, -0.12931985286416792),
    ("beta", 1e4): (-10.596704043702095, -0.9999306935057128, -6.929827141957532e-05),
}
LIMIT_VARIANCE = {"normal": 1.0, "gamma": 1.0, "beta": 4.0, "inverse_gamma": 1.0}
"""Var(v)/lam as lam -> 0."""


def around(family) -> np.ndarray:
    v = np.array([-2.1, -1.2, -0.4, -0.01, 0.3, 0.8, 1.7, 2.5])
    return v if family.valid(v).all() else np.abs(v) + 0.2


def pymc_log_density(family, v: np.ndarray, lam: float) -> np.ndarray:
    """PyMC's log density of u with the Jacobian: its own transforms, and by hand for v = 1/u."""
    u, jacobian = {
        "normal": lambda x: (x, pt.zeros_like(x)),
        "gamma": lambda x: (pm.distributions.transforms.log.backward(x), x),
        "beta": lambda x: (pm.math.sigmoid(x), pm.distributions.transforms.logodds.log_jac_det(x)),
        "inverse_gamma": lambda x: (1 / x, -2 * pt.log(x)),
    }[family.name](pt.as_tensor(v))
    variable = {
        "normal": lambda: pm.Normal.dist(0, sigma=lam**0.5),
        "gamma": lambda: pm.Gamma.dist(alpha=1 / lam, beta=1 / lam),
        "beta": lambda: pm.Beta.dist(alpha=0.5 / lam, beta=0.5 / lam),
        "inverse_gamma": lambda: pm.InverseGamma.dist(alpha=1 + 1 / lam, beta=1 / lam),
    }[family.name]()
    return (pm.logp(variable, u) + jacobian).eval(mode=Mode(linker="py", optimizer=None))


@EVERY_FAMILY
@pytest.mark.parametrize("lam", LAMBDAS)
def test_log_density_is_that_of_pymc(family, lam):
    v = around(family)
    # PyMC adds terms of size 1/lam that cancel
    np.testing.assert_allclose(family.log_density(v, lam), pymc_log_density(family, v, lam), rtol=1e-11, atol=1e-11)


@EVERY_FAMILY
@pytest.mark.parametrize("lam", LAMBDAS)
def test_density_integrates_to_one(family, lam):
    width = np.sqrt(LIMIT_VARIANCE[family.name] * lam)
    low, high = family.mode - 40 * width * (1 + lam), family.mode + 40 * width * (1 + lam)
    low = max(low, -700 * max(lam, 1)) if family.valid(np.float64(-1)) else 1e-300
    total, _ = quad(lambda v: np.exp(family.log_density(v, lam)), low, high, points=[family.mode], limit=400,
                    epsabs=1e-10)  # fmt: skip
    assert total == pytest.approx(1, abs=1e-8)


@EVERY_FAMILY
def test_scales_undo_each_other(family):
    v = around(family)
    np.testing.assert_allclose(family.v(family.u(v)), v, rtol=1e-13)
    scales = {"normal": "identity", "gamma": "log", "beta": "logit", "inverse_gamma": "inverse"}
    assert family.scale == scales[family.name]


@EVERY_FAMILY
def test_derivatives_of_the_kernel(family):
    v = around(family)
    functions = [lambda t, k=k: np.array(family.kernel_derivatives(t, 3)[k]) for k in range(4)]
    np.testing.assert_array_equal(family.kernel(v), functions[0](v))
    for k in range(3):
        expected = derivative(functions[k], v, initial_step=0.05).df
        np.testing.assert_allclose(functions[k + 1](v), expected, rtol=1e-8, atol=1e-8)
        few = family.kernel_derivatives(v, k)
        assert len(few) == k + 1
        np.testing.assert_array_equal(few[k], functions[k](v))


@EVERY_FAMILY
def test_deviance_is_twice_the_drop_from_the_mode(family):
    v = around(family)
    top = family.kernel(np.float64(family.mode))
    assert top == pytest.approx(family.kernel_at_mode, rel=1e-15)
    np.testing.assert_allclose(family.deviance(v), 2 * (top - family.kernel(v)), rtol=1e-12, atol=1e-14)
    assert family.deviance(np.float64(family.mode)) == 0
    assert family.kernel_derivatives(np.float64(family.mode), 1)[1] == 0


@EVERY_FAMILY
def test_deviance_near_the_mode_does_not_cancel(family):
    step = np.array([-1e-8, 1e-8])
    curvature = -family.kernel_derivatives(np.float64(family.mode), 2)[2]
    near = np.float64(family.mode) + step
    np.testing.assert_allclose(family.deviance(near), curvature * (near - family.mode) ** 2, rtol=3e-8)


@EVERY_FAMILY
@given(v=st.floats(-700, 700))
def test_deviance_is_never_negative_nor_infinite_before_its_formula_is(family, v):
    if family.valid(np.float64(v)):
        assert 0 <= family.deviance(np.float64(v)) < np.inf


@EVERY_FAMILY
def test_deviance_is_the_one_of_the_table(family):
    """Lee and Nelder (1996), table of conjugate pairs, as functions of u."""
    v = around(family)
    u = family.u(v)
    expected = {
        "normal": lambda: u**2,
        "gamma": lambda: 2 * (u - 1 - np.log(u)),
        "beta": lambda: -np.log(4 * u * (1 - u)),
        "inverse_gamma": lambda: 2 * (np.log(u) + 1 / u - 1),
    }[family.name]()
    np.testing.assert_allclose(family.deviance(v), expected, rtol=1e-12, atol=1e-14)


@EVERY_FAMILY
def test_working_is_fisher_scoring_with_the_pseudo_response(family):
    """Weight (du/dv)^2/V_M(u), score (E(u) - u)(du/dv)/V_M(u) up to the sign of du/dv; the weight is -k''."""
    v = around(family)
    u = family.u(v)
    slope = derivative(lambda t: np.array(family.u(t)), v, initial_step=0.05).df
    variance = {"normal": 1.0, "gamma": u, "beta": u * (1 - u), "inverse_gamma": u**2}[family.name]
    pseudo = {"normal": 0.0, "gamma": 1.0, "beta": 0.5, "inverse_gamma": 1.0}[family.name]
    weight, score = family.working(v)
    np.testing.assert_allclose(weight, slope**2 / variance, rtol=1e-8)
    np.testing.assert_allclose(score, (pseudo - u) * slope / variance, rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(weight, -family.kernel_derivatives(v, 2)[2])


@pytest.mark.parametrize("name, lam", PEAK, ids=str)
def test_peak_against_multiple_precision(name, lam):
    found = RANDOM_FAMILIES[name].peak_derivatives(lam)
    np.testing.assert_allclose(found, PEAK[name, lam], rtol=1e-12)
    if name == "gamma":
        np.testing.assert_array_equal(found, InverseGamma().peak_derivatives(lam))


@EVERY_FAMILY
def test_normaliser_completes_the_kernel(family):
    v, lam = around(family), 0.4
    np.testing.assert_allclose(family.kernel(v) / lam + family.normaliser(lam), family.log_density(v, lam), rtol=1e-12)


@EVERY_FAMILY
def test_derivatives_in_log_lambda(family):
    log_lam = np.log(np.array([1e-4, 0.02, 0.124, 0.126, 1.0, 30.0]))
    for method in (family.peak_derivatives, family.normaliser_derivatives):
        for k in range(2):
            expected = derivative(lambda r, k=k, m=method: m(np.exp(r))[k], log_lam, initial_step=0.05)
            np.testing.assert_allclose(method(np.exp(log_lam))[k + 1], expected.df, rtol=1e-7, atol=1e-8)
    assert family.normaliser(0.3) == family.normaliser_derivatives(0.3)[0]


@EVERY_FAMILY
def test_small_lambda_is_normal(family):
    lam = 1e-10
    sd = np.sqrt(LIMIT_VARIANCE[family.name] * lam)
    v = family.mode + sd * np.array([-2.0, -0.5, 0.0, 1.0, 3.0])
    # the third derivative of k leaves a skewness of order sqrt(lam) = 1e-5
    np.testing.assert_allclose(family.log_density(v, lam), norm.logpdf(v, family.mode, sd), atol=1e-4)
    limit = -0.5 * np.log(2 * np.pi * sd**2)
    assert family.peak(lam) == pytest.approx(limit, rel=1e-11)
    np.testing.assert_allclose(family.peak_derivatives(lam)[1:], [-0.5, 0], atol=1e-10)


@EVERY_FAMILY
def test_far_values_and_impossible_ones(family):
    v = np.array([-700.0, -40.0, 40.0, 700.0])
    v = v[family.valid(v)]
    assert np.isfinite(family.kernel_derivatives(v, 3)).all()
    assert np.isfinite(family.log_density(v, 0.5)).all()
    assert family.valid(np.array([np.nan, np.inf])).tolist() == [False, False]
    if family == InverseGamma():
        assert family.log_density(np.array([-1.0, 0.0]), 0.5).tolist() == [-np.inf, -np.inf]


@EVERY_FAMILY
def test_one_lambda_per_effect(family):
    v = around(family)
    lam = np.linspace(0.1, 2, v.size)
    expected = [float(family.log_density(x, y)) for x, y in zip(v, lam, strict=True)]
    np.testing.assert_allclose(family.log_density(v, lam), expected, rtol=1e-14)


def test_families_are_values():
    assert Normal() == Normal() != Gamma()
    assert len({Beta(), Beta(), InverseGamma()}) == 2
    assert all(RANDOM_FAMILIES[family.name] is family for family in RANDOM_FAMILIES.values())
