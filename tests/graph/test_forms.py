"""Forms: normalisation of functions, sums, products that cancel, links found numerically."""

import numpy as np
import pytest
import scipy.special as sc
from hypothesis import given
from hypothesis import strategies as st

from hlik.graph import algebra, products
from hlik.graph import forms as fm
from hlik.graph.find_link import find_link, linked
from hlik.graph.forms import Affine, Mapped, Opaque, Product
from hlik.links import LINKS
from tests.graph.problems import evaluate

A = fm.variable("a", (4,))
B = fm.variable("b", (4,))
SCALAR = fm.variable("s", ())
VALUES = {"a": np.array([0.3, -1.1, 0.8, 1.9]), "b": np.array([-0.4, 0.6, 1.3, -2.0]), "s": np.array(0.7)}


def mapped(function, affine=A):
    return fm.mapped(function, affine)


# ---------------------------------------------------------------- one function of one affine form


@pytest.mark.parametrize(
    ("function", "slope", "intercept"),
    [
        (lambda t: t, 1, 0),
        (lambda t: sc.logit(sc.expit(t)), 1, 0),
        (lambda t: np.log(sc.expit(t) / (1 - sc.expit(t))), 1, 0),
        (lambda t: np.log(3 * np.exp(2 * t)), 2, np.log(3)),
        (lambda t: np.sqrt(t**2) ** 2 / t, 1, 0),
        (lambda t: sc.ndtri(sc.ndtr(-0.25 * t + 1)), -0.25, 1),
    ],
)
def test_affine_functions_become_affine(function, slope, intercept):
    found = mapped(function)
    assert isinstance(found, Affine)
    np.testing.assert_allclose(evaluate(found, VALUES), slope * VALUES["a"] + intercept, rtol=1e-11)


@pytest.mark.parametrize(
    ("function", "sign", "slope", "intercept"),
    [
        (np.exp, 1, 1, 0),
        (lambda t: sc.expit(t) / (1 - sc.expit(t)), 1, 1, 0),
        (lambda t: 1 / np.sqrt(4 * np.exp(3 * t)), 1, -1.5, -np.log(2)),
        (lambda t: -np.exp(t), -1, 1, 0),
    ],
)
def test_exponentials_are_known_as_such(function, sign, slope, intercept):
    found = mapped(function)
    power = found.factors[0] if isinstance(found, Product) else found
    assert power.is_exp
    np.testing.assert_allclose(evaluate(found, VALUES), sign * np.exp(slope * VALUES["a"] + intercept), rtol=1e-11)


@pytest.mark.parametrize("function", [lambda t: t - t, lambda t: np.exp(t) * np.exp(-t) - 1])
def test_constant_functions_become_data(function):
    found = fm.mapped(function, A, magnitude=1.0)
    assert fm.is_constant(found)
    np.testing.assert_array_equal(found, np.zeros(4))


@pytest.mark.parametrize(
    "function",
    [
        sc.expit,
        np.tanh,
        np.square,
        np.abs,
        lambda t: np.exp(t) + 1e-6,
        lambda t: np.clip(np.exp(t), 0, 100),  # exp at every test point but the far one
        lambda t: np.clip(t, -3, 3),
        lambda t: np.maximum(t, -5),
    ],
)
def test_other_functions_stay_as_they_are(function):
    found = mapped(function)
    assert isinstance(found, Mapped)
    assert not found.is_exp
    np.testing.assert_array_equal(evaluate(found, VALUES), function(VALUES["a"]))


def test_small_slopes_are_not_lost():
    found = mapped(lambda t: 1e6 + 1e-4 * t)
    assert isinstance(found, Affine)
    np.testing.assert_allclose(evaluate(found, VALUES) - 1e6, 1e-4 * VALUES["a"], atol=1e-9)


# ---------------------------------------------------------------- sums


def test_sums_of_affine_forms_and_data():
    found = algebra.add([A, 2 * np.arange(4.0), B, SCALAR])
    np.testing.assert_allclose(evaluate(found, VALUES), VALUES["a"] + 2 * np.arange(4) + VALUES["b"] + 0.7)
    assert found.inputs == {"a", "b", "s"}


def test_what_cancels_is_gone():
    assert fm.is_constant(algebra.add([A, A], sign=-1.0))
    back = algebra.add([algebra.add([A, B]), B], sign=-1.0)
    assert back.inputs == {"a"}
    assert fm.is_constant(algebra.add([mapped(sc.expit), mapped(sc.expit)], sign=-1.0))


