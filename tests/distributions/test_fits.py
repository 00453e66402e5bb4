"""Fits of CAR, SAR, GMRF and Relationship against dense algebra and published values."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import scipy.sparse as sp
from scipy import optimize

import hlik
from hlik.distributions import CAR, GMRF, SAR, Relationship, rho_range
from hlik.pedigree import Pedigree

SIDE = 7
N = SIDE**2
PATH = sp.diags_array([np.ones(SIDE - 1)] * 2, offsets=[-1, 1])
D = sp.csc_array(sp.kronsum(PATH, PATH))  # Columbus has 49 neighbourhoods
LOW, HIGH = rho_range(D)
EYE = np.eye(N)
RNG = np.random.default_rng(8)
X = np.column_stack([np.ones(N), RNG.normal(size=N), RNG.normal(size=N)])
BETA = np.array([2.0, 1.0, -0.5])


def car(tau, rho):
    return tau * np.linalg.inv(EYE - rho * D.toarray())


def sar(tau, rho):
    root = np.linalg.inv(EYE - rho * D.toarray())
    return tau * root @ root.T


def gaussian_log_likelihood(V, y, X, reml):
    n, p = X.shape
    inverse = np.linalg.inv(V)
    A = X.T @ inverse @ X
    beta = np.linalg.solve(A, X.T @ inverse @ y)
    r = y - X @ beta
    value = -0.5 * (np.linalg.slogdet(V)[1] + r @ inverse @ r + n * np.log(2 * np.pi))
    if reml:
        value -= 0.5 * (np.linalg.slogdet(A)[1] - p * np.log(2 * np.pi))
    return value, beta, inverse


def differences(function, x, step):
    """Gradient by central differences of order four."""
    found = np.empty(x.size)
    for k in range(x.size):
        e = np.zeros(x.size)
        e[k] = step
        f = [function(x + m * e) for m in (-2, -1, 1, 2)]
        found[k] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
    return found


def polished(function, x):
    """The maximum near x, where the differenced gradient is zero."""
    found = optimize.root(lambda t: differences(function, t, 1e-3), x, method="hybr", tol=1e-12)
    assert np.max(np.abs(found.fun)) < 1e-7
    return found.x


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize(("distribution", "covariance"), [(CAR, car), (SAR, sar)])
def test_gaussian_field_and_noise(distribution, covariance, reml):
    rng = np.random.default_rng(5)
    area = np.tile(np.arange(N), 3)
    XX = X[area]
    field = X @ BETA + rng.multivariate_normal(np.zeros(N), covariance(2.0, 0.9 * HIGH))
    y = field[area] + rng.normal(0, 0.6, 3 * N)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=3)
        tau, sigma = pm.HalfNormal("tau", 1), pm.HalfNormal("sigma", 1)
        rho = pm.Uniform("rho", LOW, HIGH)
        v = distribution("v", D=D, rho=rho, tau=tau)
        pm.Normal("y", XX @ beta + v[area], sigma, observed=y)
    idata = hlik.fit(model, hlik.Laplace(reml=reml), progressbar=False, draws=0)

    def value(t):
        V = covariance(np.exp(t[0]), t[1])[np.ix_(area, area)] + np.exp(2 * t[2]) * np.eye(3 * N)
        return gaussian_log_likelihood(V, y, XX, reml)[0]

    names = ("tau", "rho", "sigma")
    estimate = [float(idata.estimates[name]) for name in names]
    found = polished(value, np.array([np.log(estimate[0]), estimate[1], np.log(estimate[2])]))
    dense = [np.exp(found[0]), found[1], np.exp(found[2])]
    np.testing.assert_allclose(estimate, dense, rtol=2e-5)  # Laplace's stopping rule: 1e-5 standard errors
    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), value(found), rtol=1e-10)
    S, noise = covariance(*estimate[:2]), estimate[2] ** 2
    _, b, inverse = gaussian_log_likelihood(S[np.ix_(area, area)] + noise * np.eye(3 * N), y, XX, reml)
    np.testing.assert_allclose(idata.estimates["beta"], b, rtol=1e-6)
    np.testing.assert_allclose(idata.estimates["v"], S[:, area] @ inverse @ (y - XX @ b), atol=1e-6)
    P = inverse - inverse @ XX @ np.linalg.solve(XX.T @ inverse @ XX, XX.T @ inverse)
    if reml:  # Laplace's errors count those of the dispersions too, EQL's do not
        error = np.diag(S - S[:, area] @ P @ S[area])
        assert np.all(idata.standard_errors["v"].values ** 2 > error)
        eql = hlik.fit(model, progressbar=False, draws=0)
        np.testing.assert_allclose([float(eql.estimates[name]) for name in names], dense, rtol=1e-6)
        np.testing.assert_allclose(eql.standard_errors["v"] ** 2, error, rtol=3e-5)
        np.testing.assert_allclose(eql.estimates["beta"], b, rtol=1e-5)


@pytest.mark.parametrize(("distribution", "covariance"), [(CAR, car), (SAR, sar)])
def test_field_and_independent_effects(distribution, covariance):
    """Poisson counts with a spatial and an independent effect: Laplace's approximation by dense algebra."""
    rng = np.random.default_rng(3)
    eta = 2 + rng.multivariate_normal(np.zeros(N), covariance(0.5, 0.9 * HIGH)) + rng.normal(0, 0.7, N)
    y = rng.poisson(np.exp(eta))
    with pm.Model() as model:
        mean = pm.Normal("mean", 0, 5)
        tau, sigma, rho = pm.HalfNormal("tau", 1), pm.HalfNormal("sigma", 1), pm.Uniform("rho", LOW, HIGH)
        v = distribution("v", D=D, rho=rho, tau=tau)
        w = pm.Normal("w", 0, sigma, shape=N)
        pm.Poisson("y", pm.math.exp(mean + v + w), observed=y)
    idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    estimate = {name: float(idata.estimates[name]) for name in ("mean", "tau", "rho", "sigma")}

    def laplace(mean, tau, rho, sigma):
        Q = np.linalg.inv(covariance(tau, rho) + sigma**2 * EYE)
        a = np.zeros(N)
        for _ in range(50):
            mu = np.exp(mean + a)
            step = np.linalg.solve(np.diag(mu) + Q, y - mu - Q @ a)
            a = a + step
            if np.max(np.abs(step)) < 1e-13:
                break
        mu = np.exp(mean + a)
        from scipy.special import gammaln

        h = np.sum(y * (mean + a) - mu - gammaln(y + 1)) - 0.5 * a @ Q @ a + 0.5 * np.linalg.slogdet(Q)[1]
        return h - 0.5 * np.linalg.slogdet(np.diag(mu) + Q)[1]

    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), laplace(**estimate), rtol=1e-10)

    def value(t):
        return laplace(t[0], np.exp(t[1]), t[2], np.exp(t[3]))

    start = np.array([estimate["mean"], np.log(estimate["tau"]), estimate["rho"], np.log(estimate["sigma"])])
    found = polished(value, start)
    np.testing.assert_allclose(start, found, atol=2e-5)


