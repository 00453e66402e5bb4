"""Monte Carlo EM against exact maximum likelihood of published data: quadrature, and quasi-Monte Carlo by blocks."""

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import hlik
from models import salamander
from tests.reference_models import bacteria, seeds

needs_nutpie = pytest.mark.skipif(find_spec("nutpie") is None, reason="needs nutpie")


def epilepsy(kind, data):
    frame = pd.read_csv(data / "epilepsy.csv")
    patient = pd.factorize(frame.id)[0]
    X = np.column_stack(
        [np.ones(len(frame)), frame.base, frame.group, frame.age, frame.visit, frame.base * frame.group]
    )
    with pm.Model() as model:
        beta, alpha = pm.Normal("beta", 0, 10, shape=6), pm.HalfNormal("alpha", 10)
        sigma_u = pm.HalfNormal("sigma_u", 1)
        if kind == "normal":
            u = pm.Normal("u", 0, sigma_u, shape=59)
        elif kind == "independent t":
            u = pm.StudentT("u", nu=10, mu=0, sigma=sigma_u, shape=59)
        else:
            u = pm.MvStudentT("u", nu=10, mu=np.zeros(59), scale=sigma_u**2 * np.eye(59))
        mu = pm.math.exp(X @ beta + u[patient])
        pm.NegativeBinomial("y", mu=mu, alpha=alpha, observed=frame["count"].to_numpy())
    return model


def values(dataset, estimates, names, error):
    """Parameters in the order of the records: the variance where the model has sigma_u."""
    found = []
    for name in names:
        own, at = np.ravel(dataset[name]), np.ravel(estimates[name])
        if name == "sigma_u":
            own = 2 * at * own if error else own**2
        found.append(own)
    return np.concatenate(found)


def check(found, record, names):
    estimate = values(found.estimates, found.estimates, names, False)
    error = values(found.monte_carlo_errors, found.estimates, names, True)
    spread = values(found.standard_errors, found.estimates, names, True)
    exact, exact_spread = (np.array(list(record[key].values())) for key in ("estimates", "se"))
    # four Monte Carlo errors; one Newton step of 0.1 standard errors leaves up to 0.01 of one
    assert np.all(np.abs(estimate - exact) < 4 * error + 0.01 * exact_spread)
    assert np.all(error < 0.06 * spread)
    # Louis' standard errors have Monte Carlo errors up to 5 %; and follow the estimate of the variance
    np.testing.assert_allclose(spread, exact_spread, rtol=0.12)
    log_error = float(found.fit["log_likelihood_mcse"])
    assert abs(float(found.fit["log_likelihood"]) - record["loglik"]) < 4 * log_error + 2e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "build", "names"),
    [
        ("seeds_binomial_normal", seeds("normal"), ("beta", "sigma_u")),
        ("seeds_binomial_beta", seeds("beta"), ("beta", "lam")),
        ("bacteria_binomial_normal", bacteria, ("beta", "sigma_u")),
        ("epilepsy_negbin_normal", lambda data: epilepsy("normal", data), ("beta", "alpha", "sigma_u")),
        (
            "epilepsy_negbin_t10_independent",
            lambda data: epilepsy("independent t", data),
            ("beta", "alpha", "sigma_u"),
        ),
        (
            "epilepsy_negbin_t10_multivariate",
            lambda data: epilepsy("multivariate t", data),
            ("beta", "alpha", "sigma_u"),
        ),
    ],
)
def test_against_quadrature(case, build, names, shared, reference):
    settings = hlik.MCEM(sampler="importance")
    found = hlik.fit(build(shared / "data"), settings, progressbar=False, random_seed=1)
    assert found.fit.attrs["status"] == "converged"
    check(found, reference("truth/exact_quadrature")[case], names)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["importance", pytest.param("nutpie", marks=needs_nutpie)])
def test_salamander(sampler, shared, reference):
    """Six blocks of twenty effects; the exact values have Monte Carlo errors of 0.0004 at the most."""
    model = salamander.build(salamander.load(shared / "data" / "salamander_mcemGLM.csv"))
    found = hlik.fit(model, hlik.MCEM(sampler=sampler), progressbar=False, random_seed=1)
    record = reference("truth/salamander_exact")
    assert found.fit.attrs["status"] == "converged"
    sigma = {name: float(found.estimates[name]) for name in ("sigma_female", "sigma_male")}
    estimate = np.concatenate([found.estimates["beta"], [s**2 for s in sigma.values()]])
    error = np.concatenate(
        [found.monte_carlo_errors["beta"], [2 * s * float(found.monte_carlo_errors[n]) for n, s in sigma.items()]]
    )
    spread = np.concatenate(
        [found.standard_errors["beta"], [2 * s * float(found.standard_errors[n]) for n, s in sigma.items()]]
    )
    exact = np.array(record["estimates"])
    assert np.all(np.abs(estimate - exact) < 4 * error)
    assert np.all(error < 0.055 * np.array(record["se"]))
    # Louis' standard errors have Monte Carlo errors up to 5 %
    np.testing.assert_allclose(spread, record["se"], rtol=0.10)
