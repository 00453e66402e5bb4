"""Adaptive quadrature: exact references, closed forms, gradients, blocks, limits."""

import warnings
from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import special as sc
from scipy import stats

import hlik
from hlik.adjusted_profile import Profile
from hlik.estimators.agq_profile import QuadratureProfile
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from tests import reference_models
from tests.estimators.test_laplace import epilepsy, salamander
from tests.likelihoods import COUNT, GROUP, GROUPS, KINDS, REAL, SUCCESSES, TRIALS, X


def fit(model, estimator=None, **arguments):
    return hlik.fit(model, estimator or hlik.AGQ(25), progressbar=False, **{"draws": 0, **arguments})


def quadrature(model, points):
    return QuadratureProfile(HLikelihood(read_model(model)), points)


def value_at(profile, psi):
    likelihood = profile.likelihood
    return profile.mode(np.asarray(psi), np.zeros(likelihood.model.n_beta), likelihood.start_v())


# ---------------------------------------------------------------- exact references


def test_bacteria(shared):
    """lme4 with nAGQ=25 and the trapezoid rule with 721 nodes agree in these digits."""
    idata = fit(reference_models.bacteria(shared / "data"))
    assert idata.fit.attrs["status"] == "converged"
    np.testing.assert_allclose(idata.estimates.beta, [2.577577, -0.146182], atol=1e-6)
    np.testing.assert_allclose(idata.estimates.sigma_u**2, 1.839389, atol=1e-6)
    np.testing.assert_allclose(idata.fit.log_likelihood, -100.820515, atol=1e-6)
    assert idata.fit.attrs["likelihood"] == "marginal"
    assert float(idata.fit.quadrature_error) < 1e-8
    np.testing.assert_allclose(idata.fit.aic, 2 * 100.820515 + 2 * 3, atol=2e-6)


@pytest.mark.parametrize(("family", "square"), [("normal", True), ("beta", False)])
def test_seeds(shared, reference, family, square):
    """Estimates, standard errors and log-likelihood of exact quadrature; 1e-6 is the optimiser's own tolerance."""
    record = reference("truth/exact_quadrature")[f"seeds_binomial_{family}"]
    idata = fit(reference_models.seeds(family)(shared / "data"))
    expected = list(record["estimates"].values())
    spread = "sigma_u" if square else "lam"
    found = float(idata.estimates[spread])
    np.testing.assert_allclose(idata.estimates.beta, expected[:4], atol=1e-6)
    np.testing.assert_allclose(found**2 if square else found, expected[4], atol=1e-6)
    np.testing.assert_allclose(idata.fit.log_likelihood, record["loglik"], atol=1e-8)
    np.testing.assert_allclose(idata.standard_errors.beta, list(record["se"].values())[:4], rtol=1e-5)
    se = float(idata.standard_errors[spread]) * (2 * found if square else 1)
    np.testing.assert_allclose(se, list(record["se"].values())[4], rtol=1e-4)  # delta method; the Hessian is in log


def test_lip_cancer(shared, reference):
    record = reference("truth/exact_quadrature")["lipcancer_poisson_normal_iid"]
    idata = fit(reference_models.lip_cancer(shared / "data"))
    np.testing.assert_allclose(idata.estimates.beta, list(record["estimates"].values())[:2], atol=1e-6)
    np.testing.assert_allclose(idata.estimates.sigma_u**2, record["estimates"]["var_district"], atol=1e-6)
    np.testing.assert_allclose(idata.fit.log_likelihood, record["loglik"], atol=1e-8)


EPILEPSY = {
    "normal": (partial(pm.Normal, "u", 0, shape=59), "epilepsy_negbin_normal", 25, 1e-6),
    # Tails of t fall like a power: 1e-6 needs hundreds of nodes, and these leave 5e-6 in the log-likelihood.
    "t": (partial(pm.StudentT, "u", nu=10, mu=0, shape=59), "epilepsy_negbin_t10_independent", 45, 1e-5),
}


@pytest.mark.parametrize("effect", EPILEPSY)
def test_epilepsy(shared, reference, effect):
    """Negative binomial with normal and with independent t effects; Laplace's bias beside."""
    build, key, points, error = EPILEPSY[effect]
    record = reference("truth/exact_quadrature")[key]
    model = epilepsy(shared, lambda sigma: build(sigma=sigma))
    idata = fit(model, hlik.AGQ(points))
    expected = list(record["estimates"].values())
    np.testing.assert_allclose(idata.estimates.beta, expected[:6], atol=error)
    np.testing.assert_allclose(idata.estimates.alpha, expected[6], rtol=error)
    np.testing.assert_allclose(idata.estimates.sigma**2, expected[7], atol=1e-6)
    np.testing.assert_allclose(idata.fit.log_likelihood, record["loglik"], atol=error)
    laplace = fit(model, hlik.Laplace())
    bias = float(laplace.estimates.sigma**2) - expected[7]
    print(f"sigma^2 by Laplace {bias:+.4f}")
    assert 1e-4 < abs(bias) < 0.02