def test_a_field_of_two_matrices():
    """Gaussian data on a GMRF with ``Q = c_0 I + c_1 L``, both coefficients estimated."""
    L = sp.csc_array(sp.diags_array(np.asarray(D.sum(axis=0)).ravel()) - D)
    rng = np.random.default_rng(4)
    covariance = lambda a, b: np.linalg.inv(a * EYE + b * L.toarray())  # noqa: E731
    y = 1 + rng.multivariate_normal(np.zeros(N), covariance(0.2, 1.0)) + rng.normal(0, 0.3, N)
    with pm.Model() as model:
        c = pm.HalfNormal("c", 1, shape=2)
        v = GMRF("v", [sp.eye_array(N), L], [c[0], c[1]])
        pm.Normal("y", pm.Normal("mean", 0, 5) + v, 0.3, observed=y)
    idata = hlik.fit(model, hlik.Laplace(reml=True), progressbar=False, draws=0)

    def value(t):
        return gaussian_log_likelihood(covariance(*np.exp(t)) + 0.09 * EYE, y, np.ones((N, 1)), True)[0]

    estimate = np.log(idata.estimates["c"].values)
    np.testing.assert_allclose(estimate, polished(value, estimate), atol=2e-5)
    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), value(estimate), rtol=1e-10)


