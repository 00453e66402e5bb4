"""Bambi's models: families, links, group effects as Bambi writes them (non-centred)."""

import warnings

import numpy as np
import pandas as pd
import pytest

import hlik
from hlik.graph.read import read_model
from tests.graph.problems import GROUPS, N, Z, binary, counts, exposure, group, positive, real, successes, trials, x

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    bmb = pytest.importorskip("bambi")

DATA = pd.DataFrame(
    {
        "y": real,
        "count": counts,
        "yes": binary,
        "positive": positive,
        "k": successes,
        "n": trials,
        "x": x,
        "exposure": exposure,
        "g": [f"g{k}" for k in group],
        "h": [f"h{k % 3}" for k in range(N)],
    }
)
CENTRED = x - x.mean()


def model_of(formula, family="gaussian", **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bmb.Model(formula, DATA, family=family, **settings)
        model.build()
    return model


# Bambi's family and link; the response; hlik's family and link
FAMILIES = [
    ("gaussian", None, "y", "normal", "identity"),
    ("bernoulli", None, "yes", "bernoulli", "logit"),
    ("bernoulli", "probit", "yes", "bernoulli", "probit"),
    ("bernoulli", "cloglog", "yes", "bernoulli", "cloglog"),
    ("binomial", None, "p(k, n)", "binomial", "logit"),
    ("poisson", None, "count", "poisson", "log"),
    ("gamma", None, "positive", "gamma", "inverse"),
    ("gamma", "log", "positive", "gamma", "log"),
    ("wald", None, "positive", "inverse_gaussian", "inverse_squared"),
    ("wald", "log", "positive", "inverse_gaussian", "log"),
    ("exponential", "log", "positive", "gamma", "log"),
]


@pytest.mark.parametrize(("bambi_family", "bambi_link", "response", "family", "link"), FAMILIES)
def test_families_and_links(bambi_family, bambi_link, response, family, link):
    settings = {} if bambi_link is None else {"link": bambi_link}
    model = read_model(model_of(f"{response} ~ x + (1|g)", bambi_family, **settings))
    assert not model.obstacles
    assert (model.responses[0].family.name, model.responses[0].link.name) == (family, link)
    (effect,) = model.random_effects
    assert (effect.name, effect.distribution, effect.size) == ("1|g_offset", "Normal (non-centred)", GROUPS)
    np.testing.assert_allclose(model.X, np.column_stack([np.ones(N), CENTRED]), atol=1e-14)
    np.testing.assert_allclose(model.Z.toarray(), Z, atol=1e-14)


def test_centred_effects_read_the_same():
    one = read_model(model_of("count ~ x + (x|g)", "poisson"))
    other = read_model(model_of("count ~ x + (x|g)", "poisson", noncentered=False))
    assert [e.name for e in other.random_effects] == ["1|g", "x|g"]
    np.testing.assert_allclose(one.Z.toarray(), other.Z.toarray(), atol=1e-14)
    np.testing.assert_allclose(one.X, other.X)
    for noncentered, centred in zip(one.random_effects, other.random_effects, strict=True):
        theta = np.array([0.2, -0.1])
        np.testing.assert_allclose(noncentered.dispersion.value(theta), centred.dispersion.value(theta))


FORMULAS = {
    "slopes": ("y ~ x + (x|g)", 2, GROUPS * 2),
    "crossed": ("y ~ x + (1|g) + (1|h)", 2, GROUPS + 3),
    "factor slopes": ("y ~ x + (0 + h|g)", 2, GROUPS * 3),
    "factors": ("y ~ 0 + h + x:h + (1|g)", 6, GROUPS),
    "interaction": ("y ~ x * h + (1|g)", 6, GROUPS),
    "splines": ("y ~ bs(x, df=4) + (1|g)", 5, GROUPS),
    "offset": ("y ~ x + offset(exposure) + (1|g)", 2, GROUPS),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name):
    formula, p, q = FORMULAS[name]
    model = read_model(model_of(formula))
    assert not model.obstacles
    assert (model.X.shape, model.Z.shape) == ((N, p), (N, q))
    assert bool(np.any(model.offset)) == (name == "offset")


def test_a_model_of_sigma():
    model = read_model(model_of(bmb.Formula("y ~ x + (1|g)", "sigma ~ x")))
    assert not model.obstacles
    assert model.responses[0].dispersion.size == N
    model = read_model(model_of(bmb.Formula("y ~ x + (1|g)", "sigma ~ x + (1|g)")))
    assert not model.obstacles
    assert [predictor.name for predictor in model.double.predictors] == ["y"]
    assert model.double.below == {"sigma_Intercept", "sigma_x", "sigma_1|g_sigma", "sigma_1|g_offset"}


@pytest.mark.parametrize("family", ["negativebinomial", "zero_inflated_poisson"])
def test_other_families_are_inspected(family):
    found = hlik.inspect(model_of("count ~ x + (1|g)", family))
    assert found.estimators["EQL"]
    assert [p["role"] for p in found.parameters if p["name"] == "x"] == ["fixed effect"]


def test_unbuilt_models_are_built():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bmb.Model("count ~ x + (1|g)", DATA, family="poisson")
    assert read_model(model).responses[0].name == "count"


@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
def test_fit():
    idata = hlik.fit(model_of("count ~ x + (1|g)", "poisson"), progressbar=False, draws=8)
    assert {"Intercept", "x", "1|g_sigma", "1|g"} <= set(idata.estimates)
    assert idata.estimates["1|g"].dims == ("g__factor_dim",)
    assert list(idata.estimates["1|g"].coords["g__factor_dim"].values) == [f"g{k}" for k in range(GROUPS)]
