"""The same model written in different ways reads the same: links, responses, fixed effects, offsets."""

import numpy as np
import pymc as pm
import pytensor.sparse as ps
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp

from hlik.graph.read import read_model
from tests.graph.problems import (
    GROUPS,
    X,
    Z,
    assert_same_reading,
    binary,
    counts,
    eta,
    exposure,
    group,
    model_of,
    poisson,
    positive,
    read,
    real,
    x,
)

COORDS = {"coef": ["one", "x", "other"], "group": [f"g{k}" for k in range(GROUPS)], "obs": np.arange(x.size)}


def bernoulli(**probability):
    pm.Bernoulli("y", **probability, observed=binary)


def offset(combine):
    return lambda: poisson(combine(eta()))


def gaussian(**scale):
    pm.Normal("y", eta(), **{key: make(pm.HalfNormal("s", 1)) for key, make in scale.items()}, observed=real)


def gamma(link, parameters):
    def build():
        mean, alpha = link(eta()), pm.HalfNormal("alpha", 1)
        pm.Gamma("y", **parameters(mean, alpha), observed=positive)

    return build


def wald(parameters):
    def build():
        mean, lam = pt.exp(eta()), pm.HalfNormal("lam", 1)
        pm.Wald("y", **parameters(mean, lam), observed=positive)

    return build


def fixed(term, shape=3):
    def build():
        beta, sigma = pm.Normal("beta", 0, 5, shape=shape), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=GROUPS)
        poisson(pt.exp(term(beta) + u[group]))

    return build


def scalars():
    b0, b1, b2 = (pm.Normal(f"b{k}", 0, 5) for k in range(3))
    sigma = pm.HalfNormal("sigma", 1)
    u = pm.Normal("u", 0, sigma, shape=GROUPS)
    return b0, b1, b2, u


def scalars_times_columns():
    b0, b1, b2, u = scalars()
    poisson(pt.exp(b0 + b1 * x + b2 * X[:, 2] + u[group]))


def scalars_stacked():
    b0, b1, b2, u = scalars()
    poisson(pt.exp(X @ pt.stack([b0, b1, b2]) + u[group]))


def with_dims():
    model = pm.modelcontext(None)
    model.add_coords(COORDS)
    beta, sigma = pm.Normal("beta", 0, 5, dims="coef"), pm.HalfNormal("sigma", 1)
    u = pm.Normal("u", 0, sigma, dims="group")
    pm.Poisson("y", pt.exp(X @ beta + u[group]), observed=counts, dims="obs")


def with_containers():
    model = pm.modelcontext(None)
    model.add_coords(COORDS)
    design, index = pm.Data("X", X, dims=("obs", "coef")), pm.Data("index", group, dims="obs")
    beta, sigma = pm.Normal("beta", 0, 5, dims="coef"), pm.HalfNormal("sigma", 1)
    u = pm.Normal("u", 0, sigma, dims="group")
    predictor = pm.Deterministic("eta", pm.math.dot(design, beta) + u[index], dims="obs")
    pm.Poisson("y", pm.Deterministic("mu", pt.exp(predictor)), observed=pm.Data("counts", counts), dims="obs")


