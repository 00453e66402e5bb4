"""Models for the tests of refusals: small, of every family, with data that can be spoilt."""

import sys

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import hlik

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


def forbid_work(monkeypatch):
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


def fit(model, **arguments):
    return hlik.fit(model, progressbar=False, **arguments)
