"""Wald and profile intervals: lme4, a dense likelihood, boundaries, arguments."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy import optimize, stats

import hlik
from hlik import confint, profile
from models import sleepstudy

GROUP = np.repeat(np.arange(4), 3)
Y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])


def one_way(y=Y):
    with pm.Model() as model:
        mean = pm.Normal("mean", 0, 10)
        sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma_u, shape=4)
        pm.Normal("y", mean + u[GROUP], sigma, observed=y)
    return model


def fit(model, estimator="laplace", **arguments):
    return hlik.fit(model, estimator, progressbar=False, **{"draws": 0, **arguments})


@pytest.fixture(scope="module")
def fitted():
    model = one_way()
    return model, fit(model)


@pytest.fixture(scope="module")
def boundary():
    """The groups have equal means: the variance between them is estimated at zero."""
    model = one_way(np.tile([0.1, 1.0, 1.8], 4) + 0.01 * np.array([1, -1, 0, 0, 1, -1, -1, 0, 1, 1, 0, -1]))
    with pytest.warns(hlik.ConvergenceWarning, match="boundary"):
        return model, fit(model)


# ---------------------------------------------------------------- profiles


def test_sleepstudy_profiles_are_those_of_lme4():
    """R: confint(lmer(Reaction ~ Days + (Days || Subject), sleepstudy, REML = FALSE), method = "profile").

    lme4 interpolates the ends by a spline through points of the curve: good to about five digits.
    """
    model = sleepstudy.build(sleepstudy.load())
    table = confint(model, fit(model), method="profile")
    expected = {
        "beta[Intercept]": (237.5721480, 265.2380618),
        "beta[Days]": (7.3340668, 13.6005051),
        "sigma_intercept": (15.2586462, 37.7864639),
        "sigma_slope": (3.9640744, 8.7691604),
        "sigma": (22.8805547, 28.7875976),
    }
    np.testing.assert_allclose(table.loc[list(expected), ["lower", "upper"]], list(expected.values()), rtol=2e-5)


# lme4's data cbpp: serological events among calves, by herd and period
INCIDENCE = np.array(
    "2 3 4 0 3 1 1 8 2 0 2 2 0 2 0 5 0 0 1 3 0 0 1 8 1 3 0 12 2 0 0 0 1 1 0 2 0 5"
    " 3 1 2 1 0 0 1 2 0 0 11 0 0 0 1 1 1 0".split(),
    int,
)
SIZE = np.array(
    "14 12 9 5 22 18 21 22 16 16 20 10 10 9 6 18 25 24 4 17 17 18 20 16 10 9 5 34 9 6 8 6 22 22 18 22 25 27 22 22 10"
    " 8 6 5 21 24 19 23 19 2 3 2 19 15 15 15".split(),
    int,
)
HERD_SIZES = [4, 3, 4, 4, 4, 4, 4, 1, 4, 4, 4, 4, 4, 4, 4]
HERD, PERIOD = np.repeat(np.arange(15), HERD_SIZES), np.concatenate([np.arange(k) for k in HERD_SIZES])


def cbpp():
    design = np.column_stack([np.ones(56), *(PERIOD == k for k in (1, 2, 3))])
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 10, shape=4), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=15)
        pm.Binomial("y", n=SIZE, logit_p=design @ beta + u[HERD], observed=INCIDENCE)
    return model


def test_binomial_profiles_are_those_of_lme4():
    """R: confint(glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial)).

    glmer's tolerance and the spline leave about 5e-5.
    """
    model = cbpp()
    table = confint(model, fit(model), method="profile")
    expected = [
        (-1.9012120, -0.94775401),
        (-1.6167833, -0.40776307),
        (-1.8010244, -0.51153607),
        (-2.5007506, -0.80075532),
        (0.3460732, 1.09997465),
    ]
    np.testing.assert_allclose(table[["lower", "upper"]], expected, rtol=1e-4)


def dense(mean, log_sigma_u, log_sigma):
    """The one-way model's log-likelihood by a dense covariance matrix."""
    same = GROUP[:, None] == GROUP
    covariance = np.exp(2 * log_sigma_u) * same + np.exp(2 * log_sigma) * np.eye(12)
    return stats.multivariate_normal(np.full(12, mean), covariance).logpdf(Y)


def test_profile_ends_by_brute_force(fitted):
    """Both ends of sigma_u to the tolerance of zeta at the ends, 1e-5."""
    model, idata = fitted
    best = float(idata.fit.log_likelihood)

    def excess(log_sigma_u):
        found = optimize.minimize(
            lambda x: -dense(x[0], log_sigma_u, x[1]), [1.5, -1.0], method="Nelder-Mead", options={"xatol": 1e-8}
        )
        return 2 * (best + found.fun) - stats.chi2(1).ppf(0.9)

    lower = np.exp(optimize.brentq(excess, -2.0, 0.0, xtol=1e-9))
    upper = np.exp(optimize.brentq(excess, 0.05, 2.5, xtol=1e-9))
    table = confint(model, idata, method="profile", level=0.9, parm="sigma_u")
    np.testing.assert_allclose(table.loc["sigma_u", ["lower", "upper"]].astype(float), [lower, upper], rtol=2e-5)


