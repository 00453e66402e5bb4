"""Predictions of levels that a fit did not have, and of terms with more effects than observations, by dense algebra."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import hlik
from hlik.distributions import CAR, Relationship
from models import hglm_tutorial

RNG = np.random.default_rng(5)
N, Q = 40, 150
Z = RNG.integers(0, 3, (N, Q)).astype(np.int8)
Z_NEW = RNG.integers(0, 3, (5, Q)).astype(np.int8)
X, X_NEW = RNG.normal(size=N), RNG.normal(size=5)
Y = 1 + X + Z @ RNG.normal(0, 0.3, Q) + RNG.normal(size=N)


def fit(model, estimator="eql"):
    return hlik.fit(model, estimator, progressbar=False, draws=0)


def markers(kind="data", weight=None, x=X, z=Z, y=Y):
    with pm.Model(coords={"marker": np.arange(z.shape[1])}) as model:
        beta = pm.Normal("beta", 0, 10, shape=2)
        s_u, s = pm.HalfNormal("s_u", 1), pm.HalfNormal("s", 1)
        Zd = pm.Data("Z", z.astype(float)) if kind == "data" else z
        scale = s_u if weight is None else s_u * np.sqrt(weight)
        u = pm.Normal("u", 0, scale, dims="marker")
        pm.Normal("y", beta[0] + beta[1] * pm.Data("x", x) + Zd @ u, s, observed=y)
    return model


def blup(idata, weight=None):
    """Covariances of the prediction errors of (beta, u) by Henderson's equations, dense."""
    s2, s2_u = float(idata.estimates["s"]) ** 2, float(idata.estimates["s_u"]) ** 2
    w = np.ones(Q) if weight is None else weight
    T = np.column_stack([np.ones(N), X, Z])
    C = T.T @ T / s2 + np.diag(np.r_[0, 0, 1 / (s2_u * w)])
    return np.linalg.solve(C, T.T @ Y / s2), np.linalg.inv(C), s2_u * w


@pytest.mark.parametrize("weight", [None, RNG.uniform(0.5, 2, Q)], ids=["equal", "weighted"])
@pytest.mark.parametrize("kind", ["container", "model"])
def test_wide_term_at_other_rows(kind, weight):
    """x'beta + z'u at new rows: Henderson's equations in all effects at once."""
    model = markers("data" if kind == "container" else "bytes", weight)
    idata = fit(model)
    new = {"Z": Z_NEW, "x": X_NEW}
    if kind == "model":
        new = markers("bytes", weight, X_NEW, Z_NEW, np.zeros(5))
    solution, inverse, variances = blup(idata, weight)
    T = np.column_stack([np.ones(5), X_NEW, Z_NEW])
    found = hlik.predict(model, idata, new)
    np.testing.assert_allclose(found["estimate"], T @ solution, rtol=1e-8)
    np.testing.assert_allclose(found["se"], np.sqrt(np.einsum("ij,jk,ik->i", T, inverse, T)), rtol=1e-8)
    typical = hlik.predict(model, idata, new, random="zero")
    plain = np.einsum("ij,jk,ik->i", T[:, :2], inverse[:2, :2], T[:, :2])
    np.testing.assert_allclose(typical["se"] ** 2, plain, rtol=1e-8)
    anew = hlik.predict(model, idata, new, random="new")
    np.testing.assert_allclose(anew["se"] ** 2, plain + Z_NEW.astype(float) ** 2 @ variances, rtol=1e-8)
    np.testing.assert_allclose(anew["estimate"], T[:, :2] @ solution[:2], rtol=1e-8)


def test_wide_term_at_the_data_of_the_fit():
    model = markers()
    idata = fit(model)
    solution, inverse, _ = blup(idata)
    T = np.column_stack([np.ones(N), X, Z])
    found = hlik.predict(model, idata)
    np.testing.assert_allclose(found["estimate"], T @ solution, rtol=1e-8)
    np.testing.assert_allclose(found["se"], np.sqrt(np.einsum("ij,jk,ik->i", T, inverse, T)), rtol=1e-7)
    marginal = hlik.predict(model, idata, random="marginal")
    np.testing.assert_allclose(marginal["estimate"], T[:, :2] @ solution[:2], rtol=1e-8)


