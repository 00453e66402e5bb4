"""Random effects with joint normal densities by EQL and Laplace: dense algebra, lme4, hglm, differences."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp
from scipy import optimize

import hlik
from hlik.adjusted_profile import Profile
from hlik.distributions import CAR, SAR, rho_range
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from models import sleepstudy

Q, N = 8, 40
rng = np.random.default_rng(11)
level = np.concatenate([np.arange(Q), rng.integers(0, Q, N - Q)])
x = rng.normal(size=N)
place = np.linspace(0.0, 1.0, Q)
KERNEL = np.exp(-(((place[:, None] - place) / 0.3) ** 2))
W = np.diag(np.ones(Q - 1, int), 1) + np.diag(np.ones(Q - 1, int), -1)
W[0, 4] = W[4, 0] = 1
field = np.cumsum(rng.normal(size=Q))
y = 1.0 + 0.5 * x + field[level] + 0.5 * rng.normal(size=N)
counts = rng.poisson(np.exp(0.3 + 0.3 * x + 0.4 * field[level]))
SETTINGS = {"progressbar": False, "draws": 10}


def sd(name="s"):
    return pm.HalfNormal(name)


KINDS = {
    "kernel": lambda: pm.MvNormal("u", np.zeros(Q), cov=sd() ** 2 * KERNEL + 0.1 * np.eye(Q)),
    "CAR": lambda: CAR("u", D=W, rho=pm.Uniform("rho", *rho_range(W)), tau=sd()),
    "SAR": lambda: SAR("u", D=W, rho=pm.Uniform("rho", *rho_range(W)), tau=sd()),
    "pm.CAR": lambda: pm.CAR("u", np.zeros(Q), W, alpha=pm.Uniform("alpha", -1, 1), tau=sd()),
    "ICAR": lambda: pm.ICAR("u", W, sigma=sd()),
    "scaled ICAR": lambda: sd() * pm.ICAR("u", W),
    "walk": lambda: pm.GaussianRandomWalk("u", sigma=sd(), init_dist=pm.Normal.dist(0, 2), shape=Q),
    "AR": lambda: pm.AR("u", rho=pm.Uniform("rho", -1, 1), sigma=sd(), init_dist=pm.Normal.dist(0, 2), shape=Q),
    "CAR and independent": lambda: CAR("u", D=W, rho=0.2, tau=sd()) + pm.Normal("w", 0, sd("sw"), shape=Q),
    "multivariate t": lambda: pm.MvStudentT("u", nu=2 + pm.HalfNormal("nu"), mu=np.zeros(Q), scale=sd() * np.eye(Q)),
    "small t": lambda: pm.MvStudentT("u", nu=5, mu=np.zeros(2), scale=sd() * (np.eye(2) + 0.3), shape=(Q, 2))[:, 0],
}  # fmt: skip


def build(term, family="normal"):
    with pm.Model() as model:
        b = pm.Normal("b", shape=2)
        eta = b[0] + b[1] * x + term()[level]
        if family == "normal":
            pm.Normal("y", eta, sd("sigma"), observed=y)
        else:
            pm.Poisson("y", pt.exp(eta), observed=counts)
    return model


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("family", ["normal", "poisson"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, family, reml):
    read = read_model(build(KINDS[kind], family))
    likelihood = HLikelihood(read)
    profile = Profile(likelihood, reml)
    point = np.concatenate([[0.4, 0.2], 0.3 * np.random.default_rng(1).normal(size=read.n_theta)])
    psi = point[2:] if reml else point
    mode = profile.mode(psi, point[:2], likelihood.start_v())

    def value(at):
        return profile.mode(at, mode.point.beta, mode.point.v).value

    expected = []
    for move in 1e-3 * np.eye(psi.size):
        near, far = value(psi + move) - value(psi - move), value(psi + 2 * move) - value(psi - 2 * move)
        expected.append((8 * near - far) / 12e-3)
    np.testing.assert_allclose(profile.gradient(mode), expected, rtol=1e-7, atol=1e-8)


# ------------------------------------------------------------ Gaussian models


def covariances(kind):
    """The covariance matrix of u as a function of unconstrained parameters, written here, and how many there are."""
    D = W.astype(float)
    low, high = rho_range(D)

    def rho(t):
        return low + (high - low) / (1 + np.exp(-t))

    return {
        "kernel": (1, lambda t: np.exp(2 * t[0]) * KERNEL + 0.1 * np.eye(Q)),
        "CAR": (2, lambda t: np.exp(t[0]) * np.linalg.inv(np.eye(Q) - rho(t[1]) * D)),
        "SAR": (2, lambda t: np.exp(t[0]) * np.linalg.inv((np.eye(Q) - rho(t[1]) * D) @ (np.eye(Q) - rho(t[1]) * D))),
    }[kind]  # fmt: skip


def dense_maximum(kind, reml):
    """Maximum of the (restricted) likelihood by dense algebra and Nelder-Mead's method, polished."""
    count, covariance = covariances(kind)
    X, Z = np.column_stack([np.ones(N), x]), np.eye(Q)[level]

    def negative(t):
        V = Z @ covariance(t) @ Z.T + np.exp(2 * t[count]) * np.eye(N)
        inverse = np.linalg.inv(V)
        information = X.T @ inverse @ X
        beta = np.linalg.solve(information, X.T @ inverse @ y)
        r = y - X @ beta
        value = np.linalg.slogdet(V)[1] + r @ inverse @ r + N * np.log(2 * np.pi)
        if reml:
            value += np.linalg.slogdet(information)[1] - 2 * np.log(2 * np.pi)
        return 0.5 * value

    found = optimize.minimize(
        negative, np.zeros(count + 1), method="Nelder-Mead", options={"maxiter": 8000, "xatol": 1e-9, "fatol": 1e-13}
    )
    return -optimize.minimize(negative, found.x, method="BFGS", options={"gtol": 1e-9}).fun


