"""The same model written in different ways reads the same: X, Z, offset, links, families, dispersions."""

import numpy as np
import pymc as pm
import pytensor.sparse as ps
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp

import hlik
from tests.graph.problems import (
    GROUPS,
    X,
    Z,
    assert_same_reading,
    binary,
    counts,
    exposure,
    group,
    model_of,
    positive,
    read,
    real,
    region,
    successes,
    trials,
    w,
    x,
)

COLUMN = ps.as_sparse_variable(sp.csr_matrix(Z))
COORDS = {"coef": ["one", "x", "other"], "group": [f"g{k}" for k in range(GROUPS)], "obs": np.arange(x.size)}


def beta_and_sigma():
    return pm.Normal("beta", 0, 5, shape=3), pm.HalfNormal("sigma", 1)


def normal_effect():
    beta, sigma = beta_and_sigma()
    return beta, sigma, pm.Normal("u", 0, sigma, shape=GROUPS)


def eta():
    beta, _, u = normal_effect()
    return X @ beta + u[group]


def poisson(mean):
    pm.Poisson("y", mean, observed=counts)


def bernoulli(**probability):
    pm.Bernoulli("y", **probability, observed=binary)


# ---------------------------------------------------------------- Poisson: effects, offsets


def gamma_poisson(make, combine):
    def build():
        beta, lam = pm.Normal("beta", 0, 5, shape=3), pm.HalfNormal("lam", 1)
        poisson(combine(X @ beta, make(lam)))

    return build


def gamma_shape_rate(lam):
    return pm.Gamma("u", 1 / lam, 1 / lam, shape=GROUPS)


def gamma_mean_sigma(lam):
    return pm.Gamma("u", mu=1, sigma=pt.sqrt(lam), shape=GROUPS)


def multiplied(eta, u):
    return pt.exp(eta) * u[group]


def inside(eta, u):
    return pt.exp(eta + pt.log(u)[group])


def of_indexed(eta, u):
    return pt.exp(eta + pt.log(u[group]))


def divided(eta, u):
    return u[group] / pt.exp(-eta)


def offset(combine):
    return lambda: poisson(combine(eta()))


# ---------------------------------------------------------------- non-centred effects


def non_centred(term):
    def build():
        beta, sigma = beta_and_sigma()
        z = pm.Normal("u", 0, 1, shape=GROUPS)
        poisson(pt.exp(X @ beta + term(sigma, z)))

    return build


def centred_slopes():
    beta, _, u = normal_effect()
    poisson(pt.exp(X @ beta + u[group] * x))


def by_arm(non_centred):
    arm = np.array([0, 1, 0, 1, 1, 0])

    def build():
        beta, sigma = pm.Normal("beta", 0, 5, shape=3), pm.HalfNormal("sigma", 1, shape=2)
        u = non_centred(sigma, arm) if non_centred else pm.Normal("u", 0, sigma[arm], shape=GROUPS)[group]
        poisson(pt.exp(X @ beta + u))

    return build


def two_columns(effects):
    def build():
        beta, sigma = pm.Normal("beta", 0, 5, shape=3), pm.HalfNormal("sigma", 1, shape=2)
        poisson(pt.exp(X @ beta + effects(sigma)))

    return build


def slopes_centred(sigma):
    u = pm.Normal("u", 0, sigma, shape=(GROUPS, 2))
    return (u[group] * X[:, :2]).sum(axis=-1)


# ---------------------------------------------------------------- responses


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


def binomial(beta_effect, logit=pm.math.logit):
    def build():
        beta, lam = pm.Normal("beta", 0, 5, shape=3), pm.HalfNormal("lam", 1)
        u = pm.Beta("u", **beta_effect(lam), shape=GROUPS)
        pm.Binomial("y", n=trials, logit_p=X @ beta + logit(u)[group], observed=successes)

    return build


def inverse_gamma(effect):
    def build():
        beta, lam, alpha = pm.Normal("beta", 0, 5, shape=3), pm.HalfNormal("lam", 1), pm.HalfNormal("alpha", 1)
        u = pm.InverseGamma("u", **effect(lam), shape=GROUPS, default_transform=None, transform=hlik.reciprocal)
        mean = 1 / (X @ beta + (1 / u)[group])
        pm.Gamma("y", alpha=alpha, beta=alpha / mean, observed=positive)

    return build


# ---------------------------------------------------------------- fixed effects


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


def random_part(term):
    def build():
        beta, _, u = normal_effect()
        poisson(pt.exp(X @ beta + term(u)))

    return build


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