def test_new_markers_beside_those_of_a_wide_term():
    """A column that the fit did not have adds its prior variance."""
    model = markers()
    idata = fit(model)
    more = np.column_stack([Z_NEW, [0, 1, 2, 0, 1]]).astype(float)
    found = hlik.predict(model, idata, {"Z": more, "x": X_NEW}, coords={"marker": np.arange(Q + 1)})
    without = hlik.predict(model, idata, {"Z": Z_NEW, "x": X_NEW})
    s2_u = float(idata.estimates["s_u"]) ** 2
    np.testing.assert_allclose(found["estimate"], without["estimate"], rtol=1e-10)
    np.testing.assert_allclose(found["se"] ** 2, without["se"] ** 2 + s2_u * more[:, -1] ** 2, rtol=1e-8)


def test_wide_term_in_a_mean_of_several_predictors():
    """Zero-inflated counts: the Jacobian by the effects, on their scores, against differences of the mean."""
    rng = np.random.default_rng(4)
    y = rng.poisson(np.exp(0.5 + Z @ rng.normal(0, 0.05, Q))) * rng.binomial(1, 0.8, N)

    def build(z, counts):
        with pm.Model() as model:
            beta, s_u, psi = pm.Normal("beta", 0, 5), pm.HalfNormal("s_u", 1), pm.Beta("psi", 1, 1)
            u = pm.Normal("u", 0, s_u, shape=Q)
            pm.ZeroInflatedPoisson("y", psi, pm.math.exp(beta + z @ u), observed=counts)
        return model

    model = build(Z.astype(float), y)
    idata = fit(model, "laplace")
    found = hlik.predict(model, idata, build(Z_NEW.astype(float), np.zeros(5, int)), kind="response")
    estimates = idata.estimates
    eta = float(estimates["beta"]) + Z_NEW @ estimates["u"].values
    np.testing.assert_allclose(found["estimate"], float(estimates["psi"]) * np.exp(eta), rtol=1e-8)
    assert np.all(found["se"] > 0)


# --- fields ----------------------------------------------------------------------------------------------------------

