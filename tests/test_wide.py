"""More effects than observations: the route through scores against dense algebra and against all columns at once."""

import gzip
import time
import tracemalloc
import warnings

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytensor.sparse as ps
import pytest
import scipy.sparse as sp
from scipy import optimize

import hlik
from hlik.graph.read import read_model
from hlik.wide import WideTerm

N, Q = 60, 300
RNG = np.random.default_rng(0)
Z = RNG.integers(0, 3, (N, Q)).astype(np.int8)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
U = RNG.normal(0, 0.1, Q)
Y = X @ [1.0, 0.5] + Z @ U + RNG.normal(size=N)


def gaussian(matrix, y=Y, X=X, *, centred=True, weight=None):
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=X.shape[1])
        sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
        scale = sigma_u if weight is None else sigma_u * np.sqrt(weight)
        u = pm.Normal("u", 0, scale, shape=Q) if centred else scale * pm.Normal("z", 0, 1, shape=Q)
        g = pm.Deterministic("g", matrix @ u)
        pm.Deterministic("pair", u[:2] + 2 * u[5:7])
        pm.Deterministic("twice", 2 * u)
        pm.Normal("y", X @ beta + g, sigma, observed=y)
    return model


def variances(idata, *names):
    return [float(idata.estimates[name]) ** 2 for name in names]


class Dense:
    """REML and prediction by n x n matrices, the variances where the REML equations hold, next to `start`."""

    def __init__(self, terms, y, X, start):
        self.terms, self.y, self.X = [np.asarray(K, float) for K in terms], y, X
        found = optimize.root(lambda t: self.score(np.exp(t)), np.log(start), method="hybr", tol=1e-13)
        self.variances = np.exp(found.x)
        assert np.max(np.abs(self.score(self.variances))) < 1e-8
        self.V = self.covariance(self.variances)
        self.P, self.beta = self.projector(self.V)

    def covariance(self, variances):
        return sum(v * K for v, K in zip(variances, [*self.terms, np.eye(self.y.size)], strict=True))

    def projector(self, V):
        inverse = np.linalg.inv(V)
        A = self.X.T @ inverse @ self.X
        return inverse - inverse @ self.X @ np.linalg.solve(A, self.X.T @ inverse), np.linalg.solve(
            A, self.X.T @ inverse @ self.y
        )

    def score(self, variances):
        P, _ = self.projector(self.covariance(variances))
        Py = P @ self.y
        every = zip((*self.terms, np.eye(self.y.size)), variances, strict=True)
        return np.array([v * (Py @ K @ Py - np.sum(P * K)) for K, v in every])

    @property
    def log_likelihood(self):
        A = self.X.T @ np.linalg.inv(self.V) @ self.X
        logdets = np.linalg.slogdet(self.V)[1] + np.linalg.slogdet(A)[1]
        n, p = self.X.shape
        return -0.5 * (logdets + self.y @ self.P @ self.y + (n - p) * np.log(2 * np.pi))

    def effects(self, matrix, lam, weight=None):
        """Effects of the columns of a matrix and their prediction-error covariance."""
        right = lam * (np.ones(matrix.shape[1]) if weight is None else weight)[:, None] * matrix.T
        prior = np.diag(np.full(matrix.shape[1], lam) * (1.0 if weight is None else weight))
        return right @ self.P @ self.y, prior - right @ self.P @ right.T


DENSE = Dense([Z.astype(float) @ Z.T], Y, X, [0.015, 0.14])