# ---------------------------------------------------------------- closed forms


def poisson_gamma(log_mean, lam):
    with pm.Model() as model:
        beta, spread = pm.Normal("beta"), pm.HalfNormal("lam")
        u = pm.Gamma("u", 1 / spread, 1 / spread, shape=GROUPS)
        pm.Poisson("y", pm.math.exp(beta) * u[GROUP], observed=COUNT)
    n, total = np.bincount(GROUP), np.bincount(GROUP, COUNT)
    mean, a = np.exp(log_mean), 1 / lam
    value = total * log_mean + a * np.log(a) - sc.gammaln(a) + sc.gammaln(a + total)
    value -= (a + total) * np.log(a + n * mean)
    return model, float(value.sum() - sc.gammaln(COUNT + 1).sum())


def binomial_beta(logit, lam):
    """One observation a level, and no coefficient: the beta-binomial distribution."""
    with pm.Model() as model:
        spread = pm.HalfNormal("lam")
        u = pm.Beta("u", 1 / (2 * spread), 1 / (2 * spread), shape=SUCCESSES.size)
        pm.Binomial("y", n=TRIALS, p=u, observed=SUCCESSES)
    a = 1 / (2 * lam)
    return model, float(stats.betabinom(TRIALS, a, a).logpmf(SUCCESSES).sum())


@pytest.mark.parametrize(("pair", "psi", "points"), [(poisson_gamma, [1.0, -1.0], 40), (binomial_beta, [-1.5], 60)])
def test_conjugate_pairs(pair, psi, points):
    """1e-8 where the integral is smooth enough for the rule; Laplace's error is larger by orders of magnitude."""
    model, exact = pair(psi[0] if len(psi) > 1 else 0.0, float(np.exp(psi[-1])))
    profile = quadrature(model, points)
    errors = [abs(value_at(found, psi).value - exact) for found in (profile, Profile(profile.likelihood))]
    print(f"{pair.__name__}: error of AGQ({points}) {errors[0]:.1e}, of Laplace {errors[1]:.1e}")
    assert errors[0] < 1e-8
    assert errors[1] > 1e-3
    coarse = [abs(value_at(quadrature(model, k), psi).value - exact) for k in (3, 7, 15)]
    assert coarse[0] > coarse[1] > coarse[2] > errors[0]


SLOPED = REAL + 0.8 * np.random.default_rng(7).normal(size=GROUPS)[GROUP] * X


def random_slopes(order=slice(None)):
    with pm.Model() as model:
        beta = pm.Normal("beta", shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("su"), shape=GROUPS)
        w = pm.Normal("w", 0, pm.HalfNormal("sw"), shape=GROUPS)
        group, x = GROUP[order], X[order]
        pm.Normal("y", beta[0] + beta[1] * x + u[group] + w[group] * x, pm.HalfNormal("s"), observed=SLOPED[order])
    return model


def test_gaussian_slopes_are_maximum_likelihood():
    """Any number of points is exact for a normal integrand: the same as dense normal algebra."""
    idata = fit(random_slopes(), hlik.AGQ(3))
    su, sw, s = (float(idata.estimates[name]) for name in ("su", "sw", "s"))
    same = GROUP[:, None] == GROUP
    V = same * (su**2 + sw**2 * np.outer(X, X)) + s**2 * np.eye(60)
    mean = idata.estimates.beta.values[0] + idata.estimates.beta.values[1] * X
    np.testing.assert_allclose(idata.fit.log_likelihood, stats.multivariate_normal(mean, V).logpdf(SLOPED), rtol=1e-10)
    laplace = fit(random_slopes(), hlik.Laplace())
    for name in ("beta", "su", "sw", "s"):
        np.testing.assert_allclose(idata.estimates[name], laplace.estimates[name], atol=2e-6)
    np.testing.assert_allclose(idata.fit.log_likelihood, laplace.fit.log_likelihood, rtol=1e-11)


# ---------------------------------------------------------------- blocks


