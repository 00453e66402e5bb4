"""HL(mean, dispersion): the second-order term, gradients, equations at the estimates, orders of error."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import optimize

import hlik
from hlik.adjusted_profile import Profile
from hlik.estimators.agq_profile import QuadratureProfile
from hlik.estimators.hl_profile import HLProfile
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from hlik.second_order import SecondOrder
from tests import reference_models
from tests.estimators.test_laplace import salamander
from tests.likelihoods import COUNT, GROUP, GROUPS, KINDS, REAL, X

ALL = [(0, 1), (1, 1), (0, 2), (1, 2)]


def fit(model, estimator, **arguments):
    return hlik.fit(model, estimator, progressbar=False, **{"draws": 0, **arguments})


def likelihood_of(model):
    return HLikelihood(read_model(model))


def mode_at(profile, psi):
    likelihood = profile.likelihood
    return profile.mode(np.asarray(psi, float), np.zeros(likelihood.model.n_beta), likelihood.start_v())


# ---------------------------------------------------------------- the second-order term

BINARY = np.array([int(digit) for digit in (
    "1001011111" "1010000101" "1111100011" "1010010001" "0111110010"
    "1011111101" "1110100111" "1111100010" "0011111100" "1011101000"
)])  # fmt: skip


def crossed():
    """The 10 x 10 array of Shun & McCullagh (1995)."""
    with pm.Model() as model:
        mean, sigma = pm.Normal("mean"), pm.HalfNormal("sigma", shape=2)
        row = pm.Normal("row", 0, sigma[0], shape=10)
        column = pm.Normal("column", 0, sigma[1], shape=10)
        index = np.arange(100)
        pm.Bernoulli("y", logit_p=mean + row[index % 10] + column[index // 10], observed=BINARY)
    return model


@pytest.mark.parametrize(
    ("sigma", "first", "second"),
    [(1.0, -72.6796, -72.2612), (0.5, -70.1114, -70.0052), (3.0, -86.4636, -85.5564)],
)
def test_shun_and_mccullagh(sigma, first, second):
    """Table 2 of the paper, crossed binary data, mean 1 (as R's glmmsr repeats it): all digits printed."""
    likelihood = likelihood_of(crossed())
    mode = mode_at(Profile(likelihood), [1.0, np.log(sigma), np.log(sigma)])
    np.testing.assert_allclose(mode.value, first, atol=1.5e-4)  # two rounded numbers of the table added
    np.testing.assert_allclose(mode.value + SecondOrder(likelihood).value(mode), second, atol=1.5e-4)


def by_tensors(likelihood, mode):
    """-F/24 from dense third and fourth derivatives of h: differences of its dense matrix of second derivatives."""
    point, q = mode.point, mode.point.v.size

    def curvature(v):
        at = likelihood.at(point.beta, v, point.theta)
        return -(likelihood.Z.T @ (at.weight[:, None] * likelihood.Z.toarray())) - np.diag(at.random_weight)

    step = 1e-3 / np.sqrt(-np.diag(curvature(point.v)))
    moves = np.diag(step)
    third, fourth = np.zeros((q, q, q)), np.zeros((q, q, q, q))
    here = curvature(point.v)
    for j in range(q):
        third[j] = sum(
            weight * curvature(point.v + times * moves[j]) for times, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1))
        ) / (12 * step[j])
        for k in range(j):
            parts = [sign * curvature(point.v + a * moves[j] + b * moves[k]) for a, b, sign in
                     ((10, 10, 1), (10, -10, -1), (-10, 10, -1), (-10, -10, 1))]  # fmt: skip
            fourth[j, k] = fourth[k, j] = sum(parts) / (400 * step[j] * step[k])
        fourth[j, j] = (curvature(point.v + 10 * moves[j]) - 2 * here + curvature(point.v - 10 * moves[j])) / (
            100 * step[j] ** 2
        )
    c = np.linalg.inv(-here)
    return (
        np.einsum("jklm,jk,lm", fourth, c, c) / 8
        + np.einsum("jkl,mno,jk,lm,no", third, third, c, c, c, optimize=True) / 8
        + np.einsum("jkl,mno,jm,kn,lo", third, third, c, c, c, optimize=True) / 12
    )


