"""Values on the natural scale and slopes between the scales."""

import numpy as np
import pytest

from hlik.graph import forms as fm
from hlik.graph.forms import Mapped
from hlik.links import LINKS
from hlik.result.scales import derivative, is_wider, transformed

ETA = np.array([-2.0, -0.3, 0.0, 1.5])


def mapped(function, *, slope=1.0, shift=0.0, is_exp=False):
    affine = fm.scaled(fm.variable("x", ETA.shape), slope)
    return Mapped(function, fm.Affine(affine.rows, affine.offset + shift), is_exp)


@pytest.mark.parametrize("name", ["logit", "probit", "cloglog"])
def test_derivatives_of_known_links(name):
    link = LINKS[name]
    np.testing.assert_array_equal(derivative(mapped(link.inverse), ETA), link.inverse_derivatives(ETA, 1)[1])


def test_derivative_of_the_exponential():
    np.testing.assert_array_equal(derivative(mapped(np.exp, is_exp=True), ETA), np.exp(ETA))


def test_derivatives_of_other_functions_by_differences():
    # error of the differences: step^4 f^(5) / 30 < 1e-13 and rounding, 1e-16 / step
    np.testing.assert_allclose(derivative(mapped(np.sin), ETA), np.cos(ETA), rtol=0, atol=2e-12)
    np.testing.assert_allclose(derivative(mapped(np.arctan), ETA), 1 / (1 + ETA**2), rtol=0, atol=2e-12)


def test_transformed_values_and_slopes():
    value, slope = transformed(mapped(np.exp, slope=2.0, shift=0.5, is_exp=True), ETA)
    np.testing.assert_allclose(value, np.exp(2 * ETA + 0.5), rtol=1e-15)
    np.testing.assert_allclose(slope, 2 * np.exp(2 * ETA + 0.5), rtol=1e-15)
    value, slope = transformed(None, ETA)
    np.testing.assert_array_equal(value, ETA)
    np.testing.assert_array_equal(slope, 1.0)


def test_wider_variables():
    assert not is_wider(None, ETA) and not is_wider(fm.variable("x", ETA.shape), ETA)
    assert is_wider(fm.variable("x", ETA.shape), ETA[:-1])