# ---------------------------------------------------------------- means of effects


def nested(region_effect):
    """Two levels: regions around zero, groups around their region."""

    def build():
        beta, s_region, s = pm.Normal("beta", 0, 5), pm.HalfNormal("s_region", 1), pm.HalfNormal("s", 1)
        residual = pm.HalfNormal("residual", 1)
        region_effect(beta, s_region, s, residual)

    return build


def centred_levels(beta, s_region, s, residual):
    ur = pm.Normal("ur", 0, s_region, shape=3)
    ug = pm.Normal("ug", ur[region], s, shape=GROUPS)
    pm.Normal("y", beta + ug[group], residual, observed=real)


def added_levels(beta, s_region, s, residual):
    ur, ug = pm.Normal("ur", 0, s_region, shape=3), pm.Normal("ug", 0, s, shape=GROUPS)
    pm.Normal("y", beta + ur[region[group]] + ug[group], residual, observed=real)


def mean_inside_regions(beta, s_region, s, residual):
    ur = pm.Normal("ur", beta, s_region, shape=3)
    ug = pm.Normal("ug", ur[region], s, shape=GROUPS)
    pm.Normal("y", ug[group], residual, observed=real)


def non_centred_levels(beta, s_region, s, residual):
    ur = beta + s_region * pm.Normal("ur", shape=3)
    ug = ur[region] + s * pm.Normal("ug", shape=GROUPS)
    pm.Normal("y", ug[group], residual, observed=real)


def location(effect):
    def build():
        mu, slope, s = pm.Normal("mu"), pm.Normal("slope"), pm.HalfNormal("s", 1)
        residual = pm.HalfNormal("residual", 1)
        pm.Normal("y", effect(mu, slope, s)[group], residual, observed=real)

    return build


