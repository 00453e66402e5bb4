"""Truncated Taylor arithmetic: each function's derivatives, products, compositions, truncation, branches."""

from math import factorial

import numpy as np
import pytest
from scipy import special as sc

from hlik import jets
from hlik.elementary import UNARY
from hlik.jets import FIRST_TAU

TAU = FIRST_TAU

REAL, POSITIVE = np.array([-2.3, -0.7, 0.4, 1.9]), np.array([0.15, 0.8, 1.7, 6.0])
POINTS = dict.fromkeys(["log", "reciprocal", "sqrt", "gammaln", "psi", "trigamma"], POSITIVE)
POINTS["log1p"] = POSITIVE - 0.9
POINTS["log1mexp"] = np.array([-4.0, -1.3, -0.5, -0.06])  # both sides of -log 2, where the formula changes

VALUES = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "reciprocal": np.reciprocal, "sqr": np.square,
    "sqrt": np.sqrt, "sigmoid": sc.expit, "softplus": lambda x: np.log1p(np.exp(x)),
    "log1mexp": lambda x: np.log(1 - np.exp(x)), "gammaln": sc.gammaln, "psi": sc.psi,
    "trigamma": lambda x: sc.zeta(2, x), "erf": sc.erf, "erfc": sc.erfc, "erfcx": lambda x: np.exp(x * x) * sc.erfc(x),
    "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "arctan": np.arctan, "abs": np.abs, "sign": np.sign,
    "floor": np.floor, "ceil": np.ceil,
}  # fmt: skip


def slope(f, x, step=1e-2):
    """Central difference of eighth order: truncation and rounding together near 1e-12."""
    weights = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])
    return sum(w * (f(x + k * step) - f(x - k * step)) for k, w in enumerate(weights, 1)) / step


@pytest.mark.parametrize("name", UNARY)
def test_every_function_has_the_right_value(name):
    x = POINTS.get(name, REAL)
    np.testing.assert_allclose(UNARY[name](x, 0)[0], VALUES[name](x), rtol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", UNARY)
def test_every_derivative_is_the_slope_of_the_one_before(name, order):
    """Differences of a value checked above, then of a derivative checked one order below: no error is shared."""
    x = POINTS.get(name, REAL)
    step = 2e-3 * np.minimum(1.0, np.abs(x))
    derivatives = UNARY[name](x, order)
    assert len(derivatives) == order + 1
    expected = slope(lambda t: UNARY[name](t, order - 1)[-1], x, step)
    np.testing.assert_allclose(derivatives[order], expected, rtol=2e-9, atol=2e-9)


@pytest.mark.parametrize(
    "name", ["exp", "expm1", "log", "log1p", "reciprocal", "sqr", "sqrt", "tanh", "sin", "cos", "arctan"]
)
def test_first_derivative_by_complex_step(name):
    """Rounding error only, where the function takes complex numbers."""
    x = POINTS.get(name, REAL)
    expected = np.imag(VALUES[name](x + 1e-30j)) / 1e-30
    np.testing.assert_allclose(UNARY[name](x, 1)[1], expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "tanh", "exp", "erf", "erfc", "log1mexp"])
def test_functions_stay_finite_far_out(name):
    x = np.array([-700.0, -40.0]) if name == "log1mexp" else np.array([-700.0, -40.0, 40.0, 700.0])
    with np.errstate(under="ignore"):
        assert all(np.all(np.isfinite(d)) for d in UNARY[name](x, 3))


@pytest.mark.parametrize("exponent", [-1.5, 0.0, 1.0, 2.0, 3.0, 2.7])
def test_power_of_data(exponent):
    x = jets.variable(0, POSITIVE)
    found = jets.apply("pow", [x, jets.constant(exponent)])
    factor = 1.0
    for order in range(4):
        expected = factor * POSITIVE ** (exponent - order)
        np.testing.assert_allclose(jets.derivative(found, (0,) * order, 4), expected, rtol=1e-13)
        factor *= exponent - order


def test_whole_powers_of_zero_and_of_negative_numbers_are_polynomials():
    """x**2 of a residual: no logarithm on the way."""
    x = jets.variable(0, np.array([-2.0, 0.0]))
    found = jets.apply("pow", [x, jets.constant(2.0)])
    for order, expected in enumerate([[4.0, 0.0], [-4.0, 0.0], [2.0, 2.0], [0.0, 0.0]]):
        np.testing.assert_array_equal(jets.derivative(found, (0,) * order, 2), expected)