SIDE, INNER = 5, 20  # a grid of 25 areas, of which the first 20 were observed
D = np.array([
    [float(abs(i // SIDE - j // SIDE) + abs(i % SIDE - j % SIDE) == 1) for j in range(SIDE**2)] for i in range(SIDE**2)
])  # fmt: skip
COUNTS = np.array([9, 14, 7, 9, 3, 6, 13, 9, 4, 6, 12, 7, 6, 10, 1, 5, 14, 4, 8, 6])


def areas(size=INNER, rows=None, counts=None):
    rows = np.arange(size) if rows is None else rows
    counts = np.zeros(len(rows)) if counts is None else counts
    with pm.Model(coords={"area": np.arange(size)}) as model:
        beta, tau, rho = pm.Normal("beta", 0, 5), pm.HalfNormal("tau", 1), pm.Uniform("rho", -0.28, 0.28)
        v = CAR("v", D=D[:size, :size], tau=tau, rho=rho, dims="area")
        pm.Poisson("y", pm.math.exp(beta + v[pm.Data("at", rows)]), observed=counts)
    return model


def test_areas_given_their_neighbours():
    model = areas(counts=COUNTS)
    idata = hlik.fit(model, fixed={"rho": 0.15}, progressbar=False, draws=0)
    tau, v, beta = float(idata.estimates["tau"]), idata.estimates["v"].values, float(idata.estimates["beta"])
    Q_all = (np.eye(25) - 0.15 * D) / tau
    A = -np.linalg.solve(Q_all[INNER:, INNER:], Q_all[INNER:, :INNER])
    found = hlik.predict(model, idata, areas(25, np.arange(15, 25)))
    np.testing.assert_allclose(found["estimate"], beta + np.r_[v[15:], A @ v], rtol=1e-9)
    weights = np.exp(beta + v)
    T = np.column_stack([np.ones(INNER), np.eye(INNER)])
    C = np.linalg.inv(T.T @ (weights[:, None] * T) + np.pad(Q_all[:INNER, :INNER], ((1, 0), (1, 0))))
    # the field at the areas of the fit has their own precision; new ones are given these
    rows = np.vstack(
        [np.pad(np.eye(INNER)[15:], ((0, 0), (1, 0)), constant_values=1), np.column_stack([np.ones(5), A])]
    )
    extra = np.r_[np.zeros(5), np.diag(np.linalg.inv(Q_all[INNER:, INNER:]))]
    np.testing.assert_allclose(found["se"] ** 2, np.einsum("ij,jk,ik->i", rows, C, rows) + extra, rtol=1e-7)
    anew = hlik.predict(model, idata, areas(25, np.arange(15, 25)), random="new")
    own = np.diag(np.linalg.inv(Q_all))[15:]
    np.testing.assert_allclose(anew["se"] ** 2, C[0, 0] + own, rtol=1e-7)


def test_dispersions_of_a_field_move_what_is_predicted_of_new_areas():
    """Laplace: d(A(rho) v_hat)/drho counts; the whole error against differences of the prediction in (beta, theta)."""
    model = areas(counts=COUNTS)
    idata = fit(model, "laplace")
    where = areas(25, np.arange(20, 25))
    found = hlik.predict(model, idata, where)
    names = list(idata["fit"]["parameter"].values)
    estimates = {name: idata.unconstrained_estimates[name].values for name in idata.unconstrained_estimates}
    held = {"beta": "beta", "tau": "tau_log__", "rho": "rho_interval__"}
    natural = {"beta": float, "tau": np.exp, "rho": lambda x: -0.28 + 0.56 * stats.logistic.cdf(x)}

    def prediction(changed):
        values = {name: float(natural[name](changed[key])) for name, key in held.items()}
        other = hlik.fit(model, "laplace", fixed=values, progressbar=False, draws=0)
        tau, rho, v = values["tau"], values["rho"], other.estimates["v"].values
        Q_all = (np.eye(25) - rho * D) / tau
        A = -np.linalg.solve(Q_all[INNER:, INNER:], Q_all[INNER:, :INNER])
        return values["beta"] + A @ v, A, Q_all, np.exp(values["beta"] + v)

    central = {key: float(estimates[key]) for key in held.values()}
    mean, A, Q_all, weights = prediction(central)
    np.testing.assert_allclose(found["estimate"], mean, rtol=1e-6)
    J = np.column_stack([
        (prediction(central | {n: central[n] + 1e-4})[0] - prediction(central | {n: central[n] - 1e-4})[0]) / 2e-4
        for n in names
    ])  # fmt: skip
    inner = np.linalg.inv(np.diag(weights) + Q_all[:INNER, :INNER])
    extra = np.diag(A @ inner @ A.T) + np.diag(np.linalg.inv(Q_all[INNER:, INNER:]))
    S = idata["fit"]["covariance_matrix"].values
    # central differences of fits whose modes are found to 1e-8
    np.testing.assert_allclose(found["se"] ** 2, np.einsum("ij,jk,ik->i", J, S, J) + extra, rtol=1e-4)
    assert np.all(np.diag(S)[1:] < 10)  # so that the dispersions count


def test_relatives_without_records():
    """Animals added to the relationship matrix: BLUP by Henderson's equations of all of them."""
    B = RNG.normal(size=(12, 30))
    A = B @ B.T / 30 + 0.3 * np.eye(12)
    y = RNG.normal(size=9)

    def build(size, records):
        with pm.Model(coords={"animal": np.arange(size)}) as model:
            mu, s_a, s = pm.Normal("mu", 0, 5), pm.HalfNormal("s_a", 1), pm.HalfNormal("s", 1)
            a = Relationship("a", A=A[:size, :size], sigma=s_a, dims="animal")
            pm.Normal("y", mu + a[np.arange(size)], s, observed=records)
        return model

    model = build(9, y)
    idata = hlik.fit(model, fixed={"s_a": 0.8, "s": 0.7}, progressbar=False, draws=0)
    found = hlik.predict(model, idata, build(12, np.zeros(12)))
    T = np.column_stack([np.ones(9), np.eye(9, 12)])
    C = np.linalg.inv(T.T @ T / 0.49 + np.pad(np.linalg.inv(A) / 0.64, ((1, 0), (1, 0))))
    rows = np.column_stack([np.ones(12), np.eye(12)])
    np.testing.assert_allclose(found["estimate"], rows @ C @ T.T @ y / 0.49, rtol=1e-8)
    np.testing.assert_allclose(found["se"] ** 2, np.diag(rows @ C @ rows.T), rtol=1e-8)


def test_kriging():
    """A covariance function at new places, of places in a container: the conditional normal distribution."""
    place = np.sort(RNG.uniform(0, 4, 15))
    y = np.sin(place) + RNG.normal(0, 0.1, 15)
    new = np.array([0.5, 2.2, 3.9])
    with pm.Model() as model:
        t = pm.Data("t", place)
        mu, s_f, s = pm.Normal("mu", 0, 5), pm.HalfNormal("s_f", 1), pm.HalfNormal("s", 1)
        K = s_f**2 * pm.math.exp(-0.5 * (t[:, None] - t[None, :]) ** 2) + 1e-6 * pm.math.eq(t[:, None], t[None, :])
        f = pm.MvNormal("f", mu=pm.math.zeros_like(t), cov=K, shape=t.shape)
        pm.Normal("y", mu + f, s, observed=y)
    idata = hlik.fit(model, fixed={"s_f": 1.2, "s": 0.2}, progressbar=False, draws=0)
    every = np.r_[place, new]
    found = hlik.predict(model, idata, {"t": every})[15:]
    K = 1.44 * np.exp(-0.5 * (every[:, None] - every) ** 2) + 1e-6 * np.eye(18)
    V = K[:15, :15] + 0.04 * np.eye(15)
    one, inverse = np.ones(15), np.linalg.inv(V)
    var_mu = 1 / (one @ inverse @ one)
    mean = var_mu * (one @ inverse @ y)
    k = K[15:, :15]
    np.testing.assert_allclose(found["estimate"], mean + k @ inverse @ (y - mean), rtol=1e-6)
    left = 1 - k @ inverse @ one
    variance = np.diag(K)[15:] - np.einsum("ij,jk,ik->i", k, inverse, k) + left**2 * var_mu
    np.testing.assert_allclose(found["se"] ** 2, variance, rtol=1e-5)  # the nugget of 1e-6 leaves six digits of K^-1


def test_fields_that_do_not_say_where_new_levels_lie():
    model = areas(counts=COUNTS)
    idata = hlik.fit(model, fixed={"rho": 0.15}, progressbar=False, draws=0)
    with pytest.raises(hlik.ModelError, match=r"'v' .* has 20 levels along 'area'"):
        hlik.predict(model, idata, {"at": [0, 20]}, coords={"area": np.arange(21)})
    with pm.Model(coords={"area": np.arange(5, 25)}) as fewer:
        beta, tau, rho = pm.Normal("beta", 0, 5), pm.HalfNormal("tau", 1), pm.Uniform("rho", -0.28, 0.28)
        v = CAR("v", D=D[5:, 5:], tau=tau, rho=rho, dims="area")
        pm.Poisson("y", pm.math.exp(beta + v), observed=np.zeros(20))
    with pytest.raises(hlik.ModelError, match="15 of 20 are among the levels"):
        hlik.predict(model, idata, fewer)
    with pm.Model() as other, pytest.raises(hlik.ModelError, match="has no 'tau', 'v', 'rho'"):
        pm.Poisson("y", pm.math.exp(pm.Normal("beta", 0, 5)), observed=[0.0])
        hlik.predict(model, idata, other)


# --- densities without closed form -----------------------------------------------------------------------------------

GROUP = np.repeat(np.arange(12), 6)
X_G = np.random.default_rng(8).normal(size=72)


def skewed(kind):
    rng = np.random.default_rng(9)
    y = rng.poisson(np.exp(0.8 + 0.3 * X_G + (rng.gamma(2, 0.4, 12) - 0.8)[GROUP]))
    with pm.Model(coords={"g": np.arange(12)}) as model:
        beta, s = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("s", 1)
        if kind == "skew-normal":
            u = pm.SkewNormal("u", mu=0, sigma=s, alpha=3, dims="g")
        elif kind == "mixture":
            parts = [pm.Normal.dist(-s, 0.5 * s), pm.Normal.dist(s, 0.7 * s)]
            u = pm.Mixture("u", w=[0.6, 0.4], comp_dists=parts, dims="g")
        elif kind == "t":
            u = pm.StudentT("u", nu=5, mu=0, sigma=s, dims="g")
        else:  # a normal one that hlik does not know for such
            u = pm.CustomDist(
                "u", s, logp=lambda v, s: -0.5 * (v / s) ** 2 - pm.math.log(s) - 0.9189385332046727, dims="g"
            )
        eta = beta[0] + beta[1] * pm.Data("x", X_G) + u[pm.Data("group", GROUP)]
        pm.Poisson("y", pm.math.exp(eta), observed=y)
    return model


def moments(kind, s):
    """Mean and variance of one effect by formulas."""
    if kind == "skew-normal":
        delta = 3 / np.sqrt(10)
        return s * delta * np.sqrt(2 / np.pi), s**2 * (1 - 2 * delta**2 / np.pi)
    if kind == "mixture":
        mean = (-0.6 + 0.4) * s
        return mean, 0.6 * (0.25 + 1) * s**2 + 0.4 * (0.49 + 1) * s**2 - mean**2
    return 0.0, s**2 * (5 / 3 if kind == "t" else 1)


@pytest.mark.parametrize("kind", ["skew-normal", "mixture", "t", "custom"])
def test_new_levels_of_densities_without_closed_form(kind):
    model = skewed(kind)
    idata = fit(model, "laplace")
    beta, s = idata.estimates["beta"].values, float(idata.estimates["s"])
    mean, variance = moments(kind, s)
    new = {"x": [0.5, -1.0, 0.5], "group": [0, 1, 2]}
    coords = {"g": [3, 99, 100]}
    found = hlik.predict(model, idata, new, coords=coords)
    T = np.column_stack([np.ones(3), new["x"]])
    v = np.r_[idata.estimates["u"].values[3], mean, mean]
    # t: sums of squares to a density of 1e-18 in each tail, the trapezoidal rule in steps of 0.1
    np.testing.assert_allclose(found["estimate"], T @ beta + v, rtol=1e-7, atol=1e-8)
    S = idata["fit"]["covariance_matrix"].values[:2, :2]
    plain = np.einsum("ij,jk,ik->i", T, S, T)
    np.testing.assert_allclose(found["se"][1:] ** 2, (plain + variance)[1:], rtol=1e-6)
    known = hlik.predict(model, idata, {"x": [0.5], "group": [3]})
    np.testing.assert_allclose(found.iloc[0], known.iloc[0], rtol=1e-9)
    anew = hlik.predict(model, idata, new, coords=coords, random="new")
    np.testing.assert_allclose(anew["se"] ** 2, plain + variance, rtol=1e-6)
    zero = hlik.predict(model, idata, new, coords=coords, random="zero")
    np.testing.assert_allclose(zero["estimate"], T @ beta, rtol=1e-10)


@pytest.mark.parametrize("kind", ["skew-normal", "mixture", "custom"])
def test_marginal_means_of_densities_without_closed_form(kind):
    """E exp(u) by moment generating functions."""
    model = skewed(kind)
    idata = fit(model, "laplace")
    beta, s = idata.estimates["beta"].values, float(idata.estimates["s"])
    if kind == "skew-normal":
        factor = 2 * np.exp(s**2 / 2) * stats.norm.cdf(s * 3 / np.sqrt(10))
    elif kind == "mixture":
        factor = 0.6 * np.exp(-s + (0.5 * s) ** 2 / 2) + 0.4 * np.exp(s + (0.7 * s) ** 2 / 2)
    else:
        factor = np.exp(s**2 / 2)
    found = hlik.predict(model, idata, random="marginal", kind="response")
    np.testing.assert_allclose(found["estimate"], np.exp(beta[0] + beta[1] * X_G) * factor, rtol=1e-8)


def test_joint_and_endless_densities_are_refused():
    y = np.random.default_rng(2).normal(size=24)
    with pm.Model() as model:
        mu, s = pm.Normal("mu", 0, 5), pm.HalfNormal("s", 1)
        u = pm.StudentT("u", nu=1.5, mu=0, sigma=s, shape=12)
        pm.Normal("y", mu + u[np.repeat(np.arange(12), 2)], 0.3, observed=y)
    idata = fit(model, "laplace")
    with pytest.raises(hlik.ModelError, match=r"'u' .* has no variance"):
        hlik.predict(model, idata, random="new")
    assert np.isfinite(hlik.predict(model, idata, random="new", se=False)["estimate"]).all()


def test_double_models_by_eql():
    """Random effects in the mean and in the dispersion: dense algebra of both predictors' observed information."""
    data = hglm_tutorial.load()
    model = hglm_tutorial.build(data)
    idata = fit(model)
    e, group, y = idata.estimates, data["ID"].to_numpy() - 1, data["double"].to_numpy()
    M = np.column_stack([np.ones(500), np.eye(10)[group]])
    mean = float(e["Intercept"]) + e["1|ID"].values[group]
    weight = np.exp(-(float(e["dispersion_Intercept"]) + e["dispersion_1|ID"].values[group]))
    r = y - mean
    H = np.block([
        [M.T @ (weight[:, None] * M), M.T @ ((weight * r)[:, None] * M)],
        [M.T @ ((weight * r)[:, None] * M), M.T @ ((0.5 * weight * r**2)[:, None] * M)],
    ])  # fmt: skip
    variances = [float(e[name]) ** 2 for name in ("1|ID_sigma", "dispersion_1|ID_sigma")]
    H += np.diag(np.r_[0, np.full(10, 1 / variances[0]), 0, np.full(10, 1 / variances[1])])
    effects, fixed = np.r_[1:11, 12:22], [0, 11]
    C = np.linalg.inv(H[np.ix_(effects, effects)])
    names = list(idata["fit"]["parameter"].values)
    place = [names.index(name) for name in ("Intercept", "dispersion_Intercept")]
    S = idata["fit"]["covariance_matrix"].values[np.ix_(place, place)]
    Z = np.hstack([np.eye(10)[group], np.zeros((500, 10))])
    direct = np.column_stack([np.ones(500), np.zeros(500)]) - Z @ C @ H[np.ix_(effects, fixed)]
    expected = np.einsum("ij,jk,ik->i", direct, S, direct) + np.einsum("ij,jk,ik->i", Z, C, Z)
    found = hlik.predict(model, idata)
    np.testing.assert_allclose(found["estimate"], mean, rtol=1e-9)
    np.testing.assert_allclose(found["se"] ** 2, expected, rtol=1e-8)
    new = hlik.predict(model, idata, random="new")
    np.testing.assert_allclose(new["se"] ** 2, S[0, 0] + variances[0], rtol=1e-8)