@pytest.mark.parametrize("kind", ["kernel", "CAR", "SAR"])
def test_gaussian_models_are_ml_and_reml(kind):
    model = build(KINDS[kind])
    for estimator, reml in ((hlik.Laplace(), False), (hlik.Laplace(reml=True), True), (hlik.EQL(), True)):
        found = hlik.fit(model, estimator, **SETTINGS)
        assert found.fit.attrs["status"] == "converged"
        likelihood = found.fit["p_bv_h" if reml else "p_v_h"]
        assert float(likelihood) == pytest.approx(dense_maximum(kind, reml), abs=1e-8)


def test_eql_of_poisson_responses_solves_its_equations():
    """U by dense algebra at the estimate of a CAR and independent effects of another factor together."""
    draws = np.random.default_rng(5)
    n, other = 160, np.arange(160) % 6
    area = draws.integers(0, Q, n)
    response = draws.poisson(np.exp(0.3 + 0.4 * field[area] + 0.7 * draws.normal(size=6)[other]))
    with pm.Model() as model:
        u = CAR("u", D=W, rho=0.2, tau=sd())
        w = pm.Normal("w", 0, sd("sw"), shape=6)
        pm.Poisson("y", pt.exp(pm.Normal("b") + u[area] + w[other]), observed=response)
    found = hlik.fit(model, hlik.EQL(), **SETTINGS)
    tau, sw = float(found.estimates["s"]), float(found.estimates["sw"])
    assert min(tau, sw) > 0.1
    v = np.concatenate([found.estimates["u"].values, found.estimates["w"].values])
    T = np.hstack([np.ones((n, 1)), np.eye(Q)[area], np.eye(6)[other]])
    weight = np.exp(T @ np.concatenate([[float(found.estimates["b"])], v]))
    prior = np.zeros((Q + 6, Q + 6))
    prior[:Q, :Q], prior[Q:, Q:] = (np.eye(Q) - 0.2 * W) / tau, np.eye(6) / sw**2
    H = T.T @ (weight[:, None] * T)
    H[1:, 1:] += prior
    np.testing.assert_allclose(T.T @ (response - weight) - np.concatenate([[0], prior @ v]), 0, atol=1e-6)
    second = np.linalg.inv(H)[1:, 1:] + np.outer(v, v)
    assert np.sum(second[:Q, :Q] * prior[:Q, :Q]) == pytest.approx(Q, abs=1e-5)  # U for log tau
    assert np.sum(second[Q:, Q:] * prior[Q:, Q:]) == pytest.approx(6, abs=1e-5)  # U for log sw