def family(rng, n, founders=12):
    sire, dam = np.full((2, n), -1)
    for i in range(founders, n):
        sire[i], dam[i] = rng.integers(max(0, i - 30), i, 2)
    return Pedigree(np.arange(n), sire, dam)


@pytest.mark.parametrize("given", ["pedigree", "A", "precision", "frame"])
def test_animal_model(given):
    rng = np.random.default_rng(5)
    n = 90
    pedigree = family(rng, n)
    assert pedigree.inbreeding.max() > 0.1
    A = pedigree.relationship()
    year = np.arange(n) % 3
    record = np.flatnonzero(rng.random(n) < 0.8)  # some animals have no record
    y = (year + rng.multivariate_normal(np.zeros(n), 2 * A) + rng.normal(size=n))[record]
    frame = pd.DataFrame({"id": np.arange(1, n + 1), "sire": pedigree.sire + 1, "dam": pedigree.dam + 1})
    argument = {"pedigree": pedigree, "A": A, "precision": pedigree.precision, "frame": frame}[given]
    name = "pedigree" if given == "frame" else given
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=3)
        sigma_a, sigma = pm.HalfNormal("sigma_a", 1), pm.HalfNormal("sigma", 1)
        a = Relationship("a", sigma=sigma_a, **{name: argument})
        pm.Deterministic("h2", sigma_a**2 / (sigma_a**2 + sigma**2))
        pm.Normal("y", beta[year[record]] + a[record], sigma, observed=y)
    idata = hlik.fit(model, hlik.Laplace(reml=True), progressbar=False, draws=0)
    design, Z = np.eye(3)[year[record]], np.eye(n)[record]

    def value(t):
        V = np.exp(2 * t[0]) * Z @ A @ Z.T + np.exp(2 * t[1]) * np.eye(len(y))
        return gaussian_log_likelihood(V, y, design, True)[0]

    estimate = np.log([float(idata.estimates["sigma_a"]), float(idata.estimates["sigma"])])
    np.testing.assert_allclose(estimate, polished(value, estimate), atol=2e-5)
    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), value(estimate), rtol=1e-11)
    va, ve = np.exp(2 * estimate)
    _, b, inverse = gaussian_log_likelihood(va * Z @ A @ Z.T + ve * np.eye(len(y)), y, design, True)
    np.testing.assert_allclose(idata.estimates["a"], va * A @ Z.T @ inverse @ (y - design @ b), atol=1e-8)
    np.testing.assert_allclose(float(idata.estimates["h2"]), va / (va + ve), rtol=1e-10)
    assert 0.01 < float(idata.standard_errors["h2"]) < 0.5


def lip_cancer(shared, distribution=CAR):
    data = pd.read_csv(shared / "data" / "lipcancer.csv")
    row, column, value = pd.read_csv(shared / "data" / "lipcancer_nbr_triplets.csv").to_numpy().T
    W = sp.csc_array((value.astype(float), (row.astype(int) - 1, column.astype(int) - 1)), shape=(56, 56))
    design = np.column_stack([np.ones(56), data["Paff"]])
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        tau, rho = pm.HalfNormal("tau", 1), pm.Uniform("rho", *rho_range(W))
        v = distribution("v", D=W, rho=rho, tau=tau)
        pm.Poisson("y", pm.math.exp(design @ beta + v + np.log(data["E"].to_numpy())), observed=data["O"].to_numpy())
    return model


