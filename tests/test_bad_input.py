"""Data that cannot be fitted are refused before any long work: what is wrong, where, and the way out."""

import warnings

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik
from hlik import DataWarning, ModelError
from tests.refusals import (
    GROUPS,
    N,
    X,
    bernoulli,
    binary,
    binomial,
    counts,
    fit,
    forbid_work,
    gamma,
    gaussian,
    group,
    model_of,
    poisson,
    positive,
    real,
    replaced,
    trials,
    wald,
    x,
)


@pytest.fixture(autouse=True)
def _no_long_work(monkeypatch):
    forbid_work(monkeypatch)


# ---------------------------------------------------------------- responses


RESPONSES = {
    "Normal": (gaussian, [np.inf, -np.inf]),
    "Poisson": (poisson, [-1, 2.5, np.inf]),
    "Bernoulli": (bernoulli, [2, -1, 0.5]),
    "Gamma": (gamma, [0, -1, np.inf]),
    "Wald": (wald, [0, -1, np.inf]),
}


def in_container(respond, good, at, value):
    """A model whose data are changed in their container: PyMC makes plain arrays of counts whole before hlik."""
    with pm.Model() as model:
        data = pm.Data("data", np.array(good, dtype=float))
        eta = X @ pm.Normal("beta", shape=2) + pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)[group]
        respond(data)(eta)
    pm.set_data({"data": replaced(good, at, value)}, model=model)
    return model


@pytest.mark.parametrize(
    ("family", "value"), [(family, value) for family, (_, values) in RESPONSES.items() for value in [*values, np.nan]]
)
def test_responses_outside_their_support(family, value):
    good = {"Normal": real, "Poisson": counts, "Bernoulli": binary}.get(family, positive)
    model = in_container(RESPONSES[family][0], good, 7, value)
    with pytest.raises(ModelError, match=rf"'y'.*expects .*found {value}\b.* at row 7") as caught:
        fit(model)
    text = str(caught.value)
    assert "1 of 24" in text


@pytest.mark.parametrize(
    ("y", "n", "message"),
    [
        (replaced(trials - 2, 4, 6), trials, "row 4 is 6; a whole number between 0 and n = 5"),
        (replaced(trials - 2, 4, -1), trials, "row 4 is -1; a whole number between 0"),
        (trials - 2, replaced(trials, 9, 0), "row 9 has n = 0 trials; n must be at least 1"),
        (trials - 2, replaced(trials, 9, -3), "row 9 has n = -3 trials"),
    ],
)
def test_binomial_counts_and_trials(y, n, message):
    with pytest.raises(ModelError, match=message):
        fit(model_of(binomial(y, n)))


def test_binomial_counts_that_are_not_whole():
    for value in (1.5, np.nan):
        model = in_container(binomial, trials - 2, 4, value)
        with pytest.raises(ModelError, match=rf"'y'.*row 4 is {value}"):
            fit(model)


@pytest.mark.parametrize("respond", [gaussian(np.full(N, 3.0)), gamma(np.ones(N)), wald(np.full(N, 2.0))])
def test_constant_responses(respond):
    with pytest.raises(ModelError, match=r"'y' is constant \(all 24 values are \d\): there is no variation"):
        fit(model_of(respond))


@pytest.mark.parametrize(
    ("respond", "edge"),
    [
        (poisson(np.zeros(N, int)), "0"),
        (bernoulli(np.zeros(N, int)), "0"),
        (bernoulli(np.ones(N, int)), "1"),
        (binomial(trials), "n"),
    ],
)
def test_responses_that_are_all_at_the_edge(respond, edge):
    with pytest.raises(ModelError, match=rf"'y' is {edge} in every row.*estimates are infinite"):
        fit(model_of(respond))


def test_complete_separation():
    with pytest.raises(ModelError, match=r"'y' is separated.*Drop or merge") as caught:
        fit(model_of(bernoulli((x > 0.2).astype(int))))
    text = str(caught.value)
    assert "beta[1]" in text