@pytest.mark.parametrize("estimator", ["eql", hlik.Laplace(reml=True)], ids=["EQL", "Laplace"])
@pytest.mark.parametrize("matrix", [Z, Z.astype(float)], ids=["bytes", "floats"])
@pytest.mark.parametrize("centred", [True, False])
def test_reml_of_a_gaussian_model(estimator, matrix, centred):
    idata = hlik.fit(gaussian(matrix, centred=centred), estimator, progressbar=False, draws=0)
    lam, phi = float(idata.estimates["sigma_u"]) ** 2, float(idata.estimates["sigma"]) ** 2
    # Laplace stops where the likelihood is flat to its tolerance: half the digits of a variance
    tolerance = 1e-8 if estimator == "eql" else 2e-6
    np.testing.assert_allclose([lam, phi], DENSE.variances, rtol=tolerance)
    np.testing.assert_allclose(idata.estimates["beta"], DENSE.beta, rtol=tolerance)
    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), DENSE.log_likelihood, rtol=1e-11)
    u, covariance = DENSE.effects(Z.astype(float), DENSE.variances[0])
    name, scale = ("u", 1.0) if centred else ("z", np.sqrt(lam))
    np.testing.assert_allclose(idata.estimates[name] * scale, u, atol=tolerance)
    np.testing.assert_allclose(idata.diagnostics[f"{name}_leverage"] * lam, np.diag(covariance), atol=tolerance)
    R = np.zeros((2, Q))
    R[[0, 1], [0, 1]], R[[0, 1], [5, 6]] = 1, 2
    moves = theta = np.zeros((Q, 2))
    if estimator != "eql":  # Laplace's errors count those of the dispersions: derivatives of u by their logarithms
        steps = 1e-5 * np.eye(2)
        moves = np.array([(moved(step) - moved(-step)) / 2e-5 for step in steps]).T
        names = [f"{part}_log__" for part in ("sigma_u", "sigma")]
        theta = idata.fit["covariance_matrix"].sel(parameter=names, parameter_2=names).values
        covariance = covariance + moves @ theta @ moves.T
        tolerance = 1e-5 * float(np.max(np.diag(covariance)))
    np.testing.assert_allclose(idata.standard_errors["g"] ** 2, np.diag(Z @ covariance @ Z.T), rtol=1e-5)
    np.testing.assert_allclose(idata.standard_errors["pair"] ** 2, np.diag(R @ covariance @ R.T), atol=10 * tolerance)
    np.testing.assert_allclose(idata.standard_errors["twice"] ** 2, 4 * np.diag(covariance), atol=10 * tolerance)
    if centred:
        np.testing.assert_allclose(idata.standard_errors["u"] ** 2, np.diag(covariance), atol=tolerance)
    elif estimator == "eql":
        np.testing.assert_allclose(idata.standard_errors["z"] ** 2 * lam, np.diag(covariance), atol=tolerance)
    else:  # z = u / sigma_u
        own = moves - np.column_stack([u, np.zeros(Q)])
        variance = np.diag(covariance - moves @ theta @ moves.T + own @ theta @ own.T)
        np.testing.assert_allclose(idata.standard_errors["z"] ** 2 * lam, variance, atol=tolerance)


def moved(step):
    """Effects where the logarithms of the standard deviations are `step` from their estimates."""
    v = DENSE.variances * np.exp(2 * step)
    P, _ = DENSE.projector(DENSE.covariance(v))
    return v[0] * Z.T @ P @ Y


