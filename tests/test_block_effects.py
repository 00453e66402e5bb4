"""Blocks of effects where their covariance matrix is no covariance matrix, and where blocks are large."""

import numpy as np
import pytest

from hlik.block_effects import MAX_SEPARATE, InverseMap, block_precision
from hlik.determinants import BlockDeterminant


class Correlation:
    """Unit variances and one correlation, as a function of theta = (rho,)."""

    def __init__(self, order):
        self.order, self.size = order, order**2

    def value(self, theta):
        return np.where(np.eye(self.order), 1.0, theta[0]).ravel()

    def jacobian(self, theta):
        return (1.0 - np.eye(self.order)).reshape(-1, 1)


def test_entries_of_the_inverse():
    found = InverseMap(Correlation(3), 3)
    inverse = np.linalg.inv(np.full((3, 3), 0.4) + 0.6 * np.eye(3))
    np.testing.assert_allclose(found.value(np.array([0.4])), inverse[np.tril_indices(3)], rtol=1e-12)


@pytest.mark.parametrize("rho", [-0.6, 1.0, 1.2, np.nan])  # positive definite between -1/2 and 1
def test_no_covariance_matrix_is_no_number(rho):
    found, theta = InverseMap(Correlation(3), 3), np.array([rho])
    assert np.isnan(found.value(theta)).all() and found.value(theta).shape == (6,)
    assert np.isnan(found.jacobian(theta)).all() and found.jacobian(theta).shape == (6, 1)
    assert block_precision(Correlation(3), np.arange(6).reshape(2, 3), "").at(theta) is None


def test_determinant_of_what_is_not_positive_definite():
    determinant = BlockDeterminant(4, 2)
    assert determinant.logdet(np.array([2.0, 1.0, 2.0])) == pytest.approx(4 * np.log(3.0), rel=1e-14)
    assert determinant.logdet(np.array([1.0, 2.0, 1.0])) == -np.inf


@pytest.mark.parametrize("order", [MAX_SEPARATE, MAX_SEPARATE + 1])
def test_starting_variances_of_large_blocks(order):
    """One for each effect of a block up to `MAX_SEPARATE`; beyond, one over the mean of the diagonal of Q for all."""
    blocks, theta = np.arange(2 * order).reshape(2, order), np.array([0.3])
    variances = block_precision(Correlation(order), blocks, "").variances
    levels = np.sort(np.concatenate([numbers for _, numbers in variances]))
    np.testing.assert_array_equal(levels, np.arange(2 * order))
    inverse = np.linalg.inv(np.full((order, order), 0.3) + 0.7 * np.eye(order))
    expected = 1.0 if order == MAX_SEPARATE else order / np.trace(inverse)
    assert len(variances) == (order if order == MAX_SEPARATE else 1)
    for found, _ in variances:
        np.testing.assert_allclose(found.value(theta), [expected], rtol=1e-12)
