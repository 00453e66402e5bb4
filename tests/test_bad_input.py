"""What cannot be fitted is refused before any long work, each with its own message: what, why, and the way out."""

import sys

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik
from hlik import DataWarning, ModelError

N, GROUPS = 24, 6
rng = np.random.default_rng(5)
x = rng.normal(size=N)
X = np.column_stack([np.ones(N), x])
group = np.arange(N) % GROUPS
counts = rng.poisson(3.0, N)
positive = rng.gamma(2.0, 1.0, N)
real = rng.normal(size=N)
binary = np.tile([0, 1, 1, 0], N // 4)
trials = np.full(N, 5)


@pytest.fixture(autouse=True)
def _no_long_work(monkeypatch):
    """Fail where an estimator is started."""

    def started(*args, **kwargs):
        raise AssertionError("an estimator was started")

    monkeypatch.setattr(sys.modules["hlik.fit"], "run", started)


def model_of(respond, columns=X, index=group, levels=GROUPS):
    """A model with coefficients `beta` and effects `u`, whose response is ``respond(eta)``."""
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", shape=columns.shape[1]), pm.HalfNormal("sigma")
        respond(columns @ beta + pm.Normal("u", 0, sigma, shape=levels)[index])
    return model


def gaussian(y=real):
    return lambda eta: pm.Normal("y", eta, pm.HalfNormal("residual"), observed=y)


def poisson(y=counts):
    return lambda eta: pm.Poisson("y", pt.exp(eta), observed=y)


def bernoulli(y=binary):
    return lambda eta: pm.Bernoulli("y", logit_p=eta, observed=y)


def binomial(y, n=trials):
    return lambda eta: pm.Binomial("y", n=n, logit_p=eta, observed=y)


def gamma(y=positive):
    return lambda eta: pm.Gamma("y", alpha=pm.HalfNormal("alpha"), beta=1 / pt.exp(eta), observed=y)


def wald(y=positive):
    return lambda eta: pm.Wald("y", mu=pt.exp(eta), lam=pm.HalfNormal("lam"), observed=y)


def replaced(values, at, by):
    values = np.array(values, dtype=float)
    values[at] = by
    return values


def refused(model, message, **arguments):
    with pytest.raises(ModelError, match=message) as caught:
        hlik.fit(model, progressbar=False, **arguments)
    return str(caught.value)


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
    text = refused(model, rf"'y'.*expects .*found {value}\b.* at row 7")
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
    refused(model_of(binomial(y, n)), message)


def test_binomial_counts_that_are_not_whole():
    for value in (1.5, np.nan):
        model = in_container(binomial, trials - 2, 4, value)
        refused(model, rf"'y'.*row 4 is {value}")


@pytest.mark.parametrize("respond", [gaussian(np.full(N, 3.0)), gamma(np.ones(N)), wald(np.full(N, 2.0))])
def test_constant_responses(respond):
    refused(model_of(respond), r"'y' is constant \(all 24 values are \d\): there is no variation")


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
    refused(model_of(respond), rf"'y' is {edge} in every row.*estimates are infinite")


def test_complete_separation():
    text = refused(model_of(bernoulli((x > 0.2).astype(int))), r"'y' is separated.*Drop or merge")
    assert "beta[1]" in text


def test_quasi_separation():
    """One factor level with successes only."""
    level = group == 2
    y = np.where(level, 1, binary)
    refused(model_of(bernoulli(y), columns=np.column_stack([X, level])), r"'y' is separated.*'beta\[2\]'")


def test_a_count_model_with_an_empty_cell():
    level = group == 2
    refused(
        model_of(poisson(np.where(level, 0, counts + 1)), columns=np.column_stack([X, level])),
        r"separated.*'beta\[2\]'",
    )


# ---------------------------------------------------------------- covariates


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_covariates_that_are_not_finite(value):
    columns = X.copy()
    columns[11, 1] = value
    refused(model_of(gaussian(), columns), rf"predictor of 'y' has {value} at row 11 in the column of 'beta\[1\]'")


@pytest.mark.parametrize("place", ["offset", "slope"])
def test_offsets_and_covariates_of_random_effects_that_are_not_finite(place):
    known = replaced(x, 5, np.nan)
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        term = u[group] + known if place == "offset" else u[group] * known
        pm.Poisson("y", pt.exp(pm.Normal("b") + term), observed=counts)
    refused(model, r"predictor of 'y' is not finite at row 5 \(an offset or a covariate of a random effect\)")


def test_collinear_columns_are_named():
    columns = np.column_stack([X, 2 * x - 1])
    text = refused(model_of(gaussian(), columns), r"collinear.*Drop one column, or recode")
    assert all(f"beta[{k}]" in text for k in range(3))


def test_a_column_of_zeros_is_named():
    refused(model_of(gaussian(), np.column_stack([X, np.zeros(N)])), r"column of X for 'beta\[2\]' is zero")


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (replaced(np.ones(N), 2, -1), r"weights\['y'\] must be positive and finite; row 2 is -1"),
        (replaced(np.ones(N), 2, 0), "row 2 is 0. Leave rows out"),
        (replaced(np.ones(N), 2, np.nan), "row 2 is nan"),
        (np.ones(N - 1), r"weights\['y'\] has shape \(23,\); the response has shape \(24,\)"),
        (1.0, r"weights\['y'\] has shape \(\)"),
        ("w", r"weights\['y'\] must be numbers; got 'w'"),
    ],
)
def test_weights(weights, message):
    refused(model_of(gaussian()), message, weights={"y": weights})


