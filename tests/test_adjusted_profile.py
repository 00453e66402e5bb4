"""The mode of h, p_v(h), p_bv(h) and their gradients: differences, dense algebra, quadrature, damping, errors."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import integrate, special, stats

import hlik
from hlik.adjusted_profile import ModeError, Profile
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from tests.likelihoods import COUNT, FEW, GROUP, GROUPS, KINDS, REAL, TIME, X

BINARY = (REAL > 0).astype(int)


def closed(observe, effect=None):
    """A model with an intercept, a slope and effects on a family in closed form."""

    def build():
        with pm.Model() as model:
            beta, sigma = pm.Normal("beta", 0, 1, shape=2), pm.HalfNormal("sigma")
            v = pm.Normal("u", 0, sigma, shape=GROUPS) if effect is None else effect(sigma)
            observe(beta[0] + beta[1] * X + v[GROUP])
        return model

    return build


def poisson(eta):
    return pm.Poisson("y", pt.exp(eta), observed=COUNT)


def gaussian(eta):
    return pm.Normal("y", eta, pm.HalfNormal("tau"), observed=REAL)


def binary(eta):
    return pm.Bernoulli("y", logit_p=eta, observed=BINARY)


def gamma_effect(s):
    return pt.log(pm.Gamma("u", 1 / s, 1 / s, shape=GROUPS))


def beta_effect(s):
    return pm.math.logit(pm.Beta("u", 1 / (2 * s), 1 / (2 * s), shape=GROUPS))


def inverse_gamma_effect(s):
    return pt.log(pm.InverseGamma("u", 1 + 1 / s, 1 / s, shape=GROUPS))


def t_effect(s):
    return pm.StudentT("u", nu=5, sigma=s, shape=GROUPS)


def t_effect_of_unknown_shape(s):
    return pm.StudentT("u", nu=2 + pm.Gamma("nu", 2, 0.1), sigma=s, shape=GROUPS)


def gamma_response(eta):
    alpha = pm.HalfNormal("alpha")
    return pm.Gamma("y", alpha=alpha, beta=alpha * pt.exp(-eta), observed=TIME)


def two_predictors(eta):
    w = pm.Normal("w", 0, pm.HalfNormal("sigma_w"), shape=GROUPS)
    zero = pm.math.invlogit(pm.Normal("gamma") + w[GROUP])
    return pm.ZeroInflatedPoisson("y", psi=zero, mu=pt.exp(eta), observed=FEW)


MODELS = {
    "normal-normal": closed(gaussian),
    "poisson-normal": closed(poisson),
    "binary-normal": closed(binary),
    "poisson-gamma": closed(poisson, gamma_effect),
    "binary-beta": closed(binary, beta_effect),
    "gamma-inverse gamma": closed(gamma_response, inverse_gamma_effect),
    "poisson-t": closed(poisson, t_effect),
    "normal-t of unknown shape": closed(gaussian, t_effect_of_unknown_shape),
    "two predictors with effects": closed(two_predictors),
    "negative binomial": KINDS["negative_binomial"].build,
    "custom density": KINDS["custom_gumbel"].build,
    "growth curve": KINDS["growth_curve"].build,
    "effects in the dispersion": KINDS["double_hglm"].build,
    "censored": KINDS["censored"].build,
}


def profile_of(model, restricted):
    read = read_model(model)
    assert not read.laplace_obstacles
    likelihood = HLikelihood(read)
    psi = 0.2 * np.random.default_rng(2).normal(size=(0 if restricted else read.n_beta) + read.n_theta)
    profile = Profile(likelihood, restricted)
    return profile, psi, profile.mode(psi, np.zeros(read.n_beta), likelihood.start_v())


@pytest.mark.parametrize("restricted", [False, True], ids=["p_v", "p_bv"])
@pytest.mark.parametrize("name", MODELS)
def test_gradient(name, restricted):
    """Against central differences of fourth order: 1e-8 of the largest element, which is what they are good for."""
    profile, psi, mode = profile_of(MODELS[name](), restricted)
    gradient = profile.gradient(mode)
    step, differences = 1e-3, np.zeros_like(psi)
    for k in range(psi.size):
        move = step * (np.arange(psi.size) == k)
        f = [profile.mode(psi + c * move, mode.point.beta, mode.point.v).value for c in (-2, -1, 1, 2)]
        differences[k] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
    np.testing.assert_allclose(gradient, differences, rtol=0, atol=2e-8 * max(1.0, np.abs(gradient).max()))


@pytest.mark.parametrize("name", MODELS)
def test_the_mode_is_where_the_score_vanishes(name):
    """And it does not depend on where Newton's method begins."""
    profile, psi, mode = profile_of(MODELS[name](), True)
    r_beta, r_v = profile._scores(mode.point)
    assert max(np.abs(r_beta).max(), np.abs(r_v).max()) < 1e-6
    again = profile.mode(psi, mode.point.beta, mode.point.v)
    np.testing.assert_allclose(again.value, mode.value, rtol=1e-11)


# ---------------------------------------------------------------- values


def dense_gaussian(beta, sigma, tau, restricted):
    """Log marginal likelihood of a Gaussian mixed model: (8) and (9) of Harville (1977)."""
    Z = np.eye(GROUPS)[GROUP]
    design = np.column_stack([np.ones(X.size), X])
    V = sigma**2 * Z @ Z.T + tau**2 * np.eye(X.size)
    if not restricted:
        return stats.multivariate_normal(design @ beta, V).logpdf(REAL)
    inner = design.T @ np.linalg.solve(V, design)
    beta = np.linalg.solve(inner, design.T @ np.linalg.solve(V, REAL))
    profiled = stats.multivariate_normal(design @ beta, V).logpdf(REAL)
    return profiled - 0.5 * np.linalg.slogdet(inner / (2 * np.pi))[1]