def test_power_with_varying_exponents():
    """Data to varying data powers, and x**y with both variable: d2/dxdy x**y = x**(y-1) (1 + y log x)."""
    np.testing.assert_allclose(jets.apply("pow", [jets.constant([2.0, 3.0]), jets.constant([3.0, 2.0])])[()], [8, 9])
    x, y = POSITIVE, np.array([0.3, 1.2, -0.4, 2.0])
    found = jets.apply("pow", [jets.variable(0, x), jets.variable(1, y)])
    np.testing.assert_allclose(jets.derivative(found, (0, 1), 4), x ** (y - 1) * (1 + y * np.log(x)), rtol=1e-12)
    np.testing.assert_allclose(jets.derivative(found, (1, 1, 1), 4), x**y * np.log(x) ** 3, rtol=1e-12)


def test_product_has_all_mixed_derivatives():
    """(x y)(x + z): every derivative to third order in closed form."""
    x, y, z = (jets.variable(k, np.array([value])) for k, value in enumerate([2.0, 3.0, 5.0]))
    found = jets.multiply(jets.multiply(x, y), jets.add(x, z))
    expected = {
        (): 42,
        (0,): 27,
        (1,): 14,
        (2,): 6,
        (0, 0): 6,
        (0, 1): 9,
        (0, 2): 3,
        (1, 2): 2,
        (0, 0, 1): 2,
        (0, 1, 2): 1,
    }
    for monomial, value in expected.items():
        np.testing.assert_allclose(jets.derivative(found, monomial, 1), value)
    assert not set(found) - set(expected)  # and no others


def test_composition_is_exact():
    """log(1 + exp(x y)) at every third-order monomial, against nested differences of its exact lower derivatives."""
    x0, y0 = np.array([0.3, -1.1]), np.array([0.8, 0.5])

    def run(x, y):
        product = jets.multiply(jets.variable(0, x), jets.variable(1, y))
        return jets.apply("log", [jets.add(jets.constant(1.0), jets.apply("exp", [product]))])

    found = run(x0, y0)
    np.testing.assert_allclose(found[()], np.logaddexp(0, x0 * y0), rtol=1e-14)
    s = sc.expit(x0 * y0)
    np.testing.assert_allclose(jets.derivative(found, (0,), 2), s * y0, rtol=1e-13)
    np.testing.assert_allclose(jets.derivative(found, (0, 1), 2), s + x0 * y0 * s * (1 - s), rtol=1e-13)
    for lower in [(0, 0), (0, 1), (1, 1)]:
        by_x = slope(lambda t, m=lower: jets.derivative(run(t, y0), m, 2), x0)
        by_y = slope(lambda t, m=lower: jets.derivative(run(x0, t), m, 2), y0)
        np.testing.assert_allclose(jets.derivative(found, tuple(sorted((*lower, 0))), 2), by_x, atol=1e-10)
        np.testing.assert_allclose(jets.derivative(found, tuple(sorted((*lower, 1))), 2), by_y, atol=1e-10)


def test_two_ways_to_the_same_function_agree():
    x, positive = jets.variable(0, REAL), jets.variable(0, POSITIVE)
    one = jets.constant(1.0)

    def f(name, *arguments):
        return jets.apply(name, arguments)

    same = [
        (f("softplus", x), f("log1p", f("exp", x))),
        (f("sigmoid", x), f("reciprocal", f("add", one, f("exp", f("neg", x))))),
        (f("sqrt", positive), f("exp", jets.scale(f("log", positive), 0.5))),
        (f("erfcx", x), f("mul", f("exp", f("sqr", x)), f("erfc", x))),
        (f("tanh", x), f("sub", jets.scale(f("sigmoid", jets.scale(x, 2.0)), 2.0), one)),
        (f("true_div", f("sqr", x), x), f("identity", x)),
    ]
    for left, right in same:
        for order in range(4):
            a, b = (jets.derivative(jet, (0,) * order, 4) for jet in (left, right))
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_truncation_keeps_one_dispersion_variable_and_three_in_all():
    x, a, b = (
        jets.variable(0, np.array([1.2])),
        jets.variable(TAU, np.array([0.7])),
        jets.variable(TAU + 1, np.array([0.4])),
    )
    found = jets.apply("exp", [jets.apply("mul", [x, a, b])])
    assert all(jets.allowed(monomial, 3) for monomial in found)
    assert (0, 0, TAU) in found and (0, 0, 0) in found and (0, 0, 0, TAU) not in found
    assert (TAU, TAU) not in found and (TAU, TAU + 1) not in found
    np.testing.assert_allclose(jets.derivative(found, (TAU,), 1), 1.2 * 0.4 * np.exp(1.2 * 0.7 * 0.4))
    lower = jets.apply("exp", [jets.multiply(x, a, 1)], order=1)
    assert set(lower) == {(), (0,), (TAU,)}