def test_effects_are_those_of_ridge_regression():
    idata = hlik.fit(gaussian(Z), progressbar=False, draws=0)
    ratio = float(idata.estimates["sigma"]) ** 2 / float(idata.estimates["sigma_u"]) ** 2
    T = np.hstack([X, Z])
    penalty = np.diag(np.r_[np.zeros(2), np.full(Q, ratio)])
    solution = np.linalg.solve(T.T @ T + penalty, T.T @ Y)
    np.testing.assert_allclose(idata.estimates["u"], solution[2:], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("estimator", ["eql", "laplace"])
def test_poisson_as_with_all_columns(estimator):
    """The same model read with Z as a sparse matrix keeps all columns."""
    y = np.random.default_rng(1).poisson(np.exp(0.5 + 0.3 * (Y - Y.mean())))

    def model(product):
        with pm.Model() as found:
            mean, sigma_u = pm.Normal("mean", 0, 5), pm.HalfNormal("sigma_u", 1)
            u = pm.Normal("u", 0, sigma_u, shape=Q)
            pm.Poisson("y", pm.math.exp(mean + product(u)), observed=y)
        return found

    models = [
        model(lambda u: Z @ u),
        model(lambda u: ps.structured_dot(ps.as_sparse_variable(sp.csr_matrix(Z.astype(float))), u[:, None])[:, 0]),
    ]
    assert [read_model(m).n_random for m in models] == [N, Q]
    through, whole = (hlik.fit(m, estimator, progressbar=False, draws=0) for m in models)
    for group in ("estimates", "standard_errors"):
        for name in ("mean", "sigma_u", "u"):
            np.testing.assert_allclose(through[group][name], whole[group][name], rtol=1e-6, atol=1e-8)
    for name in ("p_v_h", "p_bv_h", "caic", "df_effective"):
        np.testing.assert_allclose(float(through.fit[name]), float(whole.fit[name]), rtol=1e-8)
    np.testing.assert_allclose(through.diagnostics["u_leverage"], whole.diagnostics["u_leverage"], rtol=1e-7)
    np.testing.assert_allclose(through.diagnostics["y_leverage"], whole.diagnostics["y_leverage"], rtol=1e-6)


def test_known_relative_variances():
    weight = np.random.default_rng(2).uniform(0.5, 4, Q)
    idata = hlik.fit(gaussian(Z, weight=weight), progressbar=False, draws=0)
    dense = Dense([(Z * weight) @ Z.T], Y, X, variances(idata, "sigma_u", "sigma"))
    np.testing.assert_allclose(float(idata.estimates["sigma_u"]) ** 2, dense.variances[0], rtol=1e-8)
    u, covariance = dense.effects(Z.astype(float), dense.variances[0], weight)
    np.testing.assert_allclose(idata.estimates["u"], u, atol=1e-9)
    np.testing.assert_allclose(idata.standard_errors["u"] ** 2, np.diag(covariance), atol=1e-9)


def test_repeated_records_and_two_matrices():
    """Two terms, the records of each individual taken from the product: several relationship matrices at once."""
    rng = np.random.default_rng(5)
    record = np.repeat(np.arange(N), 3)
    W = rng.normal(size=(N, 150))
    y = rng.normal(size=3 * N) + (Z @ rng.normal(0, 0.1, Q) + W @ rng.normal(0, 0.2, 150))[record]
    with pm.Model() as model:
        mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
        sigma_u, sigma_w = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma_w", 1)
        u, w = pm.Normal("u", 0, sigma_u, shape=Q), pm.Normal("w", 0, sigma_w, shape=150)
        pm.Normal("y", mean + (Z @ u)[record] + 2.0 * (W @ w)[record], sigma, observed=y)
    idata = hlik.fit(model, progressbar=False, draws=0)
    z, w = Z[record].astype(float), 2.0 * W[record]
    found = variances(idata, "sigma_u", "sigma_w", "sigma")
    dense = Dense([z @ z.T, w @ w.T], y, np.ones((3 * N, 1)), found)
    np.testing.assert_allclose(found, dense.variances, rtol=1e-7)
    np.testing.assert_allclose(idata.estimates["w"], dense.effects(w, dense.variances[1])[0], atol=1e-8)


def test_two_responses_share_the_effects():
    y2 = Y + np.random.default_rng(3).normal(size=N)
    with pm.Model() as model:
        sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
        mean = pm.Normal("mean", 0, 10, shape=2)
        u = pm.Normal("u", 0, sigma_u, shape=Q)
        g = Z @ u
        pm.Normal("y", mean[0] + g, sigma, observed=Y)
        pm.Normal("y2", mean[1] + g, sigma, observed=y2)
    idata = hlik.fit(model, progressbar=False, draws=0)
    z = np.vstack([Z, Z]).astype(float)
    dense = Dense([z @ z.T], np.r_[Y, y2], np.kron(np.eye(2), np.ones((N, 1))), variances(idata, "sigma_u", "sigma"))
    np.testing.assert_allclose(float(idata.estimates["sigma_u"]) ** 2, dense.variances[0], rtol=1e-8)
    np.testing.assert_allclose(idata.estimates["u"], dense.effects(z, dense.variances[0])[0], atol=1e-9)


def test_draws_agree_with_standard_errors_and_with_each_other():
    idata = hlik.fit(gaussian(Z), progressbar=False, draws=4000, random_seed=1)
    draws = idata.posterior.stack(sample=("chain", "draw"))
    for name in ("u", "g", "pair"):
        ratio = draws[name].std("sample") / idata.standard_errors[name]
        assert float(np.abs(ratio - 1).max()) < 0.1  # theta is drawn too: up to 8 % wider
    np.testing.assert_allclose(Z @ draws["u"].values, draws["g"].values, atol=1e-8)


def test_draws_of_the_product_without_those_of_the_effects(monkeypatch):
    import hlik.result.inference_data as packing

    monkeypatch.setattr(packing, "LARGEST_DRAWN", 100)
    idata = hlik.fit(gaussian(Z), progressbar=False, draws=2000, random_seed=1)
    assert "u" not in idata.posterior
    ratio = idata.posterior["g"].std(("chain", "draw")) / idata.standard_errors["g"]
    assert float(np.abs(ratio - 1).max()) < 0.1


def test_tables_and_files(tmp_path):
    idata = hlik.fit(gaussian(Z), progressbar=False, draws=0)
    table = hlik.ranef(idata)
    assert len(table) == Q
    idata.to_netcdf(tmp_path / "wide.nc")
    assert hlik.ranef(az.from_netcdf(tmp_path / "wide.nc")).equals(table)
    assert "300 levels" in str(hlik.inspect(gaussian(Z)))


def test_simulation_from_the_result_and_its_model():
    model = gaussian(Z)
    idata = hlik.fit(model, progressbar=False, draws=0)
    for fit in (idata, hlik.hem(model, hlik.fit(model, fixed={"sigma": 1.0}, progressbar=False), progressbar=False)):
        draws = hlik.simulate(model, fit, 2000, random="conditional", random_seed=1)["y"]
        phi = float(fit.estimates["sigma"]) ** 2 if "sigma" in fit.estimates else 1.0
        eta = X @ fit.estimates["beta"].values + Z @ fit.estimates["u"].values
        assert np.all(np.abs(draws.mean("draw") - eta) < 5 * np.sqrt(phi / 2000))
        np.testing.assert_allclose(hlik.predict(model, fit)["estimate"], eta, rtol=1e-8)


def test_genomic_heritability():
    """The share of lam tr(ZZ')/n, its error by the delta method on both variances."""
    centred = Z - Z.mean(axis=0)
    idata = hlik.fit(gaussian(centred), hlik.Laplace(reml=True), progressbar=False, draws=0)
    row = hlik.variance_partition(idata).loc["icc[u]"]
    lam, phi = variances(idata, "sigma_u", "sigma")
    genetic = lam * np.mean(np.sum(centred**2, axis=1))
    share = genetic / (genetic + phi)
    np.testing.assert_allclose(row["estimate"], share, rtol=1e-8)
    names = ["sigma_u_log__", "sigma_log__"]
    covariance = idata.fit["covariance_matrix"].sel(parameter=names, parameter_2=names).values
    slope = 2 * share * (1 - share) * np.array([1.0, -1.0])
    np.testing.assert_allclose(row["se"], np.sqrt(slope @ covariance @ slope), rtol=1e-5)


def test_start_values_of_the_effects():
    first = hlik.fit(gaussian(Z), progressbar=False, draws=0)
    start = {"u": first.estimates["u"].values}
    again = hlik.fit(gaussian(Z), progressbar=False, draws=0, start=start)
    np.testing.assert_allclose(again.estimates["u"], first.estimates["u"], atol=1e-9)


def test_a_matrix_on_disk_is_read_in_blocks(tmp_path):
    n, q = 50, 400_000
    file = np.lib.format.open_memmap(tmp_path / "Z.npy", mode="w+", dtype=np.int8, shape=(n, q))
    rng = np.random.default_rng(0)
    for start in range(0, q, 50_000):
        file[:, start : start + 50_000] = rng.integers(-1, 2, (n, 50_000))
    y = file[:, :1000].astype(float) @ rng.normal(0, 0.1, 1000) + rng.normal(size=n)
    file.flush()
    mapped = np.load(tmp_path / "Z.npy", mmap_mode="r")
    with pm.Model() as model:
        sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma_u, shape=q)
        pm.Normal("y", pm.Normal("mean", 0, 5) + mapped @ u, sigma, observed=y)
    tracemalloc.start()
    idata = hlik.fit(model, fixed={"sigma": 2.0}, progressbar=False, draws=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * q * 8 / 1.5  # Z as floats would take 160 MB; blocks of 32 MB and vectors of 3 MB are here
    assert idata.estimates["u"].shape == (q,)
    lam = float(idata.estimates["sigma_u"]) ** 2
    share = 1 - idata.diagnostics["u_leverage"].values
    assert np.all((share > -1e-12) & (share < 1))
    np.testing.assert_allclose(idata.standard_errors["u"] ** 2, lam * (1 - share), rtol=1e-9)


def test_sums_of_bytes_are_exact():
    rng = np.random.default_rng(0)
    matrix = rng.integers(-127, 128, (9, 20_000)).astype(np.int8)
    exact = matrix.astype(np.int64) @ matrix.T.astype(np.int64)
    np.testing.assert_array_equal(WideTerm((matrix,)).relationship, exact)
    few = (matrix % 3).astype(np.uint8)
    np.testing.assert_array_equal(WideTerm((few,)).relationship, few.astype(np.int64) @ few.T.astype(np.int64))


def test_duplicated_rows_lower_the_rank():
    doubled = np.vstack([Z[:20], Z[:20]])
    term = WideTerm((doubled,))
    assert term.rank == 20
    np.testing.assert_allclose(term.design @ term.design.T, doubled.astype(float) @ doubled.T, atol=1e-8)


def test_perfect_fit_is_told():
    """More effects than observations can leave no residual variance: REML on the boundary is a status."""
    rng = np.random.default_rng(1)
    matrix = rng.integers(0, 3, (60, 400)).astype(np.int8)
    y = 2.0 * matrix[:, 7] + rng.normal(size=60)
    with pm.Model() as model:
        sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma_u, shape=400)
        pm.Normal("y", pm.Normal("mean", 0, 5) + matrix @ u, sigma, observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="dispersion of response 'y' estimated at zero"):
        idata = hlik.fit(model, progressbar=False, draws=0)
    assert idata.fit.attrs["n_iterations"] < 30