def test_quasi_separation():
    """One factor level with successes only."""
    level = group == 2
    y = np.where(level, 1, binary)
    with pytest.raises(ModelError, match=r"'y' is separated.*'beta\[2\]'"):
        fit(model_of(bernoulli(y), columns=np.column_stack([X, level])))


def test_a_count_model_with_an_empty_cell():
    level = group == 2
    with pytest.raises(ModelError, match=r"separated.*'beta\[2\]'"):
        fit(model_of(poisson(np.where(level, 0, counts + 1)), columns=np.column_stack([X, level])))


# ---------------------------------------------------------------- covariates


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_covariates_that_are_not_finite(value):
    columns = X.copy()
    columns[11, 1] = value
    with pytest.raises(ModelError, match=rf"predictor of 'y' has {value} at row 11 in the column of 'beta\[1\]'"):
        fit(model_of(gaussian(), columns))


@pytest.mark.parametrize("place", ["offset", "slope"])
def test_offsets_and_covariates_of_random_effects_that_are_not_finite(place):
    known = replaced(x, 5, np.nan)
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        term = u[group] + known if place == "offset" else u[group] * known
        pm.Poisson("y", pt.exp(pm.Normal("b") + term), observed=counts)
    with pytest.raises(
        ModelError, match=r"predictor of 'y' is not finite at row 5 \(an offset or a covariate of a random effect\)"
    ):
        fit(model)


def test_collinear_columns_are_named():
    columns = np.column_stack([X, 2 * x - 1])
    with pytest.raises(ModelError, match=r"collinear.*Drop one column, centre") as caught:
        fit(model_of(gaussian(), columns))
    text = str(caught.value)
    assert all(f"beta[{k}]" in text for k in range(3))


def test_a_column_of_zeros_is_named():
    with pytest.raises(ModelError, match=r"column of X for 'beta\[2\]' is zero"):
        fit(model_of(gaussian(), np.column_stack([X, np.zeros(N)])))


# ---------------------------------------------------------------- random effects


def test_an_effect_that_enters_non_linearly():
    with pm.Model() as model:
        u = pm.Gamma("u", 2.0 / pm.HalfNormal("lam"), 2.0, shape=GROUPS)
        pm.Poisson("y", pt.exp(pm.Normal("b") + u[group]), observed=counts)
    with pytest.raises(
        ModelError,
        match=r"EQL cannot fit.*random effect 'u' enters non-linearly: add pt.log\(u\).*'u_log__'.*transform=",
    ):
        fit(model)


def test_an_effect_on_another_scale():
    with pm.Model() as model:
        lam = pm.HalfNormal("lam")
        u = pm.InverseGamma("u", 1 + 1 / lam, 1 / lam, shape=GROUPS)
        pm.Gamma("y", alpha=2.0, beta=2.0 * (pm.Normal("b") + pt.log(u)[group]), observed=positive)
    with pytest.raises(
        ModelError,
        match=r"'u' \(InverseGamma\) has the value variable 'u_log__'.*scale inverse.*transform=hlik.reciprocal",
    ):
        fit(model)


def test_one_level():
    with pytest.raises(ModelError, match=r"'u' has a single level"):
        fit(model_of(gaussian(), index=np.zeros(N, int), levels=1))


def test_an_empty_level_is_a_warning(monkeypatch):
    monkeypatch.undo()
    with pytest.warns(DataWarning, match=r"1 of the 7 levels of 'u' have no observation \(u\[6\]\)"):
        hlik.fit(model_of(gaussian(real + 2 * group), levels=7), progressbar=False, draws=0)


def test_roles_that_cannot_be_told():
    with pm.Model() as model:
        sigma = pm.HalfNormal("sigma", pm.HalfNormal("tau"))
        pm.Normal("y", pm.Normal("u", 0, sigma, shape=GROUPS)[group], pm.HalfNormal("residual"), observed=real)
    with pytest.raises(
        ModelError, match=r"Cannot tell whether 'sigma' is a parameter or a random effect.*Pass random=\['u'\]"
    ):
        fit(model)