PAIRS = {
    "gamma effect: product": (gamma_poisson(gamma_shape_rate, inside), gamma_poisson(gamma_shape_rate, multiplied)),
    "gamma effect: log of indexed": (
        gamma_poisson(gamma_shape_rate, inside),
        gamma_poisson(gamma_shape_rate, of_indexed),
    ),
    "gamma effect: quotient": (gamma_poisson(gamma_shape_rate, inside), gamma_poisson(gamma_shape_rate, divided)),
    "gamma effect: mean and sigma": (
        gamma_poisson(gamma_shape_rate, inside),
        gamma_poisson(gamma_mean_sigma, multiplied),
    ),
    "offset: product": (offset(lambda e: pt.exp(np.log(exposure) + e)), offset(lambda e: exposure * pt.exp(e))),
    "offset: quotient": (offset(lambda e: pt.exp(np.log(exposure) + e)), offset(lambda e: pt.exp(e) / (1 / exposure))),
    "offset: container": (
        offset(lambda e: pt.exp(np.log(exposure) + e)),
        offset(lambda e: pt.exp(pt.log(pm.Data("exposure", exposure)) + e)),
    ),
    "non-centred: scaled, then indexed": (offset(pt.exp), non_centred(lambda s, z: (s * z)[group])),
    "non-centred: indexed, then scaled": (offset(pt.exp), non_centred(lambda s, z: z[group] * s)),
    "non-centred: matrix of scaled": (offset(pt.exp), non_centred(lambda s, z: Z @ (s * z))),
    "non-centred: scaled matrix": (offset(pt.exp), non_centred(lambda s, z: s * (Z @ z))),
    "non-centred: sparse matrix": (offset(pt.exp), non_centred(lambda s, z: s * ps.dot(COLUMN, z))),
    "non-centred: by the root of a variance": (
        offset(pt.exp),
        non_centred(lambda s, z: (z * pt.sqrt(s**2))[group]),
    ),
    "non-centred: divided": (offset(pt.exp), non_centred(lambda s, z: (z / (1 / s))[group])),
    "non-centred: as a Deterministic": (
        offset(pt.exp),
        non_centred(lambda s, z: pm.Deterministic("scaled", s * z)[group]),
    ),
    "non-centred slopes": (centred_slopes, non_centred(lambda s, z: s * z[group] * x)),
    "non-centred slopes, data first": (centred_slopes, non_centred(lambda s, z: s * x * z[group])),
    "non-centred slopes, scaled first": (centred_slopes, non_centred(lambda s, z: x * (z * s)[group])),
    "non-centred: scale by level": (
        by_arm(None),
        by_arm(lambda s, arm: (s[arm] * pm.Normal("u", shape=GROUPS))[group]),
    ),
    "non-centred: scale by observation": (
        by_arm(None),
        by_arm(lambda s, arm: s[arm[group]] * pm.Normal("u", shape=GROUPS)[group]),
    ),
    "slopes: columns": (
        two_columns(slopes_centred),
        two_columns(lambda s: (u := pm.Normal("u", 0, s, shape=(GROUPS, 2)))[group, 0] + u[group, 1] * x),
    ),
    "slopes: einsum": (
        two_columns(slopes_centred),
        two_columns(lambda s: pt.einsum("ij,ij->i", X[:, :2], pm.Normal("u", 0, s, shape=(GROUPS, 2))[group])),
    ),
    "slopes: batched product": (
        two_columns(slopes_centred),
        two_columns(
            lambda s: pt.matmul(X[:, None, :2], pm.Normal("u", 0, s, shape=(GROUPS, 2))[group][:, :, None])[:, 0, 0]
        ),
    ),
    "slopes: non-centred": (
        two_columns(slopes_centred),
        two_columns(lambda s: ((s * pm.Normal("u", shape=(GROUPS, 2)))[group] * X[:, :2]).sum(axis=-1)),
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
    "beta effect: mean and nu": (
        binomial(lambda lam: {"alpha": 1 / (2 * lam), "beta": 1 / (2 * lam)}),
        binomial(lambda lam: {"mu": 0.5, "nu": 1 / lam}),
    ),
    "beta effect: log ratio": (
        binomial(lambda lam: {"alpha": 1 / (2 * lam), "beta": 1 / (2 * lam)}),
        binomial(lambda lam: {"alpha": 1 / (2 * lam), "beta": 1 / (2 * lam)}, lambda u: pt.log(u / (1 - u))),
    ),
    "inverse-gamma effect: mean and sigma": (
        inverse_gamma(lambda lam: {"alpha": 1 + 1 / lam, "beta": 1 / lam}),
        inverse_gamma(lambda lam: {"mu": 1, "sigma": pt.sqrt(lam / (1 - lam))}),
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
    "random: matrix": (random_part(lambda u: u[group]), random_part(lambda u: Z @ u)),
    "random: sparse dot": (random_part(lambda u: u[group]), random_part(lambda u: ps.dot(COLUMN, u))),
    "random: structured dot": (
        random_part(lambda u: u[group]),
        random_part(lambda u: ps.structured_dot(COLUMN, u[:, None]).flatten()),
    ),
    "random: sparse columns": (
        random_part(lambda u: u[group]),
        random_part(lambda u: ps.dot(ps.as_sparse_variable(sp.csc_matrix(Z)), u[:, None])[:, 0]),
    ),
    "dims and coords": (offset(pt.exp), with_dims),
    "containers and Deterministics": (offset(pt.exp), with_containers),
    "nested: centred": (nested(added_levels), nested(centred_levels)),
    "nested: mean inside": (nested(added_levels), nested(mean_inside_regions)),
    "nested: non-centred": (nested(added_levels), nested(non_centred_levels)),
    "mean of an effect": (
        location(lambda mu, slope, s: mu + slope * w + pm.Normal("u", 0, s, shape=GROUPS)),
        location(lambda mu, slope, s: pm.Normal("u", mu + slope * w, s, shape=GROUPS)),
    ),
    "mean of an effect, non-centred": (
        location(lambda mu, slope, s: mu + slope * w + pm.Normal("u", 0, s, shape=GROUPS)),
        location(lambda mu, slope, s: mu + slope * w + pm.Normal("u", shape=GROUPS) * s),
    ),
    "known mean of an effect": (
        location(lambda mu, slope, s: mu + slope * w + 3 * w + pm.Normal("u", 0, s, shape=GROUPS)),
        location(lambda mu, slope, s: mu + slope * w + pm.Normal("u", 3 * w, s, shape=GROUPS)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_ways_of_writing_a_model_read_the_same(name):
    one, other = PAIRS[name]
    assert_same_reading(read(other), read(one))


def test_shared_containers_may_change():
    model = model_of(with_containers)
    before = hlik.graph.read.read_model(model)
    pm.set_data({"X": 2 * X, "index": group[::-1].copy()}, model=model)
    after = hlik.graph.read.read_model(model)
    np.testing.assert_array_equal(after.X, 2 * before.X)
    np.testing.assert_array_equal(after.Z.toarray(), before.Z.toarray()[::-1])