def test_a_function_of_two_affine_forms_is_opaque_and_names_the_curved_one():
    found = algebra.add([A, mapped(sc.expit, B)])
    assert isinstance(found, Opaque)
    assert (found.inputs, found.culprits, found.shape) == ({"a", "b"}, {"b"}, (4,))


@pytest.mark.parametrize(
    ("slope", "shift"), [(1.0, 0.0), (-1.0, 0.0), (0.1, 0.0), (1 / 3, 0.0), (2.0, 0.4), (1.0, -3.0)]
)
def test_multiples_of_one_affine_form_are_recognised(slope, shift):
    base = fm.scaled(fm.total(A, B), 0.1, 0.7)
    other = fm.scaled(base, slope, shift)
    np.testing.assert_allclose(algebra.relate(base, other), (slope, shift), rtol=1e-11, atol=1e-12)
    both = algebra.add([fm.mapped(sc.expit, base), fm.mapped(sc.ndtr, other)])
    assert isinstance(both, Mapped)
    eta = evaluate(base, VALUES)
    np.testing.assert_allclose(evaluate(both, VALUES), sc.expit(eta) + sc.ndtr(slope * eta + shift), rtol=1e-10)


def test_different_affine_forms_are_not_multiples():
    assert algebra.relate(A, B) is None
    assert algebra.relate(A, fm.scaled(A, np.arange(1.0, 5.0))) is None
    assert algebra.relate(A, fm.total(A, B)) is None
    assert algebra.relate(A, fm.scaled(A, 1.0, np.arange(4.0))) is None


# ---------------------------------------------------------------- products


def test_exponentials_multiply_to_one():
    found = products.multiply([mapped(np.exp), mapped(np.exp, B), np.array([1.0, 2.0, 3.0, 4.0])])
    assert isinstance(found, Mapped)
    assert found.is_exp
    np.testing.assert_allclose(evaluate(found, VALUES), np.exp(VALUES["a"] + VALUES["b"]) * np.arange(1, 5))


def test_signs_and_zeros_stand_beside_an_exponential():
    signed = np.array([1.0, -2.0, 0.0, 3.0])
    found = products.multiply([signed, mapped(np.exp)])
    assert isinstance(found, Product)
    np.testing.assert_allclose(evaluate(found, VALUES), signed * np.exp(VALUES["a"]))
    squared = products.power(found, 2.0)
    np.testing.assert_allclose(evaluate(squared, VALUES), signed**2 * np.exp(2 * VALUES["a"]))


def test_the_mean_of_a_gamma_comes_back_from_shape_and_rate():
    shape, mean = mapped(np.exp, B), mapped(np.reciprocal)
    rate = products.divide(shape, mean)
    assert isinstance(rate, Product)
    found = products.multiply([shape, products.divide(np.asarray(1.0), rate)])
    assert found.inputs == {"a"}
    np.testing.assert_allclose(evaluate(found, VALUES), 1 / VALUES["a"], rtol=1e-12)


def test_an_affine_factor_cancels_to_data():
    product = products.multiply([A, B])
    assert isinstance(product, Product)
    assert products.divide(product, B).inputs == {"a"}
    assert fm.is_constant(products.divide(A, A))


def test_roots_of_products_need_positive_factors():
    both = products.multiply([mapped(np.exp), mapped(sc.expit, B)])
    found = products.power(both, 0.5)
    np.testing.assert_allclose(evaluate(found, VALUES), evaluate(both, VALUES) ** 0.5)
    assert isinstance(products.power(products.multiply([A, B]), 0.5), Opaque)


def test_the_logarithm_of_a_product_is_a_sum():
    both = products.multiply([np.arange(1.0, 5.0), mapped(np.exp), mapped(lambda t: np.exp(-t), B)])
    found = products.logarithm(both)
    assert isinstance(found, Affine)
    np.testing.assert_allclose(evaluate(found, VALUES), np.log(np.arange(1, 5)) + VALUES["a"] - VALUES["b"])


def test_a_scalar_times_data_is_affine_with_the_shape_of_the_data():
    for column in (np.arange(4.0), np.ones(4)):
        found = products.multiply([SCALAR, column])
        assert isinstance(found, Affine)
        assert found.shape == (4,)