def test_absent_monomials_are_zero_and_factorials_are_put_back():
    x = jets.variable(0, np.array([2.0, 3.0]))
    np.testing.assert_array_equal(jets.derivative(x, (1,), 2), [0, 0])
    cube = jets.multiply(jets.multiply(x, x), x)
    np.testing.assert_allclose(jets.derivative(cube, (0, 0, 0), 2), factorial(3))


def test_switch_keeps_nan_of_the_other_branch_out():
    """log(x) where x > 0, else x: the logarithm of a negative number is NaN and must not be seen."""
    x = jets.variable(0, np.array([-1.0, 2.0]))
    with np.errstate(all="ignore"):
        branches = [jets.apply("gt", [x, jets.constant(0.0)]), jets.apply("log", [x]), x]
        found = jets.apply("switch", branches)
    for order, expected in enumerate([[-1.0, np.log(2.0)], [1.0, 0.5], [0.0, -0.25], [0.0, 0.25]]):
        np.testing.assert_allclose(jets.derivative(found, (0,) * order, 2), expected)


def test_infinite_constant_in_the_other_branch():
    x = jets.variable(0, np.array([-1.0, 2.0]))
    found = jets.apply("switch", [jets.apply("lt", [x, jets.constant(0.0)]), jets.constant(-np.inf), x])
    np.testing.assert_array_equal(found[()], [-np.inf, 2.0])
    np.testing.assert_array_equal(jets.derivative(found, (0,), 2), [0.0, 1.0])


def test_infinite_bounds_do_not_move():
    """PyMC's one-sided truncation has erfcx((inf - mu) / sigma) in it: its derivatives are zero, not NaN."""
    mu, sigma = jets.variable(0, np.array([0.3, 1.0])), jets.variable(TAU, np.array([1.5, 2.0]))
    z = jets.apply("true_div", [jets.apply("sub", [jets.constant(np.inf), mu]), sigma])
    for name, value in [("erfcx", 0.0), ("erfc", 0.0), ("sqr", np.inf), ("sigmoid", 1.0)]:
        with np.errstate(all="ignore"):
            found = jets.apply(name, [z])
        np.testing.assert_array_equal(found[()], value)
        assert all(np.all(part == 0) for monomial, part in found.items() if monomial)


def test_maximum_minimum_and_clip_take_the_derivatives_of_what_they_take():
    x = jets.variable(0, np.array([-2.0, 0.3, 4.0]))
    zero, one = jets.constant(0.0), jets.constant(1.0)
    for name, arguments, values, slopes in [
        ("maximum", [x, zero], [0, 0.3, 4], [0, 1, 1]),
        ("minimum", [x, zero], [-2, 0, 0], [1, 0, 0]),
        ("clip", [x, zero, one], [0, 0.3, 1], [0, 1, 0]),
    ]:
        found = jets.apply(name, arguments)
        np.testing.assert_allclose(found[()], values)
        np.testing.assert_allclose(jets.derivative(found, (0,), 3), slopes)


@pytest.mark.parametrize(("name", "function"), [("gammainc", sc.gammainc), ("gammaincc", sc.gammaincc)])
def test_incomplete_gamma(name, function):
    """P(a, x) and Q(a, x) in x, with one shape for every observation."""
    shape = np.array([0.4, 1.0, 2.5, 9.0])

    def jet(x):
        return jets.apply(name, [jets.constant(shape), jets.variable(0, x)])

    found = jet(POSITIVE)
    np.testing.assert_allclose(found[()], function(shape, POSITIVE), rtol=1e-14)
    for order in (1, 2, 3):
        expected = slope(lambda t, k=order: jets.derivative(jet(t), (0,) * (k - 1), 4), POSITIVE, 2e-3 * POSITIVE)
        np.testing.assert_allclose(jets.derivative(found, (0,) * order, 4), expected, rtol=1e-8, atol=1e-10)


def test_incomplete_gamma_whose_shape_varies_is_refused():
    with pytest.raises(NotImplementedError, match="incomplete gamma"):
        jets.apply("gammainc", [jets.variable(0, POSITIVE), jets.constant(1.0)])
