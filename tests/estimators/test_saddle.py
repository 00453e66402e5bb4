"""Starting values without a gradient that are no maximum."""

import numpy as np
import pymc as pm
import pytest
from scipy import optimize, stats

import hlik


def test_skew_normal_responses_that_start_without_skewness():
    """The score of the skewness is a combination of the others at zero, whatever the data: a saddle."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=200)
    y = 1 + 0.5 * x + stats.skewnorm.rvs(4, scale=1.5, size=200, random_state=rng)
    with pm.Model() as model:
        intercept, slope, skewness = pm.Normal("intercept"), pm.Normal("slope"), pm.Normal("skewness")
        pm.SkewNormal("y", mu=intercept + slope * x, sigma=pm.HalfNormal("sigma"), alpha=skewness, observed=y)
    idata = hlik.fit(model, hlik.Laplace(), progressbar=False, draws=0)

    def negative(p):
        return -stats.skewnorm.logpdf(y, p[3], p[0] + p[1] * x, np.exp(p[2])).sum()

    found = optimize.minimize(negative, [0.8, 0.4, 0.3, 2.0], method="BFGS", options={"gtol": 1e-6})
    assert idata.fit.attrs["status"] == "converged"
    np.testing.assert_allclose(float(idata.fit["p_v_h"]), -found.fun, rtol=1e-9)
    assert float(idata.estimates["skewness"]) == pytest.approx(found.x[3], rel=1e-3)