PAIRS = {
    "offset: product": (offset(lambda e: pt.exp(np.log(exposure) + e)), offset(lambda e: exposure * pt.exp(e))),
    "offset: quotient": (offset(lambda e: pt.exp(np.log(exposure) + e)), offset(lambda e: pt.exp(e) / (1 / exposure))),
    "offset: container": (
        offset(lambda e: pt.exp(np.log(exposure) + e)),
        offset(lambda e: pt.exp(pt.log(pm.Data("exposure", exposure)) + e)),
    ),
    "logit: invlogit": (lambda: bernoulli(logit_p=eta()), lambda: bernoulli(p=pm.math.invlogit(eta()))),
    "logit: 1/(1 + exp)": (lambda: bernoulli(logit_p=eta()), lambda: bernoulli(p=1 / (1 + pt.exp(-eta())))),
    "logit: exp/(1 + exp)": (
        lambda: bernoulli(logit_p=eta()),
        lambda: bernoulli(p=pt.exp(e := eta()) / (1 + pt.exp(e))),
    ),
    "logit: tanh": (lambda: bernoulli(logit_p=eta()), lambda: bernoulli(p=0.5 * (1 + pt.tanh(eta() / 2)))),
    "logit: clipped far out": (
        lambda: bernoulli(logit_p=eta()),
        lambda: bernoulli(p=pm.math.clip(pm.math.invlogit(eta()), 1e-6, 1 - 1e-6)),
    ),
    "probit: erf": (
        lambda: bernoulli(p=pm.math.invprobit(eta())),
        lambda: bernoulli(p=0.5 * (1 + pt.erf(eta() / np.sqrt(2)))),
    ),
    "probit: erfc": (
        lambda: bernoulli(p=pm.math.invprobit(eta())),
        lambda: bernoulli(p=0.5 * pt.erfc(-eta() / pt.sqrt(2.0))),
    ),
    "cloglog: expm1": (
        lambda: bernoulli(p=1 - pt.exp(-pt.exp(eta()))),
        lambda: bernoulli(p=-pt.expm1(-pt.exp(eta()))),
    ),
    "cloglog: math": (
        lambda: bernoulli(p=1 - pt.exp(-pt.exp(eta()))),
        lambda: bernoulli(p=1 - pm.math.exp(-pm.math.exp(eta()))),
    ),
    "gaussian: tau": (lambda: gaussian(sigma=lambda s: s), lambda: gaussian(tau=lambda s: 1 / s**2)),
    "gaussian: variance": (lambda: gaussian(sigma=lambda s: s), lambda: gaussian(sigma=lambda s: pt.sqrt(s**2))),
    "gamma: alpha and beta": (
        gamma(pt.exp, lambda mu, a: {"mu": mu, "sigma": mu / pt.sqrt(a)}),
        gamma(pt.exp, lambda mu, a: {"alpha": a, "beta": a / mu}),
    ),
    "gamma: inverse link": (
        gamma(pt.reciprocal, lambda mu, a: {"mu": mu, "sigma": mu / pt.sqrt(a)}),
        gamma(pt.reciprocal, lambda mu, a: {"alpha": a, "beta": a / mu}),
    ),
    "gamma: identity link": (
        gamma(lambda e: e, lambda mu, a: {"mu": mu, "sigma": mu / pt.sqrt(a)}),
        gamma(lambda e: e, lambda mu, a: {"alpha": a, "beta": a / mu}),
    ),
    "wald: mu and phi": (
        wald(lambda mu, lam: {"mu": mu, "lam": lam}),
        wald(lambda mu, lam: {"mu": mu, "phi": lam / mu}),
    ),
    "wald: lam and phi": (
        wald(lambda mu, lam: {"mu": mu, "lam": lam}),
        wald(lambda mu, lam: {"lam": lam, "phi": lam / mu}),
    ),
    "fixed: dot": (fixed(lambda b: X @ b), fixed(lambda b: pt.dot(X, b))),
    "fixed: math.dot": (fixed(lambda b: X @ b), fixed(lambda b: pm.math.dot(X, b))),
    "fixed: sum": (fixed(lambda b: X @ b), fixed(lambda b: (X * b).sum(axis=1))),
    "fixed: column": (fixed(lambda b: X @ b), fixed(lambda b: (X @ b)[:, 0], shape=(3, 1))),
    "fixed: sparse": (fixed(lambda b: X @ b), fixed(lambda b: ps.dot(ps.as_sparse_variable(sp.csr_matrix(X)), b))),
    "fixed: elements": (fixed(lambda b: X @ b), fixed(lambda b: b[0] + b[1] * x + b[2] * X[:, 2])),
    "fixed: stacked scalars": (scalars_times_columns, scalars_stacked),
    "fixed: index": (
        fixed(lambda b: b[group], GROUPS),
        fixed(lambda b: Z @ b, GROUPS),
    ),
    "fixed: baseline by concatenation": (
        fixed(lambda b: Z[:, 1:] @ b, GROUPS - 1),
        fixed(lambda b: pm.math.concatenate([[0.0], b])[group], GROUPS - 1),
    ),
    "fixed: baseline by set_subtensor": (
        fixed(lambda b: Z[:, 1:] @ b, GROUPS - 1),
        fixed(lambda b: pt.set_subtensor(pt.zeros(GROUPS)[1:], b)[group], GROUPS - 1),
    ),
    "fixed: sum to zero": (
        fixed(lambda b: (Z[:, :-1] - Z[:, -1:]) @ b, GROUPS - 1),
        fixed(lambda b: pt.concatenate([b, -b.sum(keepdims=True)])[group], GROUPS - 1),
    ),
    "dims and coords": (offset(pt.exp), with_dims),
    "containers and Deterministics": (offset(pt.exp), with_containers),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_ways_of_writing_a_model_read_the_same(name):
    one, other = PAIRS[name]
    assert_same_reading(read(other), read(one))


def test_shared_containers_may_change():
    model = model_of(with_containers)
    before = read_model(model)
    model["X"].set_value(2 * X)
    model["index"].set_value(group[::-1].astype(model["index"].dtype))  # PyMC keeps whole numbers as int32
    after = read_model(model)
    np.testing.assert_array_equal(after.X, 2 * before.X)
    np.testing.assert_array_equal(after.Z.toarray(), before.Z.toarray()[::-1])
