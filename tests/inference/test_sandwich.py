"""Sandwich covariance: a dense Gaussian likelihood by groups, and what has no scores by group."""

import numpy as np
import pytest
from scipy import stats

import hlik
from hlik.inference.sandwich import sandwich
from tests.inference.test_intervals import GROUP, HERD, Y, cbpp, fit, one_way


def test_gaussian_scores_by_dense_algebra():
    """Scores of each group's normal density by central differences: 1e-6 is their error."""
    model = one_way()
    idata = fit(model)
    psi = idata.fit.mean_vector.values

    def by_group(x):
        V = np.exp(2 * x[1]) * np.ones((3, 3)) + np.exp(2 * x[2]) * np.eye(3)
        return np.array([stats.multivariate_normal(np.full(3, x[0]), V).logpdf(Y[GROUP == g]) for g in range(4)])

    steps = 1e-5 * np.eye(3)
    scores = np.array([(by_group(psi + s) - by_group(psi - s)) / 2e-5 for s in steps])
    bread = idata.fit.covariance_matrix.values
    expected = bread @ scores @ scores.T @ bread
    np.testing.assert_allclose(sandwich(model, idata, GROUP), expected, rtol=1e-4, atol=1e-7)
    assert list(sandwich(model, idata, GROUP).columns) == list(hlik.vcov(idata).columns)


def test_binomial_scores_add_up_to_zero():
    """At the maximum one group of all has no score. By herd the errors are of the size of the model's."""
    model = cbpp()
    idata = fit(model)
    one = sandwich(model, idata, np.zeros(56))
    assert np.abs(one.to_numpy()).max() < 1e-7 * np.abs(hlik.vcov(idata).to_numpy()).max()
    found = np.sqrt(np.diag(sandwich(model, idata, HERD)))
    assert np.all(np.abs(np.log(found / np.sqrt(np.diag(hlik.vcov(idata))))) < 1.0)


def test_groups_that_share_effects_are_refused():
    model = one_way()
    idata = fit(model)
    with pytest.raises(hlik.ModelError, match="Levels of the random effect 'u' belong to several groups"):
        sandwich(model, idata, np.arange(12))
    with pytest.raises(hlik.ModelError, match="group has shape"):
        sandwich(model, idata, np.zeros(3))
    with pytest.raises(hlik.ModelError, match=r"needs a fit by hlik\.Laplace"):
        sandwich(model, fit(model, "eql"), GROUP)