@pytest.mark.parametrize("restricted", [False, True], ids=["ML", "REML"])
def test_gaussian_models_are_exact(restricted):
    _, psi, mode = profile_of(closed(gaussian)(), restricted)
    sigma, tau = np.exp(psi[-2:])
    expected = dense_gaussian(psi[:2], sigma, tau, restricted)
    np.testing.assert_allclose(mode.value, expected, rtol=1e-12)


def conjugate(family, spread):
    """(Laplace, exact) log marginal likelihood of four observations of one effect each, scale `spread`."""
    group = np.repeat(np.arange(3), 4)
    with pm.Model() as model:
        lam = pm.HalfNormal("lam")
        if family == "gamma":
            y = np.array([1, 0, 2, 3, 5, 4, 2, 6, 0, 1, 0, 0])
            u = pm.Gamma("u", 1 / lam, 1 / lam, shape=3)
            pm.Poisson("y", u[group], observed=y)
        else:
            y = np.array([1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1])
            u = pm.Beta("u", 1 / (2 * lam), 1 / (2 * lam), shape=3)
            pm.Bernoulli("y", p=u[group], observed=y)
    likelihood = HLikelihood(read_model(model))
    value = Profile(likelihood).mode(np.log([spread]), np.zeros(0), likelihood.start_v()).value
    a, total = 1 / spread, np.bincount(group, y)
    if family == "gamma":
        exact = special.gammaln(a + total) - special.gammaln(a) + a * np.log(a) - (a + total) * np.log(a + 4)
        return value, float(exact.sum() - special.gammaln(y + 1).sum())
    return value, float((special.betaln(a / 2 + total, a / 2 + 4 - total) - special.betaln(a / 2, a / 2)).sum())


@pytest.mark.parametrize(
    ("family", "spread", "low", "high"),
    [
        ("gamma", 0.5, -0.10, -0.04),
        ("gamma", 0.1, -0.03, -0.01),
        ("gamma", 0.02, -0.006, -0.003),
        ("beta", 0.5, -0.25, -0.01),
        ("beta", 0.1, -0.06, -0.005),
        ("beta", 0.02, -0.03, -0.005),
    ],
)
def test_error_of_the_approximation_on_conjugate_pairs(family, spread, low, high):
    """Negative binomial and beta-binomial in closed form: Laplace is a little low, less so for smaller variances."""
    value, exact = conjugate(family, spread)
    assert low < value - exact < high


def test_value_against_quadrature():
    """Poisson counts with a normal effect: the error falls with the number of observations in the group."""
    errors = []
    for repeats in (1, 4, 16):
        y = np.tile([2, 4, 3], repeats)
        with pm.Model() as model:
            u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=2)
            group = np.repeat([0, 1], y.size)
            pm.Poisson("y", pt.exp(1 + u[group]), observed=np.tile(y, 2))
        likelihood = HLikelihood(read_model(model))
        value = Profile(likelihood).mode(np.zeros(1), np.zeros(0), likelihood.start_v()).value / 2

        def density(v, y=y, value=value):
            return np.exp(stats.poisson.logpmf(y, np.exp(1 + v)).sum() + stats.norm.logpdf(v) - value)

        errors.append(-np.log(integrate.quad(density, -4, 4, points=[0], epsabs=1e-12)[0]))
    assert np.all(np.abs(errors[1:]) < 0.4 * np.abs(errors[:-1]))
    assert abs(errors[-1]) < 2e-3


# ---------------------------------------------------------------- where Newton's method needs help


def cauchy_model():
    """Student-t responses far from the start: their weights are negative there."""
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.StudentT("y", nu=1.5, mu=u[GROUP], sigma=0.5, observed=REAL + np.repeat(np.arange(GROUPS), 5))
    return model


def test_damping_where_the_curvature_is_not_positive_definite():
    likelihood = HLikelihood(read_model(cauchy_model()))
    profile = Profile(likelihood)
    theta, v = np.log([4.0]), likelihood.start_v()
    start = likelihood.at(np.zeros(0), v, theta)
    curvature = likelihood.Z.T @ start.weight + start.random_weight
    assert curvature.min() < 0  # Newton's step from here would go downhill
    mode = profile.mode(theta, np.zeros(0), v)
    assert mode.point.h > start.h
    assert np.abs(profile._scores(mode.point)[1]).max() < 1e-7


def test_a_start_out_of_range_is_told():
    likelihood = HLikelihood(read_model(closed(poisson)()))
    with pytest.raises(ModeError, match="h is not finite at the starting values"):
        Profile(likelihood).mode(np.array([2000.0, 0.0, 0.0]), np.zeros(2), likelihood.start_v())


def test_no_mode_is_told():
    """Every count is zero and no density holds v back: h rises for ever."""
    with pm.Model() as model:
        u = pm.Flat("u", shape=2)
        pm.Poisson("y", pt.exp(u[[0, 0, 1, 1]]), observed=np.zeros(4, int))
    likelihood = HLikelihood(read_model(model, random=["u"]))
    with pytest.raises(ModeError, match="rises for ever"):
        Profile(likelihood).mode(np.zeros(0), np.zeros(0), likelihood.start_v())


def test_no_value_at_the_start_is_a_model_error():
    with pytest.raises(hlik.ModelError, match=r"no value at the starting values: pass start="):
        hlik.fit(KINDS["negative_binomial"].build(), hlik.Laplace(), start={"beta": [2000.0, 0.0]}, progressbar=False)
