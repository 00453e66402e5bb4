"""Random effects with joint normal densities: what is read from the graph, against PyMC's own log densities."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp

from hlik.distributions import CAR, GMRF, SAR, Relationship
from hlik.errors import ModelError
from hlik.graph.numeric import Interpreter
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from tests.graph.problems import model_of

Q, N = 7, 20
rng = np.random.default_rng(7)
level = np.concatenate([np.arange(Q), rng.integers(0, Q, N - Q)])
x = rng.normal(size=N)
counts = rng.poisson(2.0, N)
place = np.linspace(0.0, 1.0, Q)
W = np.diag(np.ones(Q - 1, int), 1) + np.diag(np.ones(Q - 1, int), -1)
W[0, 3] = W[3, 0] = 1
K = np.exp(-np.abs(place[:, None] - place) / 0.4)


def sd(name="s"):
    return pm.HalfNormal(name)


def kernel():
    s, length = sd(), sd("length")
    return pm.MvNormal(
        "u", np.zeros(Q), cov=s**2 * pt.exp(-(((place[:, None] - place) / length) ** 2)) + 0.1 * np.eye(Q)
    )


def intercepts_and_slopes(**arguments):
    chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=pm.Exponential.dist(1.0, shape=2))
    u = pm.MvNormal("u", np.zeros(2), chol=chol, **(arguments or {"shape": (Q, 2)}))
    return u[level, 0] + u[level, 1] * x


def series(rho, size=None):
    return pm.AR("u", rho=rho, sigma=sd(), init_dist=pm.Normal.dist(0, 0.7), shape=(Q,) if size is None else size)


KINDS = {
    "cov": kernel,
    "tau": lambda: pm.MvNormal("u", np.zeros(Q), tau=sd() * np.eye(Q) + 0.2 * W + np.eye(Q)),
    "a matrix known but for its scale": lambda: pm.MvNormal("u", np.zeros(Q), cov=sd() * K),
    "chol": intercepts_and_slopes,
    "dims": lambda: intercepts_and_slopes(dims=("level", "effect")),
    "walk": lambda: pm.GaussianRandomWalk("u", sigma=sd(), init_dist=pm.Normal.dist(0, 2), shape=Q),
    "walks": lambda: pm.GaussianRandomWalk("u", sigma=sd(), init_dist=pm.Normal.dist(0, 2), shape=(3, Q))[1],
    "AR(1)": lambda: series(pm.Uniform("rho", -1, 1)),
    "AR(2)": lambda: series(pm.Normal("rho", shape=2)),
    "AR(1) series": lambda: series(pm.Uniform("rho", -1, 1), (2, Q))[1],
    "SAR": lambda: SAR("u", D=W, rho=pm.Uniform("rho", -0.3, 0.3), tau=sd()),
    "hlik's CAR": lambda: CAR("u", D=W, rho=pm.Uniform("rho", -0.3, 0.3), tau=sd()),
    "GMRF": lambda: GMRF("u", [sp.eye_array(Q), sp.csc_array(W @ W.T + 0.0)], [sd(), sd("t")]),
    "relatives": lambda: Relationship("u", sigma=sd(), A=K),
}


def build(term, family=pm.Poisson):
    def fill():
        own = term()
        eta = pm.Normal("b") + (own if own.type.shape == (N,) else own[level])
        pm.Poisson("y", pt.exp(eta), observed=counts)

    with pm.Model(coords={"level": np.arange(Q), "effect": ["intercept", "slope"]}) as model:
        fill()
    return model


def log_density(model, name, values):
    """PyMC's log density of a random effect at values of the value variables."""
    density = model.logp(vars=[model[name]], jacobian=False)
    inputs = [model.rvs_to_values[model[own]] for own in values]
    return float(Interpreter(inputs, [density])(*values.values())[0])


def some_values(read, seed=3):
    draws = np.random.default_rng(seed)
    theta = 0.4 * draws.normal(size=read.n_theta)
    v = draws.normal(size=read.n_random)
    values = {p.name: theta[p.index].reshape(p.variable.unconstrained_shape) for p in read.dispersion_parameters}
    values |= {e.name: v[e.index].reshape(e.variable.shape) for e in read.random_effects}
    return theta, v, values