def test_profiles_of_quadrature_use_its_likelihood():
    """AGQ: the curve's maximum is the marginal log-likelihood, and its ends differ from Laplace's."""
    model = cbpp()
    by = {name: fit(model, estimator) for name, estimator in {"agq": hlik.AGQ(15), "laplace": hlik.Laplace()}.items()}
    ends = {name: confint(model, idata, method="profile", parm="sigma") for name, idata in by.items()}
    curve = profile(model, by["agq"], "sigma", points=0)
    np.testing.assert_allclose(curve.log_likelihood.max(), float(by["agq"].fit.log_likelihood), rtol=1e-12)
    assert abs(ends["agq"].upper.iloc[0] - ends["laplace"].upper.iloc[0]) > 1e-3


def test_restricted_likelihood_has_profiles_of_dispersions_only():
    model = one_way()
    idata = fit(model, hlik.Laplace(reml=True))
    assert list(confint(model, idata, method="profile").index) == ["sigma_u", "sigma"]
    with pytest.raises(hlik.ModelError, match="'mean' is a fixed effect"):
        confint(model, idata, method="profile", parm="mean")


def test_boundary_has_lower_end_zero(boundary):
    """Its upper end by brute force: the likelihood of sigma_u alone, others maximised."""
    model, idata = boundary
    table = confint(model, idata, method="profile")
    assert table.loc["sigma_u", "lower"] == 0.0
    assert 0.1 < table.loc["sigma_u", "upper"] < 5.0
    curve = profile(model, idata, "sigma_u", level=0.95)
    reached = np.interp(table.loc["sigma_u", "upper"], curve.value, curve.zeta)
    np.testing.assert_allclose(reached, stats.norm.ppf(0.975), atol=1e-3)
    assert np.isnan(confint(idata, parm="sigma_u").upper.iloc[0])


def test_profile_is_monotone_and_ends_at_the_interval(fitted):
    model, idata = fitted
    curve = profile(model, idata, level=0.95)
    for name, part in curve.groupby("parameter"):
        assert np.all(np.diff(part.value) > 0)
        assert np.all(np.diff(part.zeta) > 0)
        ends = confint(model, idata, method="profile", parm=name)
        np.testing.assert_allclose(
            np.interp([-1.959964, 1.959964], part.zeta, part.value), ends[["lower", "upper"]].iloc[0], rtol=1e-4
        )
    np.testing.assert_allclose(curve.zeta**2 / 2, curve.log_likelihood.max() - curve.log_likelihood, atol=1e-8)


def test_profile_works_after_netcdf(fitted, tmp_path):
    model, idata = fitted
    idata.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    np.testing.assert_allclose(
        confint(model, again, method="profile", parm="sigma").lower,
        confint(model, idata, method="profile").lower["sigma"],
    )


# ---------------------------------------------------------------- Wald


def test_wald_on_both_scales(fitted):
    _, idata = fitted
    log_se = float(idata.unconstrained_standard_errors.sigma_log__)
    sigma = float(idata.estimates.sigma)
    table, natural = confint(idata), confint(idata, scale="natural", level=0.9)
    np.testing.assert_allclose(
        table.loc["sigma", ["lower", "upper"]].astype(float),
        sigma * np.exp([-1.959964 * log_se, 1.959964 * log_se]),
        rtol=1e-6,
    )
    half = stats.norm.ppf(0.95) * float(idata.standard_errors.sigma)
    np.testing.assert_allclose(natural.loc["sigma", ["lower", "upper"]].astype(float), [sigma - half, sigma + half])
    summary = hlik.summary(idata)
    np.testing.assert_allclose(table[["lower", "upper"]], summary[["lower", "upper"]])
    assert list(table.columns) == ["estimate", "lower", "upper", "level", "method"]


def test_elements_by_label():
    idata = fit(cbpp(), "eql")
    assert list(confint(idata, parm=["beta[1]", "sigma"]).index) == ["beta[1]", "sigma"]


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "likelihood"}, "expected one of 'wald'"),
        ({"level": 95}, "level must lie between 0 and 1"),
        ({"method": "profile"}, "need the model too"),
        ({"scale": "log"}, "expected 'unconstrained' or 'natural'"),
        ({"method": "basic"}, "needs a result of hlik.bootstrap"),
        ({"parm": "tau"}, "are no parameters"),
    ],
)
def test_bad_arguments(fitted, arguments, message):
    with pytest.raises(hlik.ModelError, match=message):
        confint(fitted[1], **arguments)


def test_eql_has_no_profile():
    model = one_way()
    with pytest.raises(hlik.ModelError, match="this one is by EQL"):
        confint(model, fit(model, "eql"), method="profile")