def test_signs_are_dropped_from_what_is_positive():
    signed = products.multiply([mapped(np.exp, B), mapped(np.sign)])
    found = products.without_signs(signed)
    assert isinstance(found, Mapped)
    assert (found.is_exp, found.inputs, found.shape) == (True, {"b"}, (4,))


leaves = st.sampled_from(
    [
        (A, lambda v: v["a"]),
        (mapped(np.exp, B), lambda v: np.exp(v["b"])),
        (mapped(sc.expit), lambda v: sc.expit(v["a"])),
        (mapped(np.exp, SCALAR), lambda v: np.exp(v["s"])),
        (np.array([1.0, -2.0, 0.5, 3.0]), lambda v: np.array([1.0, -2.0, 0.5, 3.0])),
        (np.asarray(2.0), lambda v: np.asarray(2.0)),
    ]
)


def combined(children):
    pairs = st.tuples(children, children)
    return st.one_of(
        pairs.map(lambda p: (products.multiply([p[0][0], p[1][0]]), lambda v: p[0][1](v) * p[1][1](v))),
        pairs.map(lambda p: (products.divide(p[0][0], p[1][0]), lambda v: p[0][1](v) / p[1][1](v))),
        pairs.map(lambda p: (algebra.add([p[0][0], p[1][0]]), lambda v: p[0][1](v) + p[1][1](v))),
        children.map(lambda c: (products.power(c[0], 2.0), lambda v: c[1](v) ** 2)),
    )


@given(st.recursive(leaves, combined, max_leaves=7))
def test_random_expressions_have_the_value_of_their_form(pair):
    form, direct = pair
    if not isinstance(form, Opaque):
        with np.errstate(all="ignore"):
            expected = direct(VALUES)
        np.testing.assert_allclose(
            evaluate(form, VALUES),
            expected,
            rtol=1e-8,
            atol=1e-9 * np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)),
        )


# ---------------------------------------------------------------- moving elements


@pytest.mark.parametrize(
    "form", [A, mapped(np.exp), products.multiply([A, mapped(np.exp, SCALAR), np.arange(4.0)]), np.arange(4.0)]
)
def test_rearranged(form):
    index = np.array([[3, 0], [0, 2], [1, 1]])
    np.testing.assert_allclose(evaluate(fm.rearranged(form, index), VALUES), evaluate(form, VALUES)[index])


def test_broadcast_repeats_by_numpys_rules():
    for shape in ((3, 4), (4,)):
        found = fm.broadcast(A, shape)
        np.testing.assert_array_equal(evaluate(found, VALUES), np.broadcast_to(VALUES["a"], shape))
    np.testing.assert_array_equal(evaluate(fm.broadcast(SCALAR, (5,)), VALUES), np.full(5, 0.7))


# ---------------------------------------------------------------- links


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (-1.0, 0.0), (np.sqrt(0.5), 0.0), (2.0, 0.3)])
def test_every_link_is_found_through_an_affine_change(name, slope, shift):
    link = LINKS[name]
    found = find_link(lambda t: link.inverse(slope * np.asarray(t) + shift))
    assert found is not None
    points = np.array([0.2, 0.9, 1.4])
    np.testing.assert_allclose(
        found[0].inverse(found[1] * points + found[2]), link.inverse(slope * points + shift), rtol=1e-9
    )
    if (slope, shift) == (1.0, 0.0):
        assert found == (link, 1.0, 0.0)


@pytest.mark.parametrize(
    "function",
    [
        np.tanh,
        np.abs,
        lambda t: np.clip(sc.expit(t), 0.01, 0.99),
        lambda t: 0.25 + 0.75 * sc.expit(t),
        lambda t: np.exp(t) + 1e-8,
        np.sin,
        lambda t: np.full(np.shape(t), 0.5),
    ],
)
def test_other_functions_are_no_links(function):
    assert find_link(function) is None


def test_a_probability_clipped_far_out_is_a_link():
    found = find_link(lambda t: np.clip(sc.expit(t), 1e-6, 1 - 1e-6))
    assert found == (LINKS["logit"], 1.0, 0.0)


def test_for_a_positive_mean_only_positive_predictors_count():
    form = mapped(np.abs)
    assert linked(form) is None
    assert linked(form, positive=True)[1] is LINKS["identity"]