@pytest.mark.parametrize("name", KINDS)
def test_the_density_is_pymcs(name):
    model = build(KINDS[name])
    read = read_model(model)
    assert [e.name for e in read.random_effects] == ["u"]
    assert read.obstacles == read.laplace_obstacles == ()
    theta, v, values = some_values(read)
    own = HLikelihood(read).random_terms[0].value(v, theta)
    assert own == pytest.approx(log_density(model, "u", values), rel=1e-10)


def test_car_is_pymcs_but_for_its_constant():
    """PyMC leaves ``log|diag(W 1)| / 2 - n/2 log 2 pi`` out."""
    model = build(lambda: pm.CAR("u", np.zeros(Q), W, alpha=pm.Uniform("alpha", -1, 1), tau=sd()))
    read = read_model(model)
    theta, v, values = some_values(read)
    constant = 0.5 * np.log(W.sum(axis=0)).sum() - 0.5 * Q * np.log(2 * np.pi)
    own = HLikelihood(read).random_terms[0].value(v, theta)
    assert own == pytest.approx(log_density(model, "u", values) + constant, rel=1e-10)


def test_icar_is_pymcs_with_its_constant():
    """PyMC leaves ``-(n - 1) log sigma`` and constants out."""
    model = build(lambda: pm.ICAR("u", W, sigma=sd()))
    read = read_model(model)
    theta, v, values = some_values(read)
    laplacian = np.diag(W.sum(axis=0)) - W
    eigenvalues = np.linalg.eigvalsh(laplacian)[1:]
    constant = 0.5 * np.log(eigenvalues).sum() - 0.5 * (Q - 1) * np.log(2 * np.pi) + 0.5 * np.log(Q)
    own = HLikelihood(read).random_terms[0].value(v, theta)
    assert own == pytest.approx(log_density(model, "u", values) + constant - (Q - 1) * theta[0], rel=1e-9)


def test_icar_on_two_islands_has_one_rank_less():
    islands = W.copy()
    islands[3, 4] = islands[4, 3] = 0
    read = read_model(build(lambda: pm.ICAR("u", islands, sigma=sd())))
    precision = read.random_effects[0].precision
    at = [precision.at(np.array([log_sd])).logdet for log_sd in (0.0, 1.0)]
    assert at[0] - at[1] == pytest.approx(2.0 * (Q - 2))


def test_icar_of_many_areas_is_refused():
    many = sp.diags_array([np.ones(3000), np.ones(3000)], offsets=[-1, 1]).toarray().astype(int)

    def fill():
        u = pm.ICAR("u", many, sigma=sd())
        pm.Poisson("y", pt.exp(pm.Normal("b") + u), observed=np.ones(3001, int))

    with pytest.raises(ModelError, match=r"3001 areas.*pm\.CAR"):
        read_model(model_of(fill))


# ------------------------------------------------------------ means


MEANS = {
    "mean of a normal": lambda: pm.MvNormal("u", pm.Normal("m") * place, cov=sd() * K),
    "drift": lambda: pm.GaussianRandomWalk("u", pm.Normal("m"), sd(), init_dist=pm.Normal.dist(0, 1), shape=Q),
    "first mean": lambda: pm.GaussianRandomWalk("u", 0, sd(), init_dist=pm.Normal.dist(pm.Normal("m"), 1), shape=Q),
    "mean of a CAR": lambda: CAR("u", D=W, rho=0.1, tau=sd(), mu=pm.Normal("m") * place),
}


@pytest.mark.parametrize("name", MEANS)
def test_means_are_fixed_effects(name):
    model = build(MEANS[name])
    read = read_model(model)
    assert {p.name for p in read.fixed_effects} == {"b", "m"}
    expected = {"drift": np.arange(Q), "first mean": np.ones(Q)}.get(name, place)
    np.testing.assert_allclose(read.X[:, 1 if read.fixed_effects[1].name == "m" else 0], expected[level])
    theta, v, values = some_values(read)
    values |= {"m": np.array(0.6), "u": 0.6 * expected + v}
    own = HLikelihood(read).random_terms[0].value(v, theta)
    assert own == pytest.approx(log_density(model, "u", values), rel=1e-10)