def test_discrete_variables():
    with pm.Model() as model:
        k = pm.Bernoulli("k", 0.5, shape=GROUPS)
        pm.Poisson("y", pt.exp(pm.Normal("b") * k[group]), observed=counts)
    with pytest.raises(ModelError, match=r"'k' is discrete"):
        fit(model)


def test_a_distribution_that_eql_does_not_know():
    with pytest.raises(ModelError, match=r"EQL cannot fit this model: response 'y' is NegativeBinomial") as caught:
        fit(model_of(lambda eta: pm.NegativeBinomial("y", mu=pt.exp(eta), alpha=1.0, observed=counts)))
    text = str(caught.value)
    assert "Poisson" in text


def test_another_response_may_decide_what_one_separates():
    """Counts of zero in a level, but measurements there too: the shared coefficient is finite."""
    level = (group == 2).astype(float)
    columns = np.column_stack([X, level])

    def respond(eta):
        pm.Bernoulli("y", logit_p=eta, observed=np.where(level, 1, binary))
        pm.Normal("z", eta, pm.HalfNormal("residual"), observed=real)

    with pytest.raises(AssertionError, match="an estimator was started"):
        hlik.fit(model_of(respond, columns), progressbar=False)


def test_minibatches():
    model = model_of(lambda eta: pm.Poisson("y", pt.exp(eta), observed=counts, total_size=10 * N))
    with pytest.raises(ModelError, match=r"'y' stands for more data \(total_size=\): give all data"):
        fit(model)


def test_an_exact_fit():
    x = np.linspace(0, 1, 30)
    with pm.Model() as model:
        b, s, sigma = pm.Flat("b", shape=2), pm.HalfFlat("s"), pm.HalfFlat("sigma")
        u = pm.Normal("u", 0, s, shape=5)
        pm.Normal("y", b[0] + b[1] * x + u[np.arange(30) % 5], sigma, observed=2 + 3 * x)
    with pytest.raises(ModelError, match="'y' is an exact linear function of the fixed effects"):
        hlik.fit(model, "laplace", progressbar=False)


@pytest.mark.parametrize("uniform", [True, False])
def test_levels_with_one_answer_each(uniform, monkeypatch):
    """Only the groups separate the responses: told, as the variance may be infinite; not so with one mixed group."""
    monkeypatch.undo()
    group = np.repeat(np.arange(8), 3)
    y = group % 2
    if not uniform:
        y[0] = 1
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfFlat("s"), shape=8)
        pm.Bernoulli("y", logit_p=pm.Flat("b") + u[group], observed=y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hlik.fit(model, progressbar=False, draws=0)
    told = [str(w.message) for w in caught if issubclass(w.category, hlik.DataWarning)]
    assert any("Every level of 'u' has only zeros or only ones of 'y'" in message for message in told) == uniform


def test_an_index_without_a_level():
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Poisson("y", pt.exp(pm.Normal("b") + u[replaced(group, 5, 20).astype(int)]), observed=counts)
    with pytest.raises(ModelError, match=rf"index of 'u', of shape \({GROUPS},\), does not fit: index 20 is out of"):
        fit(model)


def test_a_response_in_another_shape_than_its_mean():
    """NumPy would make a matrix of all pairs of them."""
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Normal("y", u[group], pm.HalfNormal("error"), observed=np.asarray(real)[:, None])
    with pytest.raises(ModelError, match=rf"'y' has shape \({N}, 1\) and its linear predictor \(1, {N}\): give both"):
        fit(model)


@pytest.mark.parametrize("estimator", [hlik.Laplace(), hlik.AGQ(), hlik.MCLA(), hlik.MCEM()], ids=lambda e: e.name)
def test_responses_with_a_kink(estimator):
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Laplace("y", pm.Normal("b") + u[group], pm.HalfNormal("scale"), observed=real)
    with pytest.raises(ModelError, match=r"response 'y' \(Laplace\) has a kink at its centre.*such as StudentT"):
        fit(model, estimator=estimator)