def test_weights_that_are_no_dictionary():
    refused(model_of(gaussian()), r"weights= takes a dictionary.*got ndarray", weights=np.ones(N))


# ---------------------------------------------------------------- random effects


def test_an_effect_that_enters_non_linearly():
    with pm.Model() as model:
        u = pm.Gamma("u", 2.0 / pm.HalfNormal("lam"), 2.0, shape=GROUPS)
        pm.Poisson("y", pt.exp(pm.Normal("b") + u[group]), observed=counts)
    refused(model, r"EQL cannot fit.*random effect 'u' enters non-linearly: add pt.log\(u\).*'u_log__'.*transform=")


def test_an_effect_on_another_scale():
    with pm.Model() as model:
        lam = pm.HalfNormal("lam")
        u = pm.InverseGamma("u", 1 + 1 / lam, 1 / lam, shape=GROUPS)
        pm.Gamma("y", alpha=2.0, beta=2.0 * (pm.Normal("b") + pt.log(u)[group]), observed=positive)
    refused(model, r"'u' \(InverseGamma\) has the value variable 'u_log__'.*scale inverse.*transform=hlik.reciprocal")


def test_one_level():
    refused(model_of(gaussian(), index=np.zeros(N, int), levels=1), r"'u' has a single level")


def test_an_empty_level_is_a_warning(monkeypatch):
    monkeypatch.undo()
    with pytest.warns(DataWarning, match=r"1 of the 7 levels of 'u' have no observation \(u\[6\]\)"):
        hlik.fit(model_of(gaussian(real + 2 * group), levels=7), progressbar=False, draws=0)


def test_roles_that_cannot_be_told():
    with pm.Model() as model:
        sigma = pm.HalfNormal("sigma", pm.HalfNormal("tau"))
        pm.Normal("y", pm.Normal("u", 0, sigma, shape=GROUPS)[group], pm.HalfNormal("residual"), observed=real)
    refused(model, r"Cannot tell whether 'sigma' is a parameter or a random effect.*Pass random=\['u'\]")