# ---------------------------------------------------------------- heteroscedastic effects


def test_hem_is_ridge_regression_with_its_weights():
    y = Y + Z[:, 3] + np.random.default_rng(4).normal(size=N)
    model = gaussian(Z, y)
    first = hlik.fit(model, fixed={"sigma": 1.2}, progressbar=False, draws=0)
    second = hlik.hem(model, first, progressbar=False, draws=0)
    weight = first.estimates["u"].values ** 2 / (1 - first.diagnostics["u_leverage"].values)
    np.testing.assert_allclose(second.diagnostics["u_relative_variance"], weight)
    ratio = 1.2**2 / float(second.estimates["sigma_u"]) ** 2
    root = Z * np.sqrt(weight)
    T = np.hstack([X, root])
    solution = np.linalg.solve(T.T @ T + np.diag(np.r_[0, 0, np.full(Q, ratio)]), T.T @ y)
    np.testing.assert_allclose(second.estimates["u"], np.sqrt(weight) * solution[2:], rtol=1e-6, atol=1e-9)
    assert abs(float(second.estimates["u"][3])) > 2 * abs(float(first.estimates["u"][3]))


def test_hem_keeps_the_settings_and_fixed_values():
    model = gaussian(Z)
    first = hlik.fit(model, hlik.EQL(tol=1e-6), fixed={"sigma": 1.0}, progressbar=False, draws=0)
    second = hlik.hem(model, first, progressbar=False, draws=0)
    assert second.fit.attrs["estimator"] == "EQL(tol=1e-06)"
    assert "sigma" not in second.estimates