def triple():
    """Counts with three effects a group, and further effects alone in blocks of their own."""
    with pm.Model() as model:
        beta, spread = pm.Normal("beta", shape=2), pm.HalfNormal("spread", shape=3)
        u = pm.Normal("u", 0, spread[0], shape=GROUPS)
        w = pm.Gamma("w", 1 / spread[1], 1 / spread[1], shape=GROUPS)
        t = pm.Logistic("t", 0, spread[2], shape=GROUPS)
        alone = pm.Normal("alone", 0, spread[0], shape=4)
        eta = beta[0] + u[GROUP] + X * t[GROUP] + (X > 0) * pm.math.log(w)[GROUP]
        pm.Poisson("y", pm.math.exp(eta), observed=COUNT)
        pm.Bernoulli("z", logit_p=beta[1] + alone[np.repeat(np.arange(4), 5)], observed=np.tile([0, 1], 10))
        pm.Normal("untouched", beta[0], 1.0, observed=[0.3, 0.1])
    return model


def test_blocks_of_several_sizes():
    profile = quadrature(triple(), 9)
    blocks = profile.blocks
    assert sorted(set(blocks.size.tolist())) == [1, 3]
    assert blocks.largest == 3
    assert np.bincount(blocks.member).tolist() == blocks.size.tolist()
    psi = np.array([0.9, 0.2, np.log(0.5), np.log(0.3), np.log(0.4)])
    exact = _brute_force(psi)
    errors = [abs(value_at(quadrature(triple(), points), psi).value - exact) for points in (5, 9, 19)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5  # logistic tails: a factor of ten for every four nodes


def _brute_force(psi):
    """Trapezoid rule in each block by itself, 81 to 121 nodes a coordinate, written without hlik."""
    beta0, beta1 = psi[:2]
    s = np.exp(psi[2:])
    a = 1 / s[1]
    u, t = np.linspace(-8 * s[0], 8 * s[0], 81), np.sinh(np.linspace(-5, 5, 121)) * 0.6
    log_w = np.linspace(-7, 2.5, 121)
    du, dt, dw = u[1] - u[0], np.cosh(np.linspace(-5, 5, 121)) * 0.6 * (10 / 120), log_w[1] - log_w[0]
    prior = (
        stats.norm(0, s[0]).logpdf(u)[:, None, None]
        + np.log(du)
        + (stats.gamma(a, scale=1 / a).logpdf(np.exp(log_w)) + log_w + np.log(dw))[:, None]
        + stats.logistic(0, s[2]).logpdf(t)
        + np.log(dt)
    )
    total = 0.0
    for g in range(GROUPS):
        log_f = prior.copy()
        for x, y in zip(X[g == GROUP], COUNT[g == GROUP], strict=True):
            eta = beta0 + u[:, None, None] + (x > 0) * log_w[:, None] + x * t
            log_f += y * eta - np.exp(np.minimum(eta, 600)) - sc.gammaln(y + 1)
        total += sc.logsumexp(log_f)
    v = np.linspace(-9 * s[0], 9 * s[0], 2001)
    own = stats.norm(0, s[0]).logpdf(v) + np.log(v[1] - v[0])
    for g in range(4):
        y = np.tile([0, 1], 10)[5 * g : 5 * g + 5].sum()
        total += sc.logsumexp(own + y * (beta1 + v) - 5 * np.logaddexp(0, beta1 + v))
    return total + stats.norm(beta0, 1).logpdf([0.3, 0.1]).sum()


def test_memory_in_chunks(monkeypatch):
    """Nodes taken a few at a time give the same value and gradient."""
    psi = np.array([0.9, 0.2, np.log(0.5), np.log(0.3), np.log(0.4)])
    whole = quadrature(triple(), 5)
    monkeypatch.setattr("hlik.estimators.agq_profile.columns_at_once", lambda likelihood: 17)
    parts = quadrature(triple(), 5)
    one, other = value_at(whole, psi), value_at(parts, psi)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-13)
    np.testing.assert_allclose(whole.gradient(one), parts.gradient(other), rtol=1e-10, atol=1e-10)


def test_order_of_rows_does_not_matter():
    one, other = (
        fit(random_slopes(order), hlik.AGQ(2)) for order in (slice(None), np.random.default_rng(0).permutation(60))
    )
    np.testing.assert_allclose(one.estimates.su, other.estimates.su, atol=1e-6)


def test_one_point_is_laplace(shared):
    model = reference_models.bacteria(shared / "data")
    profile = quadrature(model, 1)
    psi = [2.0, -0.1, 0.3]
    ours, laplace = value_at(profile, psi), value_at(Profile(profile.likelihood), psi)
    np.testing.assert_allclose(ours.value, laplace.value, rtol=1e-14)
    np.testing.assert_allclose(profile.gradient(ours), Profile(profile.likelihood).gradient(laplace), atol=1e-10)


def test_without_random_effects():
    with pm.Model() as model:
        pm.Poisson("y", pm.math.exp(pm.Normal("beta")), observed=COUNT)
    idata = fit(model)
    np.testing.assert_allclose(idata.estimates.beta, np.log(COUNT.mean()), atol=1e-6)
    np.testing.assert_allclose(idata.fit.log_likelihood, stats.poisson(COUNT.mean()).logpmf(COUNT).sum(), rtol=1e-12)