# ---------------------------------------------------------------- names and values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random": ["v"]}, r"random= names \['v'\].*It has \['beta', 'residual', 'sigma', 'u'\]"),
        ({"random": "u"}, r"random= takes a list.*write \['u'\]"),
        ({"fixed": {"tau": 1.0}}, r"fixed= names \['tau'\]"),
        ({"fixed": {"y": 1.0}}, r"fixed= names \['y'\]"),
        ({"fixed": ["sigma"]}, r"fixed= takes a dictionary.*got list"),
        ({"fixed": {"sigma": -1.0}}, r"fixed\['sigma'\] = -1.0 is outside the support"),
        ({"fixed": {"sigma": np.nan}}, r"fixed\['sigma'\] = nan is outside the support"),
        ({"fixed": {"sigma": "one"}}, r"fixed\['sigma'\] must be numbers; got 'one'"),
        ({"fixed": {"beta": np.ones(3)}}, r"fixed\['beta'\] has shape \(3,\); beta has shape \(2,\)"),
        ({"weights": {"z": np.ones(N)}}, r"weights= names \['z'\].*these are: \['y'\]"),
    ],
)
def test_arguments(arguments, message):
    refused(model_of(gaussian()), message, **arguments)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"tau": 1.0}, r"start= names 'tau'"),
        ({"beta": np.ones(3)}, r"start\['beta'\] has shape \(3,\)"),
        ({"sigma": -1.0}, r"start\['sigma'\] = -1.0 is outside the support"),
    ],
)
def test_start(monkeypatch, start, message):
    monkeypatch.undo()
    monkeypatch.setattr(hlik.EQL, "step", None)
    refused(model_of(gaussian()), message, start=start)


@pytest.mark.parametrize(("prior", "value"), [(lambda: pm.Uniform("s", 0, 1), 2.0), (lambda: pm.Beta("s", 1, 1), 1.5)])
def test_fixed_values_outside_other_supports(prior, value):
    with pm.Model() as model:
        u = pm.Normal("u", 0, prior(), shape=GROUPS)
        pm.Normal("y", pm.Normal("b") + u[group], pm.HalfNormal("residual"), observed=real)
    refused(model, rf"fixed\['s'\] = {value} is outside the support", fixed={"s": value})


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("qel", r"No estimator is called 'qel'; there are \['eql'"),
        (hlik.EQL, r"write EQL\(\) with its brackets"),
        (3, "estimator must be"),
        (None, "estimator must be"),
    ],
)
def test_estimators(estimator, message):
    refused(model_of(gaussian()), message, estimator=estimator)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "must be a pymc.Model or a bambi.Model; got NoneType"),
        ({"y": real}, "got dict"),
        (pm.Model, "pass the model, not the class"),
    ],
)
def test_what_is_no_model(model, message):
    refused(model, message)


def test_models_without_observed_or_free_variables():
    with pm.Model() as nothing_observed:
        pm.Normal("b")
    with pm.Model() as nothing_free:
        pm.Normal("y", 0, 1, observed=real)
    with pm.Model() as empty:
        pass
    refused(nothing_observed, r"no observed variable: give one distribution observed=data")
    refused(nothing_free, "no free variable: there is nothing to estimate")
    refused(empty, "no observed variable")


def test_discrete_variables():
    with pm.Model() as model:
        k = pm.Bernoulli("k", 0.5, shape=GROUPS)
        pm.Poisson("y", pt.exp(pm.Normal("b") * k[group]), observed=counts)
    refused(model, r"'k' is discrete")


def test_a_distribution_that_eql_does_not_know():
    text = refused(
        model_of(lambda eta: pm.NegativeBinomial("y", mu=pt.exp(eta), alpha=1.0, observed=counts)),
        r"EQL cannot fit this model: response 'y' is NegativeBinomial",
    )
    assert "Poisson" in text


def test_weights_for_a_distribution_without_closed_form():
    model = model_of(lambda eta: pm.StudentT("y", nu=4, mu=eta, sigma=1.0, observed=real))
    refused(model, r"weights\['y'\]", estimator="laplace", weights={"y": np.ones(N)})


def test_another_response_may_decide_what_one_separates():
    """Counts of zero in a level, but measurements there too: the shared coefficient is finite."""
    level = (group == 2).astype(float)
    columns = np.column_stack([X, level])

    def respond(eta):
        pm.Bernoulli("y", logit_p=eta, observed=np.where(level, 1, binary))
        pm.Normal("z", eta, pm.HalfNormal("residual"), observed=real)

    with pytest.raises(AssertionError, match="an estimator was started"):
        hlik.fit(model_of(respond, columns), progressbar=False)