@pytest.mark.parametrize("kind", ["negative_binomial", "hurdle", "double_hglm", "growth_curve", "ordered_logistic"])
def test_second_order_term_of_any_likelihood(kind):
    """Against dense tensors of derivatives: 1e-4 is what differences of second order at that step leave."""
    likelihood = likelihood_of(KINDS[kind].build())
    psi = 0.3 * np.random.default_rng(1).normal(size=likelihood.model.n_beta + likelihood.model.n_theta)
    mode = mode_at(Profile(likelihood), psi)
    expected = by_tensors(likelihood, mode)
    assert abs(expected) > 1e-4
    np.testing.assert_allclose(SecondOrder(likelihood).value(mode), expected, rtol=2e-4, atol=1e-6)


def test_three_predictors():
    """Mixed third derivatives of three predictors, each with its effects."""
    with pm.Model() as model:
        beta, s = pm.Normal("beta"), pm.HalfNormal("s")
        u, w, z = (pm.Normal(name, 0, s, shape=4) for name in "uwz")
        few = GROUP % 4
        pm.ZeroInflatedNegativeBinomial(
            "y",
            psi=pm.math.sigmoid(1 + z[few]),
            mu=pm.math.exp(beta + u[few]),
            alpha=pm.math.exp(1 + w[few]),
            observed=COUNT,
        )
    likelihood = likelihood_of(model)
    assert likelihood.terms[0].n_predictors == 3
    mode = mode_at(Profile(likelihood), [1.0, np.log(0.5)])
    np.testing.assert_allclose(SecondOrder(likelihood).value(mode), by_tensors(likelihood, mode), rtol=2e-4)


def poisson_groups(size, family="normal"):
    """`size` counts in each of four groups, the group totals growing in proportion."""
    y = np.repeat([2, 5, 3, 7], size)
    with pm.Model() as model:
        beta, s = pm.Normal("beta"), pm.HalfNormal("s")
        if family == "normal":
            u = pm.Normal("u", 0, s, shape=4)
        else:
            u = pm.math.log(pm.Gamma("w", 1 / s, 1 / s, shape=4))
        pm.Poisson("y", pm.math.exp(beta + u[np.repeat(np.arange(4), size)]), observed=y)
    return model


def test_order_of_the_error():
    """Against quadrature: the error of p_v(h) falls as 1 / information, that of the second order faster.

    In general as its square; for Poisson counts as its cube, since Stirling's series has no even terms.
    """
    psi = [1.2, np.log(0.6)]
    errors = []
    for size in (80, 320):
        likelihood = likelihood_of(poisson_groups(size))
        exact = mode_at(QuadratureProfile(likelihood, 60), psi).value
        mode = mode_at(Profile(likelihood), psi)
        errors.append([mode.value - exact, mode.value + SecondOrder(likelihood).value(mode) - exact])
    (first, second), (less, much_less) = errors
    assert 3.6 < first / less < 4.1  # 4 in the limit
    assert 50 < second / much_less < 66  # 64 in the limit


def test_gamma_effects_give_stirling_series():
    """Poisson counts with gamma effects integrate to Gamma(a), a = 1/lam + sum y: Stirling, and the term 1 / (12 a)."""
    lam, totals = 0.6, 3 * np.array([2, 5, 3, 7])
    likelihood = likelihood_of(poisson_groups(3, "gamma"))
    mode = mode_at(Profile(likelihood), [1.2, np.log(lam)])
    np.testing.assert_allclose(SecondOrder(likelihood).value(mode), np.sum(1 / (12 * (1 / lam + totals))), rtol=1e-9)


def test_chunks_of_pairs(monkeypatch):
    likelihood = likelihood_of(crossed())
    mode = mode_at(Profile(likelihood), [1.0, 0.0, 0.3])
    whole = SecondOrder(likelihood).value(mode)
    monkeypatch.setattr("hlik.second_order.MAX_NUMBERS", 700)
    np.testing.assert_allclose(SecondOrder(likelihood).value(mode), whole, rtol=1e-12)


# ---------------------------------------------------------------- gradients


def slopes():
    """Correlated intercepts and slopes."""
    with pm.Model() as model:
        beta, s, r = pm.Normal("beta", shape=2), pm.HalfNormal("s", shape=2), pm.Uniform("r", -1, 1)
        cross = r * s[0] * s[1]
        u = pm.MvNormal("u", np.zeros(2), pt.stacklists([[s[0] ** 2, cross], [cross, s[1] ** 2]]), shape=(GROUPS, 2))
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * X + u[GROUP, 0] + u[GROUP, 1] * X), observed=COUNT)
    return model


GRADIENTS = {
    "crossed": crossed,
    "gamma": lambda: poisson_groups(3, "gamma"),
    "slopes": slopes,
    "double_hglm": KINDS["double_hglm"].build,
}


