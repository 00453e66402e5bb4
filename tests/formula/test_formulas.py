"""Arguments of `from_formula` and `hglm`, missing rows, refusals, what the model holds."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import hlik
from hlik.graph.read import read_model

RNG = np.random.default_rng(3)
N, GROUPS = 60, 10
DATA = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "g": [f"g{k}" for k in np.arange(N) % GROUPS],
        "h": np.arange(N) // 12,
        "n": RNG.integers(2, 9, N),
        "w": RNG.uniform(0.5, 2, N),
    },
    index=[f"row {i}" for i in range(N)],
)
ETA = 0.3 + DATA["x"] + RNG.normal(size=GROUPS)[np.arange(N) % GROUPS]
DATA["y"] = ETA + RNG.normal(size=N)
DATA["k"] = RNG.binomial(DATA["n"], 1 / (1 + np.exp(-ETA)))
DATA["count"] = RNG.poisson(np.exp(ETA))
DATA["positive"] = RNG.gamma(2, np.exp(ETA))
DATA["share"] = RNG.beta(2, 2, N)
DATA["yes"] = np.where(RNG.uniform(size=N) < 0.5, "yes", "no")


def test_the_model_has_names_dims_and_data():
    model = hlik.from_formula("y ~ x + (1 + x || g)", DATA, dispersion="~ x")
    names = [variable.name for variable in model.free_RVs]
    assert names == [
        "Intercept", "x", "1|g_sigma", "1|g", "x|g_sigma", "x|g", "dispersion_Intercept", "dispersion_x",
    ]  # fmt: skip
    assert list(model.coords["g__factor_dim"]) == sorted(f"g{k}" for k in range(GROUPS))
    assert model.coords["__obs__"] == tuple(DATA.index)
    assert {data.name for data in model.data_vars} == {"X", "dispersion_X", "g__index", "x|g_data"}
    assert model.named_vars_to_dims["1|g"] == ("g__factor_dim",)


def test_the_data_frame_is_not_changed():
    before = DATA.copy(deep=True)
    hlik.from_formula("y ~ x + (x || g)", DATA)
    pd.testing.assert_frame_equal(DATA, before)


FAMILIES = [
    ("gaussian", "y", {}),
    ("t", "y", {}),
    ("bernoulli", "yes", {}),
    ("binomial", "k", {"trials": "n"}),
    ("beta_binomial", "k", {"trials": "n"}),
    ("poisson", "count", {}),
    ("negativebinomial", "count", {}),
    ("gamma", "positive", {"link": "log"}),
    ("wald", "positive", {"link": "log"}),
    ("exponential", "positive", {}),
    ("beta", "share", {}),
    ("weibull", "positive", {}),
    ("zero_inflated_poisson", "count", {}),
    ("zero_inflated_binomial", "k", {"trials": "n"}),
    ("zero_inflated_negativebinomial", "count", {}),
]


@pytest.mark.parametrize(("family", "response", "settings"), FAMILIES)
def test_every_family_can_be_fitted(family, response, settings):
    model = hlik.from_formula(f"{response} ~ x + (1 | g)", DATA, family=family, **settings)
    inspection = hlik.inspect(model)
    assert not inspection.estimators["Laplace"]
    known = family in ("gaussian", "bernoulli", "binomial", "poisson", "gamma", "wald", "exponential")
    assert bool(inspection.estimators["EQL"]) != known


def test_all_families_are_tested():
    from hlik.formula.families import FAMILIES as every

    assert {family for family, _, _ in FAMILIES} == set(every)


@pytest.mark.parametrize("link", ["identity", "log", "inverse", "sqrt", "inverse_squared"])
def test_links_of_means(link):
    model = hlik.from_formula("positive ~ x + (1 | g)", DATA, family="gamma", link=link)
    assert read_model(model).responses[0].link.name == link


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_links_of_probabilities(link):
    model = hlik.from_formula("k ~ x + (1 | g)", DATA, family="binomial", trials="n", link=link)
    assert read_model(model).responses[0].link.name == link


@pytest.mark.parametrize(
    ("distribution", "family"),
    [("normal", "Normal"), ("gamma", "Gamma"), ("beta", "Beta"), ("inverse_gamma", "InverseGamma"), ("t", "StudentT"),
     ("t(10)", "StudentT")],
)  # fmt: skip
def test_random_distributions(distribution, family):
    model = hlik.from_formula("count ~ x + (1 | g) + (1 | h)", DATA, family="poisson", random={"g": distribution})
    effects = {effect.name: effect.distribution for effect in read_model(model).random_effects}
    assert effects == {"1|g": family, "1|h": "Normal"}
    assert ("1|g_nu" in model.named_vars) == (distribution == "t")


def test_a_distribution_of_ones_own():
    def laplace(name, dims):
        return pm.Laplace(name, 0, pm.HalfNormal(f"{name}_b", 1), dims=dims)

    model = hlik.from_formula("y ~ x + (1 | g)", DATA, random={"1|g": laplace})
    assert [effect.distribution for effect in read_model(model).random_effects] == ["Laplace"]


def test_responses_of_binary_data():
    fits = [
        hlik.hglm(formula, data, family="bernoulli", progressbar=False, draws=0)
        for formula, data in [
            ("yes ~ x + (1 | h)", DATA),
            ("yes['yes'] ~ x + (1 | h)", DATA),
            ("z ~ x + (1 | h)", DATA.assign(z=DATA["yes"] == "yes")),
            ("z ~ x + (1 | h)", DATA.assign(z=pd.Categorical(DATA["yes"], ["no", "yes"]))),
        ]
    ]
    for fit in fits[1:]:
        assert float(fit.estimates["x"]) == float(fits[0].estimates["x"])


def test_trials_in_the_response():
    one = hlik.hglm("p(k, n) ~ x + (1 | g)", DATA, family="binomial", progressbar=False, draws=0)
    other = hlik.hglm("k ~ x + (1 | g)", DATA, family="binomial", trials="n", progressbar=False, draws=0)
    third = hlik.hglm("k ~ x + (1 | g)", DATA, family="binomial", trials=DATA["n"], progressbar=False, draws=0)
    assert float(one.estimates["x"]) == float(other.estimates["x"]) == float(third.estimates["x"])


def test_rows_with_missing_values_are_left_out_and_reported():
    data = DATA.copy()
    data.iloc[3, data.columns.get_loc("x")] = np.nan
    data.iloc[[3, 10], data.columns.get_loc("g")] = None
    data.iloc[20, data.columns.get_loc("share")] = np.nan  # no part of the model
    with pytest.warns(hlik.DataWarning, match=r"2 of 60 rows have missing values, by column: g \(2\), x \(1\)"):
        model = hlik.from_formula("y ~ x + (1 | g)", data, weights=DATA["w"].to_numpy())
    kept = DATA.drop(index=["row 3", "row 10"])
    assert list(model.coords["__obs__"]) == list(kept.index)
    by_hand = hlik.from_formula("y ~ x + (1 | g)", kept, weights="w")
    estimates = [hlik.fit(m, draws=0, progressbar=False).estimates["x"] for m in (model, by_hand)]
    assert float(estimates[0]) == float(estimates[1])
    with pytest.raises(hlik.ModelError, match="2 of 60 rows"):
        hlik.from_formula("y ~ x + (1 | g)", data, missing="error")


def test_weights_of_counts_go_to_the_fit():
    whole = DATA.assign(w=np.arange(N) % 3 + 1)
    repeated = whole.loc[whole.index.repeat(whole["w"])].reset_index(drop=True)
    weighted = hlik.hglm("count ~ x + (1 | g)", whole, family="poisson", weights="w", draws=0, progressbar=False)
    written_out = hlik.hglm("count ~ x + (1 | g)", repeated, family="poisson", draws=0, progressbar=False)
    for name in ("x", "1|g_sigma"):  # the same equations, summed in another order
        assert float(weighted.estimates[name]) == pytest.approx(float(written_out.estimates[name]), rel=1e-6)


def test_noncentered_effects_fit_the_same():
    one, other = (
        hlik.fit(
            hlik.from_formula("count ~ x + (1 | g)", DATA, family="poisson", noncentered=noncentered),
            draws=0,
            progressbar=False,
        )
        for noncentered in (False, True)
    )
    for name in ("x", "1|g_sigma", "1|g"):
        np.testing.assert_allclose(one.estimates[name], other.estimates[name], rtol=1e-8)


def test_random_effects_in_the_dispersion():
    model = hlik.from_formula("y ~ x + (1 | g)", DATA, dispersion="~ x + (1 | g)")
    read = read_model(model)
    assert [effect.name for effect in read.random_effects] == ["1|g", "dispersion_1|g"]
    assert not read.laplace_obstacles


def test_names_come_from_the_callers_frame():
    def double(values):
        return 2 * values

    doubled = hlik.hglm("y ~ double(x) + (1 | g)", DATA, draws=0, progressbar=False)
    plain = hlik.hglm("y ~ x + (1 | g)", DATA, draws=0, progressbar=False)
    assert 2 * float(doubled.estimates["double(x)"]) == pytest.approx(float(plain.estimates["x"]), rel=1e-8)


@pytest.mark.parametrize(
    ("formula", "settings", "message"),
    [
        ("y ~ z", {}, "no column 'z'; they have"),
        ("y ~ x + (1 | z)", {}, "no column 'z'"),
        ("y ~ x + (z || g)", {}, "no column 'z'"),
        ("y ~ x", {"family": "normal"}, "family='normal': expected one of"),
        ("y ~ x", {"link": "logarithm"}, "link='logarithm': expected one of"),
        ("k ~ x", {"family": "binomial"}, "needs the numbers of trials"),
        ("y ~ x", {"trials": "n"}, "trials= goes with binomial families"),
        ("p(k, n) ~ x", {"family": "binomial", "trials": "n"}, "has its trials already"),
        ("count ~ x", {"family": "poisson", "dispersion": "~ x"}, "dispersion= needs a family that has one"),
        ("count ~ x", {"family": "poisson", "weights": "w"}, r"pass them to the fit"),
        ("y ~ x + (1 | g)", {"random": {"h": "gamma"}}, r"random= names 'h'.*there are \['1\|g', 'g'\]"),
        ("y ~ x + (1 | g)", {"random": {"g": "gaussian"}}, r"'1\|g': expected one of"),
        ("y ~ x + (x | g)", {"random": {"g": "beta"}}, r"correlated, which needs 'normal'"),
        ("y ~ x + (1 | g)", {"random_dispersion": {"g": "~ x"}}, "'x' changes within a level of 'g'"),
        ("y ~ x + (1 | g)", {"random_dispersion": {"g": "~ (1 | h)"}}, "random effects cannot stand in it"),
        ("y ~ x + (1 | g) + (x | g) + (1 | g)", {}, r"two terms of the model have the name '1\|g'"),
        ("y ~ x", {"weights": [1.0, 2.0]}, r"weights must be a column's name, a number or 60 numbers; got \(2,\)"),
        ("y ~ x", {"weights": -np.ones(60)}, "weights must be positive and finite; row 'row 0' has -1"),
        ("y ~ log(0 * w)", {}, r"term 'log\(0 \* w\)' is -inf in row 'row 0'"),
        ("y ~ (0 + I(1 / (0 * w)) | g)", {}, "is inf in row 'row 0'"),
        ("yes ~ x", {}, "is a factor, which goes with family='bernoulli'"),
        ("h ~ x", {"family": "bernoulli", "missing": "keep"}, "missing='keep': expected 'drop'"),
        ("y ~ x + (offset(x) | g)", {}, "the left side of the bar must have columns"),
        ("y ~ C(one) + x", {}, r"term 'C\(one\)' has no columns"),
        ("y ~ x + +", {}, "nothing stands between"),
        ("y ~ x[", {}, "brackets or quotes"),
        ("log(y, y, y, y) ~ x", {}, "cannot be evaluated"),
        ("log(0 * w) ~ x", {}, "is not finite in row 'row 0'"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_refusals(formula, settings, message):
    with pytest.raises(hlik.ModelError, match=message):
        hlik.from_formula(formula, DATA.assign(one="a"), **settings)


def test_data_must_be_a_frame():
    with pytest.raises(hlik.ModelError, match=r"data must be a pandas\.DataFrame; got dict"):
        hlik.from_formula("y ~ x", {"y": [1], "x": [2]})


@pytest.mark.slow
def test_the_model_can_be_sampled_and_predicts_new_rows():
    from hlik.formula.new_data import new_data

    model = hlik.from_formula("y ~ x + (1 | g)", DATA)
    with model:
        idata = pm.sample(200, tune=300, chains=1, cores=1, random_seed=1, progressbar=False)
        new = new_data(model, pd.DataFrame({"x": [0.0, 1.0, 2.0], "g": ["g1", "g1", "unknown"]}))
        assert list(new.new_levels["g"]) == ["unknown"]
        known = new_data(model, pd.DataFrame({"x": [0.0, 1.0, 2.0], "g": ["g1", "g1", "g2"]}))
        pm.set_data(dict(known.values), coords={"__obs__": known.coords["__obs__"]})
        drawn = pm.sample_posterior_predictive(idata, predictions=True, random_seed=1, progressbar=False)
    mean = drawn.predictions["y"].mean(("chain", "draw")).to_numpy()
    slope = float(idata.posterior["x"].mean())
    assert mean[1] - mean[0] == pytest.approx(slope, abs=0.3)  # 200 draws of residuals of deviation one
