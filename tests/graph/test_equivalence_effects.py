"""The same model written in different ways reads the same: random effects, centred or not, nested, with means."""

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
    beta_and_sigma,
    eta,
    group,
    normal_effect,
    poisson,
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


def gamma(link, parameters):
    def build():
        mean, alpha = link(eta()), pm.HalfNormal("alpha", 1)
        pm.Gamma("y", **parameters(mean, alpha), observed=positive)

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


def random_part(term):
    def build():
        beta, _, u = normal_effect()
        poisson(pt.exp(X @ beta + term(u)))

    return build


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