def test_hem_of_fewer_effects_than_observations_by_name():
    model = gaussian(Z)
    idata = hlik.fit(model, progressbar=False, draws=0)
    with pytest.raises(hlik.ModelError, match="no leverages of 'v'"):
        hlik.hem(model, idata, effects=["v"], progressbar=False)
    with pm.Model() as small:
        sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma_u, shape=20)
        y = Z[:, :20] @ np.linspace(-1, 1, 20) + Y
        pm.Normal("y", pm.Normal("mean", 0, 5) + Z[:, :20].astype(float) @ u, sigma, observed=y)
    first = hlik.fit(small, progressbar=False, draws=0)
    with pytest.raises(hlik.ModelError, match="no normal effects with more columns than rows"):
        hlik.hem(small, first, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hlik.ConvergenceWarning)
        second = hlik.hem(small, first, effects=["u"], progressbar=False, draws=0)
    assert second.estimates["u"].shape == (20,)


# ---------------------------------------------------------------- Arabidopsis


@pytest.fixture
def arabidopsis(shared):
    """Markers (84 x 216,100, bytes, by columns) and the binary trait."""
    packed = gzip.decompress((shared / "data" / "arabidopsis_Z_int8_colmajor_84x216100.bin.gz").read_bytes())
    matrix = np.frombuffer(packed, np.int8).reshape(216_100, 84).T
    return matrix, pd.read_csv(shared / "data" / "arabidopsis_y.csv").iloc[:, -1].to_numpy()