@pytest.mark.parametrize("orders", ALL)
@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient(kind, orders):
    """Against central differences of fourth order of the value, beta found anew: 1e-7 is their rounding error."""
    likelihood = likelihood_of(GRADIENTS[kind]())
    profile = HLProfile(likelihood, *orders)
    theta = 0.2 * np.random.default_rng(2).normal(size=likelihood.model.n_theta) - 0.3
    gradient = profile.gradient(mode_at(profile, theta))
    step = 3e-3
    found = []
    for direction in np.eye(theta.size):
        at = [mode_at(profile, theta + k * step * direction).value for k in (-2, -1, 1, 2)]
        found.append((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step))
    np.testing.assert_allclose(gradient, found, rtol=1e-6, atol=2e-7)


# ---------------------------------------------------------------- estimates


@pytest.mark.parametrize("orders", ALL)
def test_gaussian_models_are_reml(orders):
    with pm.Model() as model:
        beta = pm.Normal("beta", shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("su"), shape=GROUPS)
        pm.Normal("y", beta[0] + beta[1] * X + u[GROUP], pm.HalfNormal("s"), observed=REAL)
    idata, reml = fit(model, hlik.HL(*orders)), fit(model, hlik.Laplace(reml=True))
    for name in ("beta", "su", "s"):
        np.testing.assert_allclose(idata.estimates[name], reml.estimates[name], rtol=1e-6)
        np.testing.assert_allclose(idata.standard_errors[name], reml.standard_errors[name], rtol=1e-4)
    np.testing.assert_allclose(idata.fit.log_likelihood, reml.fit.log_likelihood, rtol=1e-9)


def test_first_order_from_h_is_laplace_reml(shared):
    model = salamander(shared)
    idata, reml = fit(model, hlik.HL(0, 1)), fit(model, hlik.Laplace(reml=True))
    for name in ("beta", "sigma_f", "sigma_m"):
        np.testing.assert_allclose(idata.estimates[name], reml.estimates[name], atol=1e-6)


@pytest.mark.parametrize("dispersion", [1, 2])
def test_equations_hold(shared, dispersion):
    """At the estimates p_v(h) is stationary in beta, and no sigma beside them has a higher value (bacteria)."""
    model = reference_models.bacteria(shared / "data")
    idata = fit(model, hlik.HL(1, dispersion))
    assert idata.fit.attrs["likelihood"] == ("p_bv_h" if dispersion == 1 else "s_bv_h")
    likelihood = likelihood_of(model)
    inner = Profile(likelihood)
    beta, log_sigma = idata.estimates.beta.values, np.log(float(idata.estimates.sigma_u))
    score = inner.gradient(mode_at(inner, [*beta, log_sigma]))[:2]
    np.testing.assert_allclose(score, 0.0, atol=1e-4)
    profile = HLProfile(likelihood, 1, dispersion)
    best = optimize.minimize_scalar(
        lambda t: -mode_at(profile, [t]).value, bracket=(log_sigma - 0.1, log_sigma + 0.1), tol=1e-9
    )
    np.testing.assert_allclose(best.x, log_sigma, atol=1e-5)
    np.testing.assert_allclose(idata.fit.log_likelihood, -best.fun, atol=1e-9)


@pytest.mark.slow
def test_salamander(shared):
    """Variances grow with the order, and beta with p_v(h), as in Noh & Lee (2007); the variances' maximum likelihood
    estimates are 1.384 and 1.239, those of second order correct for four coefficients besides."""
    model = salamander(shared)
    found = {orders: fit(model, hlik.HL(*orders)).estimates for orders in ALL}
    for sigma in ("sigma_f", "sigma_m"):
        values = [float(found[orders][sigma]) for orders in ((0, 1), (1, 1), (0, 2), (1, 2))]
        assert values == sorted(values)
    assert np.all(np.abs(found[1, 1].beta) > np.abs(found[0, 1].beta))
    np.testing.assert_allclose(float(found[1, 2].sigma_f), 1.28824, atol=1e-4)  # this package's own: a regression
    np.testing.assert_allclose(found[1, 2].beta, [1.09379, 0.32606, -2.05604, 1.06718], atol=1e-4)


