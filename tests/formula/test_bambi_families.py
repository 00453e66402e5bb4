"""Every family of Bambi: those that hlik can fit are fitted, the others refused with a reason."""

import warnings

import numpy as np
import pandas as pd
import pytest

import hlik
from tests.graph.test_bambi import bmb

from bambi.defaults.families import BUILTIN_FAMILIES  # isort: skip

RNG = np.random.default_rng(1)
N, GROUPS = 200, 20
g, x = np.arange(N) % GROUPS, RNG.normal(size=N)
ETA = 0.3 + 0.4 * x + RNG.normal(0, 0.6, GROUPS)[g]
MU, P = np.exp(ETA), 1 / (1 + np.exp(-ETA))
DATA = pd.DataFrame({"x": x, "g": [f"g{k}" for k in g], "n": RNG.integers(3, 9, N)})
DATA["y"] = ETA + RNG.normal(size=N)
DATA["heavy"] = ETA + RNG.standard_t(4, size=N)
DATA["yes"] = RNG.binomial(1, P)
DATA["k"] = RNG.binomial(DATA["n"], P)
DATA["mixed"] = RNG.binomial(DATA["n"], RNG.beta(4 * P, 4 * (1 - P)))
DATA["count"] = RNG.poisson(MU)
DATA["clumped"] = RNG.poisson(MU * RNG.gamma(2, 0.5, N))
DATA["positive"] = RNG.gamma(3, MU / 3)
DATA["share"] = np.clip(RNG.beta(5 * P, 5 * (1 - P)), 0.01, 0.99)
DATA["angle"] = RNG.vonmises(ETA / 2, 3)
DATA["category"] = pd.Categorical(
    np.array(list("abc"))[(RNG.gumbel(size=(N, 3)) + np.outer(ETA, [0, 1, -1])).argmax(1)]
)
DATA["step"] = pd.Categorical(np.digitize(ETA + RNG.logistic(size=N), [-1, 1]) + 1, ordered=True)
DATA[["m1", "m2", "m3"]] = [
    RNG.multinomial(8, RNG.dirichlet(6 * w / w.sum())) for w in np.exp(np.outer(ETA, [0, 1, -1]))
]
SOME = RNG.uniform(size=N) < 0.7
DATA["zero_count"], DATA["zero_clumped"] = SOME * DATA["count"], SOME * DATA["clumped"]
DATA["zero_k"], DATA["zero_positive"] = SOME * DATA["k"], SOME * DATA["positive"]

EXPONENTIAL = ("bernoulli", "binomial", "exponential", "gamma", "gaussian", "poisson", "wald")
RESPONSES = {
    "bernoulli": "yes",
    "beta": "share",
    "beta_binomial": "p(mixed, n)",
    "binomial": "p(k, n)",
    "categorical": "category",
    "cumulative": "step",
    "dirichlet_multinomial": "c(m1, m2, m3)",
    "exponential": "positive",
    "gamma": "positive",
    "gaussian": "y",
    "hurdle_gamma": "zero_positive",
    "hurdle_lognormal": "zero_positive",
    "hurdle_negativebinomial": "zero_clumped",
    "hurdle_poisson": "zero_count",
    "multinomial": "c(m1, m2, m3)",
    "negativebinomial": "clumped",
    "poisson": "count",
    "sratio": "step",
    "t": "heavy",
    "vonmises": "angle",
    "wald": "positive",
    "weibull": "positive",
    "zero_inflated_binomial": "p(zero_k, n)",
    "zero_inflated_negativebinomial": "zero_clumped",
    "zero_inflated_poisson": "zero_count",
}
KINKED = {"laplace": "y", "asymmetriclaplace": "y"}
"""Densities with a kink at the mean: h has no second derivative there, and Laplace's approximation no meaning."""


def bambi_model(family, response):
    settings = {"link": "log"} if family in ("gamma", "wald", "exponential") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bmb.Model(f"{response} ~ x + (1|g)", DATA, family=family, **settings)
        model.build()
    return model


def test_every_family_is_in_the_tables():
    assert {*RESPONSES, *KINKED} == set(BUILTIN_FAMILIES)


@pytest.mark.parametrize("family", RESPONSES)
@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
def test_laplace(family):
    """It converges, and the log density that hlik maximised is PyMC's at the estimates."""
    model = bambi_model(family, RESPONSES[family])
    idata = hlik.fit(model, hlik.Laplace(), progressbar=False, draws=0)
    status = idata.fit.attrs["status"]
    assert status == "converged" or status.startswith("boundary: sd of '1|g_offset'")
    pymc_model = model.backend.model
    point = {v.name: idata.unconstrained_estimates[v.name].to_numpy() for v in pymc_model.value_vars}
    log_density = pymc_model.compile_logp(vars=pymc_model.observed_RVs, jacobian=False, mode="FAST_COMPILE")
    assert float(idata.fit["conditional_log_likelihood"]) == pytest.approx(float(log_density(point)), rel=1e-8)
    assert ("x" in idata.estimates) and np.all(np.isfinite(idata.standard_errors["x"]))


@pytest.mark.parametrize("family", EXPONENTIAL)
def test_eql(family):
    idata = hlik.fit(bambi_model(family, RESPONSES[family]), progressbar=False, draws=0)
    assert idata.fit.attrs["status"] == "converged"
    assert float(idata.estimates["x"]) == pytest.approx(0.4, abs=4 * float(idata.standard_errors["x"]))


@pytest.mark.parametrize("family", sorted({*RESPONSES, *KINKED} - set(EXPONENTIAL)))
def test_eql_says_why_not(family):
    (reason, *_) = hlik.inspect(bambi_model(family, {**RESPONSES, **KINKED}[family])).estimators["EQL"]
    assert "EQL knows" in reason


@pytest.mark.parametrize("family", KINKED)
def test_kinks_are_refused(family):
    with pytest.raises(hlik.ModelError):
        hlik.fit(bambi_model(family, KINKED[family]), hlik.Laplace(), progressbar=False)