def test_a_variance_at_zero():
    flat = np.tile([0.0, 1.0], N // 2)
    with pm.Model() as model:
        u = CAR("u", D=W, rho=0.2, tau=sd())
        pm.Normal("y", pm.Normal("b") + u[np.arange(N) // 2 % Q], 1.0, observed=flat)
    for estimator in (hlik.EQL(), hlik.Laplace()):
        with pytest.warns(hlik.errors.ConvergenceWarning, match="estimated at zero"):
            found = hlik.fit(model, estimator, **SETTINGS)
        assert found.fit.attrs["status"] == "boundary: sd of 'u' estimated at zero (s)"
        assert np.isnan(float(found.standard_errors["s"]))


# ------------------------------------------------------------ sleepstudy: lme4


def sleep_model(kind):
    data = sleepstudy.load()
    subject, drivers = pd.factorize(data["Subject"])
    days = data["Days"].to_numpy(float)
    with pm.Model(coords={"driver": drivers, "effect": ["intercept", "slope"]}) as model:
        b, sigma = pm.Normal("b", 0, 100, shape=2), pm.HalfNormal("sigma", 10)
        sd_dist = pm.Exponential.dist(1.0, shape=2)
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=sd_dist, compute_corr=True)
        if kind == "centred":
            u = pm.MvNormal("u", 0, chol=chol, dims=("driver", "effect"))
        else:
            u = pm.Deterministic("u", pm.Normal("z", dims=("driver", "effect")) @ chol.T)
        pm.Normal("y", b[0] + b[1] * days + u[subject, 0] + u[subject, 1] * days, sigma, observed=data["Reaction"])
    return model


LME4 = {"REML": (-871.8141, 24.7405, 5.9221, 0.0656), "ML": (-875.9697, 23.7806, 5.7168, 0.0813)}
"""Bates et al. (2015): log-likelihood, standard deviations of intercepts and slopes, their correlation."""


@pytest.mark.parametrize("kind", ["centred", "non-centred"])
def test_sleepstudy_is_lme4s(kind):
    model = sleep_model(kind)
    fits = {
        "EQL": ("REML", hlik.fit(model, hlik.EQL(), **SETTINGS)),
        "Laplace REML": ("REML", hlik.fit(model, hlik.Laplace(reml=True), **SETTINGS)),
        "Laplace": ("ML", hlik.fit(model, hlik.Laplace(), **SETTINGS)),
    }
    for expected, found in fits.values():
        likelihood, intercept, slope, correlation = LME4[expected]
        assert float(found.fit["log_likelihood"]) == pytest.approx(likelihood, abs=1e-4)
        np.testing.assert_allclose(found.estimates["chol_stds"], [intercept, slope], rtol=1e-4)
        assert float(found.estimates["chol_corr"][0, 1]) == pytest.approx(correlation, abs=1e-4)
        assert float(found.standard_errors["chol_corr"][0, 1]) > 0.1


def test_centred_and_non_centred_report_the_same():
    centred, other = (hlik.fit(sleep_model(kind), hlik.Laplace(), **SETTINGS) for kind in ("centred", "non-centred"))
    np.testing.assert_allclose(other.estimates["u"], centred.estimates["u"], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(other.standard_errors["u"], centred.standard_errors["u"], rtol=1e-4)
    packed = centred.estimates["chol"].values
    L = np.array([[packed[0], 0.0], [packed[1], packed[2]]])
    np.testing.assert_allclose(other.estimates["z"].values @ L.T, centred.estimates["u"], rtol=1e-4, atol=1e-3)


# ------------------------------------------------------------ lip cancer in Scotland


@pytest.fixture(scope="module")
def lip_cancer(shared):
    data = pd.read_csv(shared / "data" / "lipcancer.csv")
    borders = pd.read_csv(shared / "data" / "lipcancer_nbr_triplets.csv")
    D = sp.coo_array((borders["value"], (borders["row"] - 1, borders["col"] - 1)), shape=(56, 56)).toarray()
    with pm.Model() as model:
        b, tau, rho = pm.Normal("b", shape=2), sd("tau"), pm.Uniform("rho", *rho_range(D))
        v = CAR("v", D=D, rho=rho, tau=tau)
        eta = b[0] + b[1] * data["Paff"].to_numpy() + v
        pm.Poisson("O", data["E"].to_numpy() * pt.exp(eta), observed=data["O"].to_numpy())
    return model


LIP_CANCER = {
    "EQL": (hlik.EQL(), (0.267417, 0.037707, 0.154133, 0.173996), 2e-6),  # hglm's fixed point, six decimals
    "HL11": (hlik.EQL(correction="HL11"), (0.233713, 0.037703), 5e-6),  # hglm's by its own stopping rule
    "Laplace": (hlik.Laplace(), (0.239479, 0.037854, 0.143914, 0.174046), 2e-6),  # an independent program
}


@pytest.mark.parametrize("name", LIP_CANCER)
def test_lip_cancer(name, lip_cancer):
    estimator, expected, tolerance = LIP_CANCER[name]
    found = hlik.fit(lip_cancer, estimator, **SETTINGS)
    assert found.fit.attrs["status"] == "converged"
    estimates = [*found.estimates["b"].values, float(found.estimates["tau"]), float(found.estimates["rho"])]
    np.testing.assert_allclose(estimates[: len(expected)], expected, atol=tolerance)
    if name == "Laplace":
        assert float(found.fit["log_likelihood"]) == pytest.approx(-161.49068, abs=1e-5)