def test_lip_cancer_by_laplace(shared, reference):
    known = reference("truth/lipcancer_CAR")["lipcancer_CAR"]
    idata = hlik.fit(lip_cancer(shared), "laplace", progressbar=False, draws=0)
    found = [*idata.estimates["beta"].values, float(idata.estimates["tau"]), float(idata.estimates["rho"])]
    np.testing.assert_allclose(found, known["laplace"], rtol=3e-6)  # where the reference's optimiser stopped
    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), known["laplace_loglik"], atol=1e-8)


def test_lip_cancer_by_eql(shared, reference):
    known = reference("seeds/tut_lipcancer_CAR_EQL")["got_tight_conv"]
    idata = hlik.fit(lip_cancer(shared), progressbar=False, draws=0)
    np.testing.assert_allclose(idata.estimates["beta"], list(known["fixef"].values()), rtol=1e-6)
    np.testing.assert_allclose(idata.standard_errors["beta"], known["se_fixef"], rtol=1e-4)  # hglm's lag behind
    for name in ("tau", "rho"):
        np.testing.assert_allclose(float(idata.estimates[name]), known[f"CAR_{name}"], rtol=5e-6)  # hglm stops
    np.testing.assert_allclose(idata.estimates["v"], known["ranef"], atol=2e-6)
    assert idata.standard_errors["v"].shape == (56,)


@pytest.mark.parametrize("estimator", ["eql", "laplace"])
def test_rho_close_to_the_end_of_its_range(estimator):
    """A field that is almost the first eigenvector of D: rho within 1e-5 of its limit, and a maximum still."""
    first = np.linalg.eigh(D.toarray())[1][:, -1]
    area = np.repeat(np.arange(N), 3)
    y = 30 * first[area] + np.random.default_rng(0).normal(0, 0.3, 3 * N)
    with pm.Model() as model:
        tau, sigma, rho = pm.HalfNormal("tau", 1), pm.HalfNormal("sigma", 1), pm.Uniform("rho", LOW, HIGH)
        v = CAR("v", D=D, rho=rho, tau=tau)
        pm.Normal("y", v[area], sigma, observed=y)
    idata = hlik.fit(model, estimator, progressbar=False, draws=0)
    estimate = np.array([float(idata.estimates[name]) for name in ("tau", "rho", "sigma")])
    assert 0 < HIGH - estimate[1] < 1e-5

    def value(t):  # log tau, the logarithm of what is left of the range, log sigma
        S = car(np.exp(t[0]), HIGH - np.exp(t[1]))[np.ix_(area, area)]
        V = S + np.exp(2 * t[2]) * np.eye(3 * N)
        return -0.5 * (np.linalg.slogdet(V)[1] + y @ np.linalg.solve(V, y) + 3 * N * np.log(2 * np.pi))

    start = np.log([estimate[0], HIGH - estimate[1], estimate[2]])
    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), value(start), rtol=1e-8)
    assert np.max(np.abs(differences(value, start, 1e-3))) < 1e-3  # the scores, which are of the size of 1


@pytest.mark.parametrize("distribution", [CAR, SAR])
def test_rho_given_out_of_its_range(distribution):
    y = np.random.default_rng(0).normal(size=N)
    with pm.Model() as model:
        tau, rho = pm.HalfNormal("tau", 1), pm.Normal("rho", 0, 0.1)
        v = distribution("v", D=D, rho=rho, tau=tau)
        pm.Normal("y", pm.Normal("mean", 0, 5) + v, 1.0, observed=y)
    with pytest.raises(hlik.ModelError, match=r"'v'.*positive definite"):
        hlik.fit(model, "laplace", fixed={"rho": 2 * HIGH}, progressbar=False)
    with pytest.raises(hlik.ModelError, match=r"'v'.*positive definite"):
        hlik.fit(model, "laplace", start={"rho": 2 * HIGH}, progressbar=False)
