"""The special functions against multiple precision (mpmath 1.4, 60 digits), on both sides of every branch."""

import numpy as np
import pytest
from scipy.special import gammaln

from hlik.special import (
    MILLS_TAIL_FROM,
    STIRLING_FROM,
    exp_remainder,
    log1mexp,
    log_ndtr_derivatives,
    relative_deviance,
    stirling_excess,
    stirling_excess_derivatives,
)

RELATIVE_DEVIANCE = [
    (1e-300, 689.7755278982137), (1e-05, 10.512935464970228), (0.69, 0.06106368139083201), (0.71, 0.05249030894677596),
    (0.999, 5.00333583533501e-07), (1.000000001, 5.00000082407041e-19), (1.29, 0.03535778162641926),
    (1.31, 0.03997286278693984), (50, 45.087976994571854), (1e300, 1e300),
]  # fmt: skip
STIRLING_EXCESS = [
    (1e-4, 0.0009633206949771407, 0.0008633289188461848, 0.0007633453657830641),
    (0.5, 0.7257913526447274, 0.3648185772692609, 0.09851912740543074),
    (3, 1.4959226032237258, 0.47251613929107233, 0.026922740925110274),
    (7.9, 1.9629128276452759, 0.4894682519157019, 0.010498447444256175),
    (8.1, 1.9751534255154497, 0.48972750275772603, 0.010241580657881904),
    (25, 2.531709601275501, 0.4966671995943315, 0.0033317353603184753),
    (1e6, 7.826693895520143, 0.49999991666666666, 8.333333333330834e-08),
]
EXP_REMAINDER = [
    (-700, 699.0), (-0.51, 0.11049557881226595), (-0.49, 0.10262639418441606), (-1e-08, 4.999999983333334e-17),
    (1e-08, 5.0000000166666667e-17), (0.3, 0.0498588075760031), (0.6, 0.22211880039050896), (5, 142.4131591025766),
]  # fmt: skip


def test_relative_deviance():
    ratio, expected = np.array(RELATIVE_DEVIANCE).T
    np.testing.assert_allclose(relative_deviance(ratio, 1.0), expected, rtol=5e-15)
    np.testing.assert_allclose(relative_deviance(np.float64(0.71), 1.0), expected[3], rtol=5e-15)
    assert relative_deviance(1 / 3, 1 / 3) == 0


def test_stirling_excess():
    x, value, first, second = np.array(STIRLING_EXCESS).T
    np.testing.assert_allclose(stirling_excess(x), value, rtol=1e-14, atol=1e-15)
    found = stirling_excess_derivatives(x)
    np.testing.assert_allclose(found[0], first, rtol=1e-14)
    np.testing.assert_allclose(found[1], second, rtol=5e-13)
    assert stirling_excess(0.0) == 0


def test_stirling_excess_joins_at_its_threshold():
    below, above = np.nextafter(STIRLING_FROM, 0), STIRLING_FROM
    assert stirling_excess(below) == pytest.approx(float(stirling_excess(above)), rel=2e-15)
    assert stirling_excess(above) == pytest.approx(gammaln(above + 1) - above * np.log(above) + above, rel=2e-15)
    for one, other in zip(stirling_excess_derivatives(below), stirling_excess_derivatives(above), strict=True):
        assert one == pytest.approx(float(other), rel=2e-13)


def test_exp_remainder_and_log1mexp():
    x, expected = np.array(EXP_REMAINDER).T
    np.testing.assert_allclose(exp_remainder(x), expected, rtol=5e-15)
    assert exp_remainder(0.0) == 0
    x = np.array([-1e-10, -0.5, -0.6931471805599453, -0.7, -50.0])
    expected = [
        -23.025850929990458, -0.9327521295671886, -0.6931471805599453, -0.6863410028083852, -1.9287498479639178e-22,
    ]  # fmt: skip
    np.testing.assert_allclose(log1mexp(x), expected, rtol=1e-15)


def test_log_ndtr_derivatives_join_where_the_continued_fraction_takes_over():
    sides = log_ndtr_derivatives(np.array([np.nextafter(-MILLS_TAIL_FROM, -3), -MILLS_TAIL_FROM]), 3)
    for term in sides:
        assert term[0] == pytest.approx(term[1], rel=2e-13)