def test_arabidopsis(arabidopsis):
    """84 plants, 216,100 markers, a binary trait: the order of markers as bigRR's, in a fraction of a second.

    bigRR estimates a quasi-dispersion, stops without convergence after 50 iterations at one of 0.0003 and an
    intercept of 3.8; with so many markers the answers are separated, and nothing but the dispersion holds the effects
    back. With the binomial's own dispersion the variance of the effects has an inner maximum.
    """
    matrix, y = arabidopsis
    with pm.Model() as model:
        sigma = pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=matrix.shape[1])
        pm.Bernoulli("y", logit_p=pm.Normal("mean", 0, 5) + matrix @ u, observed=y)
    began = time.process_time()
    ridge = hlik.fit(model, progressbar=False)
    between = time.process_time()
    found = hlik.hem(model, ridge, progressbar=False)
    seconds = between - began, time.process_time() - between
    assert max(seconds) < 3  # 0.6 and 0.4 on one core without others
    assert ridge.fit.attrs["status"] == found.fit.attrs["status"] == "converged"
    order = [np.argsort(-np.abs(idata.estimates["u"].values)) + 1 for idata in (ridge, found)]
    assert {84981, 85200} == set(order[0][:2]) == set(order[1][:2])  # as bigRR in both of its fits
    assert len({84977, 84973, 84974, 84976} & set(order[1][:6])) == 4
    K = matrix.astype(float) @ matrix.T
    lam = float(ridge.estimates["sigma"]) ** 2
    eta = float(ridge.estimates["mean"]) + matrix @ ridge.estimates["u"].values
    p = 1 / (1 + np.exp(-eta))
    # the equations of the mode, by n x n algebra: Z u = lam K (y - p), 1'(y - p) = 0
    np.testing.assert_allclose(eta - float(ridge.estimates["mean"]), lam * K @ (y - p), atol=1e-8)
    assert abs(np.sum(y - p)) < 1e-8
