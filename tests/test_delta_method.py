"""Delta-method variances with parameters that have no covariance."""

import numpy as np

from hlik.delta_method import delta_variance


def test_held_parameters():
    """What a held parameter moves is lost, what it hardly moves is not, what nothing moves has no error."""
    covariance = np.full((3, 3), np.nan)
    covariance[:2, :2] = [[0.04, 0.01], [0.01, 0.09]]
    rows = np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 1e-6], [1.0, 0.0, 0.5], [0.0, 0.0, 1e-9], [0.0, 0.0, 0.0]])
    found = delta_variance(rows, covariance)
    np.testing.assert_allclose(found[:2], [0.04 + 4 * 0.01 + 4 * 0.09, 0.04])
    assert np.isnan(found[2:4]).all()
    assert found[4] == 0