def correlated_slopes(y=COUNT, observe=None):
    """Intercepts and slopes with a joint density: blocks of two."""
    with pm.Model() as model:
        beta, s, r = pm.Normal("beta", shape=2), pm.HalfNormal("s", shape=2), pm.Uniform("r", -1, 1)
        cross = r * s[0] * s[1]
        u = pm.MvNormal("u", np.zeros(2), pt.stacklists([[s[0] ** 2, cross], [cross, s[1] ** 2]]), shape=(GROUPS, 2))
        eta = beta[0] + beta[1] * X + u[GROUP, 0] + u[GROUP, 1] * X
        if observe is None:
            pm.Poisson("y", pm.math.exp(eta), observed=y)
        else:
            observe(eta)
    return model


def test_correlated_effects():
    """Normal responses: exact with any number of points. Counts: the rule converges, and Laplace is near."""
    normal = correlated_slopes(observe=lambda eta: pm.Normal("y", eta, 0.9, observed=SLOPED))
    psi = [0.2, 0.1, -0.3, 0.2, 0.4]
    profile = quadrature(normal, 3)
    assert set(profile.blocks.size.tolist()) == {2}
    laplace = value_at(Profile(profile.likelihood), psi)
    np.testing.assert_allclose(value_at(profile, psi).value, laplace.value, rtol=1e-12)
    values = [value_at(quadrature(correlated_slopes(), points), psi).value for points in (5, 9, 15, 25)]
    steps = np.abs(np.diff(values))
    assert steps[0] > 3 * steps[1] > 9 * steps[2]
    assert steps[2] < 1e-5  # slopes of variance 1.5: counts of five, some zero, leave a skew integrand


# ---------------------------------------------------------------- gradients

GRADIENTS = {name: kind.build for name, kind in KINDS.items()}
GRADIENTS |= {"triple": triple, "slopes": random_slopes, "correlated": correlated_slopes}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient(kind):
    """Against central differences of fourth order: 1e-9 is what rounding leaves at this step."""
    profile = quadrature(GRADIENTS[kind](), 5)
    likelihood = profile.likelihood
    psi = 0.3 * np.random.default_rng(0).normal(size=likelihood.model.n_beta + likelihood.model.n_theta)
    gradient = profile.gradient(value_at(profile, psi))

    def slope(direction, step=1e-4):
        at = [value_at(profile, psi + k * step * direction).value for k in (-2, -1, 1, 2)]
        return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)

    found = [slope(direction) for direction in np.eye(psi.size)]
    np.testing.assert_allclose(gradient, found, rtol=1e-7, atol=1e-8)


# ---------------------------------------------------------------- limits


def test_crossed_effects_are_refused(shared):
    with pytest.raises(hlik.ModelError, match="effects of 'female', 'male' are linked with each other"):
        fit(salamander(shared))


@pytest.mark.parametrize("points", [0, 1.5, 1000, True])
def test_points_out_of_range(points):
    with pytest.raises(hlik.ModelError, match="points must be a whole number from 1 to 200"):
        hlik.AGQ(points)


def test_too_few_points_are_told():
    """Cauchy effects with few nodes: the result says how wrong the integral is."""
    with pm.Model() as model:
        u = pm.Cauchy("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Bernoulli("y", logit_p=pm.Normal("beta") + u[GROUP], observed=(COUNT > 3).astype(int))
    with pytest.warns(hlik.DataWarning, match="raise points"):
        idata = fit(model, hlik.AGQ(3))
    assert float(idata.fit.quadrature_error) > 1e-2


def test_variance_at_zero():
    """Groups that differ less than chance would make them: the variance is on its boundary, and said so."""
    y = np.tile([0, 1, 0, 1, 0], GROUPS)
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Bernoulli("y", logit_p=pm.Normal("beta") + u[GROUP], observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="sd of 'u' estimated at zero"):
        idata = fit(model)
    np.testing.assert_allclose(idata.fit.log_likelihood, stats.bernoulli(0.4).logpmf(y).sum(), atol=1e-6)
    assert np.isnan(idata.standard_errors.sigma)


def test_result_survives_netcdf(tmp_path, shared):
    import arviz as az

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idata = fit(reference_models.seeds("normal")(shared / "data"), "agq", draws=20)
        idata.to_netcdf(tmp_path / "fit.nc")
        again = az.from_netcdf(tmp_path / "fit.nc")
    printed = str(hlik.summary(again))
    assert printed.startswith("hlik AGQ()")
    assert "log-likelihood = -53.757" in printed
