"""Sandwich covariance: a dense Gaussian likelihood by groups, and what has no scores by group."""

import numpy as np
import pymc as pm
import pytest
from scipy import integrate, stats

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


SUBJECT, DAY = np.repeat(np.arange(12), 5), np.tile(np.linspace(-1, 1, 5), 12)


def slopes(y: np.ndarray) -> pm.Model:
    with pm.Model() as model:
        beta, sigma = pm.Flat("beta", shape=2), pm.HalfFlat("sigma")
        chol, _, _ = pm.LKJCholeskyCov("chol", n=2, eta=1, sd_dist=pm.HalfNormal.dist(1), compute_corr=True)
        u = pm.MvNormal("u", 0, chol=chol, shape=(12, 2))
        pm.Normal("y", beta[0] + beta[1] * DAY + u[SUBJECT, 0] + u[SUBJECT, 1] * DAY, sigma, observed=y)
    return model


@pytest.fixture(scope="module")
def slopes_y() -> np.ndarray:
    rng = np.random.default_rng(5)
    u = rng.normal(size=(12, 2)) @ np.array([[0.8, 0.3], [0, 0.4]])
    return 1 + DAY + u[SUBJECT, 0] + u[SUBJECT, 1] * DAY + rng.normal(size=60) * 0.6


def dense(idata, y: np.ndarray):
    """Residuals, design and covariance of one subject's responses, at the estimates."""
    Z = np.column_stack([np.ones(5), DAY[:5]])
    L = np.zeros((2, 2))
    L[np.tril_indices(2)] = idata.estimates["chol"].values
    V = Z @ L @ L.T @ Z.T + float(idata.estimates["sigma"]) ** 2 * np.eye(5)
    return (y - np.column_stack([np.ones(60), DAY]) @ idata.estimates["beta"].values).reshape(12, 5), Z, V


@pytest.mark.parametrize("estimator", ["laplace", hlik.AGQ(3)])
def test_correlated_slopes_by_dense_algebra(slopes_y, estimator):
    """All scores, by central differences of each subject's normal density."""
    model = slopes(slopes_y)
    idata = hlik.fit(model, estimator, progressbar=False, draws=0)
    psi, labels = idata.fit.mean_vector.values, [str(k) for k in idata.fit["parameter"].values]
    own = {name: [k for k, label in enumerate(labels) if label.startswith(name)] for name in ("beta", "sigma", "chol")}
    Z = np.column_stack([np.ones(5), DAY[:5]])

    def by_group(x):
        a, b, c = x[own["chol"]]
        L = np.array([[np.exp(a), 0], [b, np.exp(c)]])
        V = Z @ L @ L.T @ Z.T + np.exp(2 * x[own["sigma"][0]]) * np.eye(5)
        e = slopes_y.reshape(12, 5) - Z @ x[own["beta"]]
        return stats.multivariate_normal(np.zeros(5), V).logpdf(e)

    scores = np.array([(by_group(psi + s) - by_group(psi - s)) / 2e-5 for s in 1e-5 * np.eye(psi.size)])
    bread = idata.fit.covariance_matrix.values
    expected = bread @ scores @ scores.T @ bread
    np.testing.assert_allclose(
        sandwich(model, idata, SUBJECT), expected, rtol=1e-4, atol=1e-6 * np.diag(expected).max()
    )


@pytest.mark.parametrize("estimator", ["eql", hlik.Laplace(reml=True), hlik.HL(0, 1)])
def test_fixed_effects_of_restricted_likelihoods(slopes_y, estimator):
    """``A^-1 (sum s_g s_g') A^-1`` with ``s_g = X_g' V^-1 e_g``, ``A = sum X_g' V^-1 X_g``."""
    model = slopes(slopes_y)
    idata = hlik.fit(model, estimator, progressbar=False, draws=0)
    e, X, V = dense(idata, slopes_y)
    scores, bread = X.T @ np.linalg.solve(V, e.T), np.linalg.inv(12 * X.T @ np.linalg.solve(V, X))
    found = sandwich(model, idata, SUBJECT)
    fixed = [label for label in found.columns if label.startswith("beta")]
    np.testing.assert_allclose(found.loc[fixed, fixed], bread @ scores @ scores.T @ bread, rtol=1e-6)
    assert found.drop(index=fixed, columns=fixed).isna().all().all()


@pytest.mark.parametrize("density", ["normal", "t", "laplace"])
def test_quadrature_scores(density):
    """Scores of binary groups by SciPy's quadrature, and of observations without effects (the last three)."""
    group = np.repeat(np.arange(7), 6)
    y = (np.tile(np.arange(6), 7) < np.repeat([5, 1, 3, 2, 6, 1, 4], 6)).astype(int)
    with pm.Model() as model:
        b, s = pm.Flat("b"), pm.HalfFlat("s")
        if density == "normal":
            v = pm.Normal("v", 0, s, shape=6)
        elif density == "t":
            v = pm.StudentT("v", nu=6, mu=0, sigma=s, shape=6)
        else:
            v = pm.Laplace("v", 0, s, shape=6)
        pm.Bernoulli("y", logit_p=b + pm.math.concatenate([v, np.zeros(1)])[group], observed=y)
    idata = hlik.fit(model, hlik.AGQ(45), progressbar=False, draws=0)
    assert idata.fit.attrs["status"] == "converged"
    psi = idata.fit.mean_vector.values
    frozen = {"normal": stats.norm, "t": stats.t(6), "laplace": stats.laplace}[density]

    def by_group(x):
        def product(k, v):
            p, successes = 1 / (1 + np.exp(-x[0] - v)), int(y[group == k].sum())
            return p**successes * (1 - p) ** (6 - successes)

        s = np.exp(x[1])
        inner = [
            sum(
                integrate.quad(lambda v, k=k: product(k, v) * frozen.pdf(v / s) / s, *ends, epsabs=1e-14, limit=200)[0]
                for ends in ((-200, -10), (-10, 0), (0, 10), (10, 200))
            )
            for k in range(6)
        ]
        return np.log([*inner, product(6, 0.0)])

    scores = np.array([(by_group(psi + m) - by_group(psi - m)) / 2e-3 for m in 1e-3 * np.eye(2)])
    bread = idata.fit.covariance_matrix.values
    # the quadrature of the t density has errors of 1e-4
    expected = bread @ scores @ scores.T @ bread
    np.testing.assert_allclose(sandwich(model, idata, group), expected, rtol=2e-3 if density == "t" else 1e-4)


def test_what_has_no_scores_by_group():
    model = one_way()
    with pytest.raises(hlik.ModelError, match="has no scores by group: fit with"):
        sandwich(model, fit(model, hlik.HL(1, 1)), GROUP)
    penalised = hlik.fit(model, "laplace", priors="penalise", progressbar=False, draws=0)
    with pytest.raises(hlik.ModelError, match="densities of parameters belong to no group"):
        sandwich(model, penalised, GROUP)


@pytest.mark.slow
def test_one_scale_of_all_groups():
    with pm.Model() as model:
        u = pm.MvStudentT("u", nu=8, mu=np.zeros(4), scale=np.eye(4) * pm.HalfFlat("s") ** 2)
        pm.Normal("y", pm.Flat("mean") + u[GROUP], 0.4, observed=Y)
    idata = hlik.fit(model, hlik.AGQ(3), progressbar=False, draws=0)
    with pytest.raises(hlik.ModelError, match=r"belongs to all groups at once|belong to several groups"):
        sandwich(model, idata, GROUP)