def test_a_mean_that_is_not_linear_is_told():
    read = read_model(build(lambda: pm.MvNormal("u", pt.exp(pm.Normal("m")) * place, cov=sd() * K)))
    assert any("mean of random effect 'u' is not linear" in sentence for sentence in read.obstacles)
    assert any("'u' (MvNormal)" in sentence for sentence in read.laplace_obstacles)


# ------------------------------------------------------------ non-centred


def root():
    return pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=pm.Exponential.dist(1.0, shape=2))[0]


def slopes(u):
    return u[level, 0] + u[level, 1] * x


NON_CENTRED = {
    "z @ L.T": lambda L: slopes(pm.Normal("z", shape=(Q, 2)) @ L.T),
    "dot(L, z.T).T": lambda L: slopes(pt.dot(L, pm.Normal("z", shape=(Q, 2)).T).T),
    "(L @ z).T": lambda L: slopes((L @ pm.Normal("z", shape=(2, Q))).T),
    "a Deterministic": lambda L: slopes(pm.Deterministic("u", pm.Normal("z", shape=(Q, 2)) @ L.T)),
    "before the index": lambda L: ((pm.Normal("z", shape=(Q, 2)) @ L.T)[level] * np.column_stack([np.ones(N), x])).sum(
        1
    ),
    "half": lambda L: slopes(pm.Normal("z", 0, 0.5, shape=(Q, 2)) @ (2.0 * L).T),
}


def adjusted(model, theta):
    """p_v(h) at b = 0.3 and theta."""
    from hlik.adjusted_profile import Profile

    read = read_model(model)
    likelihood = HLikelihood(read)
    psi = np.concatenate([[0.3], theta])
    return Profile(likelihood).mode(psi, psi[:1], likelihood.start_v()).value


@pytest.mark.parametrize("name", NON_CENTRED)
def test_non_centred_effects_are_their_centred_selves(name):
    theta = np.array([0.2, -0.4, 0.1])
    centred, other = build(intercepts_and_slopes), build(lambda: NON_CENTRED[name](root()))
    read = read_model(other)
    assert read.obstacles == ()
    assert [e.name for e in read.random_effects] == ["z"]
    assert adjusted(other, theta) == pytest.approx(adjusted(centred, theta), abs=1e-9)


def test_a_dense_root_makes_one_block():
    L = np.linalg.cholesky(K)
    other = build(lambda: (sd() * L) @ pm.Normal("z", shape=Q))
    centred = build(lambda: pm.MvNormal("u", np.zeros(Q), cov=sd() ** 2 * K))
    assert adjusted(other, np.array([-0.3])) == pytest.approx(adjusted(centred, np.array([-0.3])), abs=1e-9)


SCALED = {
    "MvNormal": (
        lambda s: s * pm.MvNormal("u", np.zeros(Q), cov=K),
        lambda s: pm.MvNormal("u", np.zeros(Q), cov=s**2 * K),
    ),
    "ICAR": (lambda s: s * pm.ICAR("u", W), lambda s: pm.ICAR("u", W, sigma=s, zero_sum_stdev=0.001)),
    "CAR": (lambda s: s * CAR("u", D=W, rho=0.2, tau=1.0), lambda s: CAR("u", D=W, rho=0.2, tau=s**2)),
}


@pytest.mark.parametrize("name", SCALED)
def test_known_densities_may_be_scaled(name):
    scaled, plain = (build(lambda term=term: term(sd())) for term in SCALED[name])
    read = read_model(scaled)
    assert read.random_effects[0].scale_map is not None
    theta = np.array([0.0 if name == "ICAR" else -0.3])  # the constraint of an ICAR is scaled with it
    assert adjusted(scaled, theta) == pytest.approx(adjusted(plain, theta), abs=1e-9)


def test_two_roots_are_loadings():
    def term():
        L, M, z = root(), sd("m"), pm.Normal("z", shape=(Q, 2))
        return slopes(z @ L.T) + (z @ (M * L).T)[level, 0]

    read = read_model(build(term))
    assert any("'z' is multiplied by" in sentence for sentence in read.obstacles)
