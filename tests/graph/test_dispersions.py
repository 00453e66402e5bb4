"""Dispersions as functions of theta: values, closed forms, Jacobians against differences."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik
from hlik.graph.graph_map import GraphMap
from hlik.maps import ConstantMap, LinkMap
from tests.graph.problems import GROUPS, N, X, counts, group, model_of, numeric_jacobian, positive, read, real, w, x


def gaussian(sigma):
    """A Gaussian model whose residual deviation is ``sigma()``."""

    def build():
        u = pm.Normal("u", 0, pm.HalfNormal("s_u"), shape=GROUPS)
        pm.Normal("y", X @ pm.Normal("beta", shape=3) + u[group], sigma(), observed=real)

    return build


def effect(deviation, shape=GROUPS, centred=True):
    """A Poisson model whose random effects have the deviation ``deviation()``."""

    def build():
        s = deviation()
        u = pm.Normal("u", 0, s, shape=shape) if centred else s * pm.Normal("u", shape=shape)
        pm.Poisson("y", pt.exp(pm.Normal("b") + u[group]), observed=counts)

    return build


def coefficients():
    return pm.Normal("g", 0, 1, shape=2)


def interval(theta, lower, upper):
    return lower + (upper - lower) / (1 + np.exp(-theta))


# name: sigma of the model, phi as a function of (s_u, the rest of theta), kind of map, values
RESIDUAL = {
    "one parameter": (lambda: pm.HalfNormal("s"), lambda t: np.exp(2 * t[:1]), LinkMap, 1),
    "known": (lambda: 0.7, lambda t: [0.49], ConstantMap, 1),
    "known, by row": (lambda: np.exp(x), lambda t: np.exp(2 * x), ConstantMap, N),
    "log-linear": (lambda: pt.exp(X[:, :2] @ coefficients()), lambda t: np.exp(2 * X[:, :2] @ t), LinkMap, N),
    "variance log-linear": (
        lambda: pt.sqrt(pt.exp(X[:, :2] @ coefficients())),
        lambda t: np.exp(X[:, :2] @ t),
        LinkMap,
        N,
    ),
    "variance linear": (
        lambda: pt.sqrt(3 + (g := coefficients())[0] + g[1] * x),
        lambda t: 3 + t[0] + t[1] * x,
        LinkMap,
        N,
    ),
    "variance inverse-linear": (
        lambda: 1 / pt.sqrt(3 + (g := coefficients())[0] + g[1] * x),
        lambda t: 1 / (3 + t[0] + t[1] * x),
        LinkMap,
        N,
    ),
    "positive coefficients": (
        lambda: pt.sqrt(pm.HalfNormal("g0") + pm.HalfNormal("g1") * x**2),
        lambda t: np.exp(t[0]) + np.exp(t[1]) * x**2,
        GraphMap,
        N,
    ),
    "by group": (lambda: pm.HalfNormal("s", shape=GROUPS)[group], lambda t: np.exp(2 * t[group]), LinkMap, N),
    "uniform prior": (lambda: pm.Uniform("s", 0.1, 5), lambda t: interval(t[:1], 0.1, 5) ** 2, GraphMap, 1),
    "free deviation": (lambda: pm.Flat("s"), lambda t: t[:1] ** 2, LinkMap, 1),
    "scaled by data": (
        lambda: pm.HalfNormal("s") / np.sqrt(1 + x**2),
        lambda t: np.exp(2 * t[0]) / (1 + x**2),
        LinkMap,
        N,
    ),
    "two parameters": (
        lambda: pt.sqrt(pm.HalfNormal("a") ** 2 + pm.HalfNormal("b") ** 2),
        lambda t: [np.exp(2 * t[0]) + np.exp(2 * t[1])],
        GraphMap,
        1,
    ),
}

EFFECT = {
    "by level": (
        lambda: pt.exp(pm.Normal("g0") + pm.Normal("g1") * w),
        lambda t: np.exp(2 * (t[0] + t[1] * w)),
        LinkMap,
    ),
    "by arm": (
        lambda: pm.HalfNormal("s", shape=2)[np.array([0, 1, 1, 0, 0, 1])],
        lambda t: np.exp(2 * t[[0, 1, 1, 0, 0, 1]]),
        LinkMap,
    ),
    "linear variance": (
        lambda: pt.sqrt(pm.HalfNormal("g0") + pm.HalfNormal("g1") * w**2),
        lambda t: np.exp(t[0]) + np.exp(t[1]) * w**2,
        GraphMap,
    ),
    "half-Cauchy": (lambda: pm.HalfCauchy("s", 1), lambda t: np.exp(2 * t[:1]), LinkMap),
    "product of scales": (
        lambda: pm.HalfNormal("tau") * pm.HalfCauchy("each", 1, shape=GROUPS),
        lambda t: np.exp(2 * (t[0] + t[1:])),
        LinkMap,
    ),
}


def check(found, expected, n_theta, kind):
    assert isinstance(found, kind)
    rng = np.random.default_rng(2)
    for _ in range(3):
        theta = 0.3 * rng.normal(size=n_theta)
        np.testing.assert_allclose(found.value(theta), expected(theta), rtol=1e-12)
        jacobian = found.jacobian(theta)
        assert jacobian.shape == (found.size, n_theta)
        np.testing.assert_allclose(jacobian, numeric_jacobian(found.value, theta), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_dispersion(name):
    sigma, expected, kind, size = RESIDUAL[name]
    model = read(gaussian(sigma))
    assert not model.obstacles
    found = model.responses[0].dispersion
    assert found.size == size
    own = np.flatnonzero([p.name == "s_u" for p in model.dispersion_parameters])
    check(found, lambda theta: expected(np.delete(theta, own)), model.n_theta, kind)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", EFFECT)
def test_random_effect_dispersion(name, centred):
    deviation, expected, kind = EFFECT[name]
    model = read(effect(deviation, centred=centred))
    assert not model.obstacles
    (term,) = model.random_effects
    check(term.dispersion, expected, model.n_theta, kind)
    if not centred:
        check(term.scale_map, lambda theta: np.sqrt(expected(theta)), model.n_theta, (LinkMap, GraphMap))


def test_dispersions_have_the_shape_of_their_effects():
    def build():
        s = pm.HalfNormal("s", shape=2)
        u = pm.Normal("u", 0, s, shape=(GROUPS, 2))
        pm.Poisson("y", pt.exp((u[group] * X[:, :2]).sum(axis=-1)), observed=counts)

    (term,) = read(build).random_effects
    np.testing.assert_allclose(term.dispersion.value(np.array([0.1, 0.2])), np.tile(np.exp([0.2, 0.4]), GROUPS))
    assert term.size == term.dispersion.size


def test_terms_may_share_one_component():
    def build():
        s = pm.HalfNormal("s")
        u, v = pm.Normal("u", 0, s, shape=GROUPS), pm.Normal("v", 0, s, shape=3)
        pm.Poisson("y", pt.exp(u[group] + v[np.arange(N) % 3]), observed=counts)

    model = read(build)
    assert model.n_theta == 1
    values = [term.dispersion.value(np.array([0.3])) for term in model.random_effects]
    np.testing.assert_allclose(values, np.exp(0.6))


@pytest.mark.parametrize("centred", [True, False])
def test_heritability(centred):
    """s2 and h2: genetic variance s2 h2, residual variance s2 (1 - h2)."""

    def build():
        s2, h2 = pm.HalfNormal("s2"), pm.Beta("h2", 1, 1)
        genetic = pt.sqrt(s2 * h2)
        u = pm.Normal("u", 0, genetic, shape=GROUPS) if centred else genetic * pm.Normal("u", shape=GROUPS)
        pm.Normal("y", X @ pm.Normal("beta", shape=3) + u[group], pt.sqrt(s2 * (1 - h2)), observed=real)

    model = read(build)
    assert not model.obstacles

    def parts(theta):
        return np.exp(theta[0]), 1 / (1 + np.exp(-theta[1]))

    check(model.random_effects[0].dispersion, lambda t: [np.prod(parts(t))], 2, GraphMap)
    check(model.responses[0].dispersion, lambda t: [parts(t)[0] * (1 - parts(t)[1])], 2, GraphMap)
    s2, h2 = model.dispersion_parameters
    check(s2.natural, lambda t: parts(t)[:1], 2, LinkMap)
    check(h2.natural, lambda t: parts(t)[1:], 2, LinkMap)


@pytest.mark.parametrize(
    ("prior", "natural"),
    [
        (lambda: pm.HalfNormal("s"), np.exp),
        (lambda: pm.Uniform("s", 1, 3), lambda t: interval(t, 1, 3)),
        (lambda: pm.Beta("s", 2, 2), lambda t: 1 / (1 + np.exp(-t))),
        (lambda: pm.TruncatedNormal("s", 1, 1, lower=0.5), lambda t: 0.5 + np.exp(t)),
        (lambda: pm.HalfFlat("s"), np.exp),
        (lambda: pm.Gamma("s", 2, 1), np.exp),
    ],
)
def test_parameters_on_their_natural_scale(prior, natural):
    model = read(gaussian(prior))
    parameter = next(p for p in model.dispersion_parameters if p.name == "s")
    theta = np.zeros(model.n_theta)
    for value in (-0.4, 0.9):
        theta[parameter.index] = value
        np.testing.assert_allclose(parameter.natural.value(theta), natural(np.array([value])), rtol=1e-12)
        expected = numeric_jacobian(parameter.natural.value, theta)
        np.testing.assert_allclose(parameter.natural.jacobian(theta), expected, rtol=1e-6, atol=1e-9)


def test_prior_weights_do_not_enter_the_map():
    model = read(gaussian(lambda: pm.HalfNormal("s")), weights={"y": np.linspace(1, 2, N)})
    assert model.responses[0].dispersion.size == 1
    np.testing.assert_array_equal(model.responses[0].weight, np.linspace(1, 2, N))


@pytest.mark.parametrize("sigma", [lambda m: pt.exp(m), lambda m: 0.1 * pt.abs(m), lambda m: pt.sqrt(pt.exp(m))])
def test_a_dispersion_that_depends_on_the_mean_is_an_obstacle_with_names(sigma):
    def build():
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        mean = pm.Normal("b") + u[group]
        pm.Normal("y", mean, sigma(mean), observed=real)

    (obstacle,) = read(build).obstacles
    assert "dispersion of 'y' (sigma**2) depends on 'b' and 'u', as its mean does" in obstacle


def with_effects_in_sigma(sigma):
    def build():
        v = pm.Normal("v", 0, pm.HalfNormal("s"), shape=GROUPS)
        pm.Normal("y", pm.Normal("b") * x, sigma(v[group]), observed=real)

    return read(build)


def test_a_linear_predictor_with_random_effects_in_a_dispersion_is_read():
    model = with_effects_in_sigma(lambda v: 2 * pt.exp(0.3 * x + v))
    assert not model.obstacles
    (predictor,) = model.double.predictors
    assert (predictor.link.name, model.double.below) == ("log", {"v", "s"})
    np.testing.assert_allclose(model.double.offset[predictor.rows], 2 * np.log(2) + 0.6 * x, rtol=1e-12)
    np.testing.assert_allclose(model.double.Z[predictor.rows].toarray(), 2 * np.eye(GROUPS)[group])


def test_a_random_effect_in_another_function_is_an_obstacle_with_its_name():
    model = with_effects_in_sigma(lambda v: 0.1 + pt.exp(v))
    assert model.double is None
    (obstacle,) = model.obstacles
    assert "depends on random effect 'v'" in obstacle


def test_gamma_with_a_fixed_sigma_has_no_dispersion_of_its_own():
    def build():
        mean = pt.exp(pm.Normal("b") + pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)[group])
        pm.Gamma("y", mu=mean, sigma=pm.HalfNormal("sigma"), observed=positive)

    (obstacle,) = read(build).obstacles
    assert "dispersion of 'y' (1/alpha) depends on 'b' and 'u'" in obstacle


@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
def test_fits_through_a_graph_map_agree_with_the_closed_form():
    """The heritability parametrisation has the same maximum as two standard deviations."""

    def plain():
        s_u, s = pm.HalfNormal("s_u"), pm.HalfNormal("s")
        u = pm.Normal("u", 0, s_u, shape=GROUPS)
        pm.Normal("y", pm.Normal("b") + u[group], s, observed=real + 2 * w[group])

    def shares():
        s2, h2 = pm.HalfNormal("s2"), pm.Beta("h2", 1, 1)
        u = pm.Normal("u", 0, pt.sqrt(s2 * h2), shape=GROUPS)
        pm.Normal("y", pm.Normal("b") + u[group], pt.sqrt(s2 * (1 - h2)), observed=real + 2 * w[group])

    one = hlik.fit(model_of(plain), progressbar=False, draws=0).estimates
    other = hlik.fit(model_of(shares), progressbar=False, draws=0).estimates
    s2, h2 = float(other["s2"]), float(other["h2"])
    np.testing.assert_allclose([s2 * h2, s2 * (1 - h2)], [one["s_u"] ** 2, one["s"] ** 2], rtol=1e-5)
