"""Likelihoods without closed form: tapes against PyMC's own log density, derivatives against differences."""

from functools import cache

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

import hlik
from hlik.graph import forms as fm
from hlik.graph.elements import CannotLift
from hlik.graph.tapes import lift_random_effect, lift_response
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.tape import TapeTerm
from tests.likelihoods import GROUP, GROUPS, KINDS, REAL, N

STEP = 1e-3


class Case:
    """A lifted term at random values of the model's variables."""

    def __init__(self, model, lifted, walker, effects, known=("beta",)):
        rng = np.random.default_rng(4)
        start = model.initial_point()
        self.model = model
        self.values = {rv.name: np.asarray(start[model.rvs_to_values[rv].name], float) for rv in model.free_RVs}
        self.values = {name: x + 0.1 * rng.normal(size=x.shape) for name, x in self.values.items()}
        names = [name for name in self.values if name not in (*effects, *known)]
        self.term: TapeTerm = lifted.term(walker, ThetaLayout.of(walker, names), 0)
        self.eta = np.concatenate([fm.evaluate(p, self.values).ravel() for p in lifted.lifted.predictors])
        self.theta = np.concatenate([np.zeros(0), *(self.values[name].ravel() for name in names)])
        self.K, self.n = self.term.n_predictors, self.term.n
        self.kappa = rng.normal(size=(self.K * (self.K + 1) // 2, self.n))
        self.c = rng.normal(size=self.K * self.n)

    def moved(self, k, step):
        """eta with predictor k of every observation moved: observations do not touch each other."""
        return self.eta + step * np.repeat(np.arange(self.K) == k, self.n)


@cache
def case(name):
    kind = KINDS[name]
    model = kind.build()
    walker = Walker(model)
    return Case(model, lift_response(walker, model["y"], kind.effects.__contains__), walker, kind.effects)


def difference(f, step=STEP):
    """Central difference of fourth order of f(step), at 0."""
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def pymc_value(model, variables, values):
    inputs = [model.rvs_to_values[rv] for rv in model.free_RVs]
    with pytensor.config.change_flags(cxx=""):  # runs once: compiling C would take seconds
        density = pytensor.function(
            inputs, model.logp(variables, sum=True), mode="FAST_COMPILE", on_unused_input="ignore"
        )
    return float(density(*(values[rv.name] for rv in model.free_RVs)))


@pytest.mark.parametrize("name", KINDS)
def test_log_density_is_pymcs(name):
    """To eight digits: PyMC takes the square root of two and other constants in single precision, hlik does not."""
    found = case(name)
    rtol = 1e-8
    expected = pymc_value(found.model, [found.model["y"]], found.values)
    np.testing.assert_allclose(found.term.value(found.eta, found.theta), expected, rtol=rtol)
    assert found.term.local(found.eta, found.theta).value == pytest.approx(expected, rel=rtol)


def test_truncated_normal_against_scipy():
    """PyMC takes the square root of two in single precision, which is all the error there is."""
    found = case("truncated")
    y, mu, sigma = np.abs(REAL), found.eta, np.exp(found.values["alpha"])
    expected = stats.norm.logpdf(y, mu, sigma) - stats.norm.logsf(-1, mu, sigma)
    np.testing.assert_allclose(found.term.value(found.eta, found.theta), expected.sum(), rtol=1e-7)


@pytest.mark.parametrize("name", KINDS)
def test_a_mean_written_once_is_one_predictor(name):
    assert case(name).K == KINDS[name].n_predictors


@pytest.mark.parametrize("name", KINDS)
def test_score_and_weights(name):
    """First and second derivatives in the predictors, of every observation, pairs of predictors included."""
    found = case(name)
    term, theta = found.term, found.theta
    local = term.local(found.eta, theta)
    order = term._pairs()
    for k in range(found.K):
        jet = difference(lambda h, k=k: np.broadcast_to(term.run(found.moved(k, h), theta, 0, False)[()], (found.n,)))
        np.testing.assert_allclose(local.score[k], jet, rtol=1e-8, atol=1e-8)
        slopes = difference(lambda h, k=k: term.local(found.moved(k, h), theta).score)
        for other in range(found.K):
            weight = local.weight[order.index(tuple(sorted((k, other))))]
            np.testing.assert_allclose(-weight, slopes[other], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", KINDS)
def test_third_derivatives(name):
    """The slopes of -1/2 sum kappa W in the predictors, of every observation."""
    found = case(name)
    slope, _ = found.term.curvature_slopes(found.eta, found.theta, found.kappa)
    for k in range(found.K):

        def curvature(h, k=k):
            return -0.5 * (found.kappa * found.term.local(found.moved(k, h), found.theta).weight).sum(axis=0)

        np.testing.assert_allclose(slope[k], difference(curvature), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", KINDS)
def test_derivatives_by_theta(name):
    """Of log density, score and curvature: sums over observations, to 1e-8 of their size."""
    found = case(name)
    term, eta, theta = found.term, found.eta, found.theta
    _, curvature_slope = term.curvature_slopes(eta, theta, found.kappa)
    score = term.theta_score(eta, theta, found.c)
    for r in range(theta.size):

        def at(h, r=r):
            return term.local(eta, theta + h * (np.arange(theta.size) == r))

        by_curvature = difference(lambda h, at=at: -0.5 * np.sum(found.kappa * at(h).weight))
        by_score = difference(lambda h, at=at: at(h).value + found.c @ at(h).score.ravel())
        np.testing.assert_allclose(curvature_slope[r], by_curvature, rtol=1e-8, atol=1e-7)
        np.testing.assert_allclose(score[r], by_score, rtol=1e-8, atol=1e-7)


EFFECTS = {
    "student_t": lambda s: pm.StudentT("u", nu=4, sigma=s, shape=GROUPS),
    "student_t_unknown": lambda s: pm.StudentT("u", nu=pm.Gamma("nu", 2, 0.1), sigma=s, shape=GROUPS),
    "laplace": lambda s: pm.Logistic("u", 0, s, shape=GROUPS),
    "weibull_on_log_scale": lambda s: pm.Weibull("u", 2.0, s, shape=GROUPS),
    "normal_mixture": lambda s: pm.NormalMixture("u", [0.4, 0.6], [-1.0, 0.5], sigma=pt.stack([s, s]), shape=GROUPS),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_densities_of_random_effects(name):
    """On the scale of the value variable, Jacobian included."""
    with pm.Model() as model:
        u = EFFECTS[name](pm.HalfNormal("sigma"))
        pm.Poisson("y", pt.exp(u[GROUP]), observed=np.ones(N, dtype=int))
    walker = Walker(model)
    lifted = lift_random_effect(walker, model["u"], {"u"}.__contains__)
    found = Case(model, lifted, walker, ("u",))
    expected = pymc_value(model, [model["u"]], found.values)
    np.testing.assert_allclose(found.term.value(found.eta, found.theta), expected, rtol=1e-8)
    assert found.n == GROUPS
    slopes = difference(lambda h: found.term.local(found.moved(0, h), found.theta).score[0])
    np.testing.assert_allclose(-found.term.local(found.eta, found.theta).weight[0], slopes, rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- what cannot be lifted


def by_scan(u):
    mu = pytensor.scan(lambda step, last: 0.5 * last + step, [u[GROUP]], [pt.zeros(())], return_updates=False)
    return pm.Normal("y", mu, 1.0, observed=REAL)


def by_solve(u):
    matrix = pt.eye(GROUPS) + u[:, None] * u[None, :]
    return pm.Normal("y", pt.linalg.solve(matrix, u)[GROUP], 1.0, observed=REAL)


def autoregression(u):
    start = pm.Normal.dist(0, 1, shape=2)
    return pm.AR("y", rho=[0.3, 0.2], init_dist=start, sigma=pt.exp(u[0]), observed=REAL)


UNLIFTABLE = {"Scan": by_scan, "Solve": by_solve, "Sum.* over 58 elements": autoregression}


@pytest.mark.parametrize("operation", UNLIFTABLE)
def test_what_is_not_elementwise_is_named(operation):
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        UNLIFTABLE[operation](u)
    with pytest.raises(CannotLift, match=operation):
        lift_response(Walker(model), model["y"], {"u"}.__contains__)
    with pytest.raises(hlik.ModelError, match=rf"(?s)'y'.*{operation}"):
        hlik.fit(model, hlik.Laplace(), progressbar=False)