@pytest.mark.slow
def test_restricted_likelihood_of_small_groups(shared):
    """bacteria: the integral over beta of the quadrature's likelihood, to which HL(1, 2) comes closer than HL(1, 1)."""
    model = reference_models.bacteria(shared / "data")
    likelihood = likelihood_of(model)
    exact = QuadratureProfile(likelihood, 25)

    def restricted(log_sigma):
        """log of the integral over beta by its own Laplace approximation with differenced second derivatives."""
        start = np.array([2.6, -0.14])

        def gradient(beta):
            return exact.gradient(mode_at(exact, [*beta, log_sigma]))[:2]

        beta = optimize.root(gradient, start, tol=1e-10).x
        step = 1e-4
        hessian = np.array([(gradient(beta + step * e) - gradient(beta - step * e)) / (2 * step) for e in np.eye(2)])
        return mode_at(exact, [*beta, log_sigma]).value - 0.5 * np.linalg.slogdet(-hessian / (2 * np.pi))[1]

    best = optimize.minimize_scalar(lambda t: -restricted(t), bracket=(0.2, 0.4), tol=1e-6)
    truth = float(np.exp(best.x))
    error = {d: abs(float(fit(model, hlik.HL(1, d)).estimates.sigma_u) - truth) for d in (1, 2)}
    print(f"REML by quadrature {truth:.4f}; errors of HL(1,1), HL(1,2): {error}")
    assert error[2] < error[1]


@pytest.mark.parametrize("orders", [(2, 1), (0, 3), (-1, 1), (1, 0)])
def test_orders_out_of_range(orders):
    with pytest.raises(hlik.ModelError, match="mean must be 0 or 1 and dispersion 1 or 2"):
        hlik.HL(*orders)


def test_no_fixed_effects_and_no_random_effects():
    with pm.Model() as bare:
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        pm.Poisson("y", pm.math.exp(1.0 + u[GROUP]), observed=COUNT)
    same = [float(fit(bare, estimator).estimates.s) for estimator in (hlik.HL(1, 1), hlik.HL(0, 1), hlik.Laplace())]
    np.testing.assert_allclose(same, same[0], rtol=1e-6)
    with pm.Model() as plain:
        pm.Normal("y", pm.Normal("mean"), pm.HalfNormal("s"), observed=REAL)
    np.testing.assert_allclose(fit(plain, hlik.HL(1, 2)).estimates.s, REAL.std(ddof=1), rtol=1e-6)


def test_variance_at_zero():
    y = np.tile([0, 1, 0, 1, 0], GROUPS)
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Bernoulli("y", logit_p=pm.Normal("beta") + u[GROUP], observed=y)
    for estimator in (hlik.HL(1, 1), hlik.HL(1, 2)):
        with pytest.warns(hlik.ConvergenceWarning, match="sd of 'u' estimated at zero"):
            idata = fit(model, estimator)
        assert np.isnan(idata.standard_errors.sigma)


@pytest.mark.parametrize("orders", ALL)
def test_errors_of_beta(orders):
    """Given theta from second differences of h's profile or of p_v(h); beta along theta from fits with theta held."""
    rng = np.random.default_rng(3)
    group, x = np.repeat(np.arange(15), 4), rng.normal(size=60)
    y = rng.binomial(1, 1 / (1 + np.exp(-0.5 - x - rng.normal(size=15)[group])))
    with pm.Model() as model:
        beta, s = pm.Flat("beta", shape=2), pm.HalfFlat("s")
        u = pm.Normal("u", 0, s, shape=15)
        pm.Bernoulli("y", logit_p=beta[0] + beta[1] * x + u[group], observed=y)
    idata = fit(model, hlik.HL(*orders))
    likelihood = likelihood_of(model)
    theta, centre = np.log([float(idata.estimates["s"])]), idata.estimates["beta"].values
    inner = Profile(likelihood)

    def of_beta(beta):
        mode = inner.mode(np.concatenate([beta, theta]), beta, idata.estimates["u"].values)
        return mode.value if orders[0] == 1 else mode.point.h

    moves = 1e-3 * np.eye(2)
    curvature = np.array(
        [[sum(i * j * of_beta(centre + i * a + j * b) for i in (1, -1) for j in (1, -1)) for b in moves] for a in moves]
    )
    given = np.linalg.inv(-curvature / 4e-6)
    ends = [mode_at(HLProfile(likelihood, *orders), theta + sign * 1e-3).point.beta for sign in (1.0, -1.0)]
    path = ((ends[0] - ends[1]) / 2e-3)[:, None]
    variance = float(idata.unconstrained_standard_errors["s_log__"]) ** 2
    expected = np.sqrt(np.diag(given + variance * path @ path.T))
    # second differences of values have errors of 1e-6, first differences with steps of 1e-3 too
    np.testing.assert_allclose(idata.standard_errors["beta"], expected, rtol=1e-5)
    assert np.all(expected > np.sqrt(np.diag(given)))
