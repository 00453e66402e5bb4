"""CAR, SAR, GMRF and Relationship as PyMC distributions: density, gradient, draws, dims, arguments."""

import pickle

import numpy as np
import pymc as pm
import pytest
import scipy.sparse as sp
from pymc.logprob.utils import ParameterValueError
from scipy import stats

from hlik.distributions import CAR, GMRF, SAR, Relationship, rho_range, structure
from hlik.errors import ModelError
from hlik.pedigree import Pedigree

N = 7
RNG = np.random.default_rng(0)
UPPER = np.triu(RNG.random((N, N)) < 0.4, 1)
D = (UPPER | UPPER.T).astype(float) * np.add.outer(np.arange(1, 8), np.arange(1, 8)) / 8  # weighted neighbours
LAPLACIAN = np.diag((D != 0).sum(axis=0)) - (D != 0)
PEDIGREE = Pedigree(np.arange(N), np.array([-1, -1, 0, 0, 2, 2, 4]), np.array([-1, -1, 1, 1, 3, 1, 5]))
RHO, TAU = 0.8 * rho_range(D)[1], 0.7
EYE = np.eye(N)
COVARIANCE = {
    "CAR": TAU * np.linalg.inv(EYE - RHO * D),
    "SAR": TAU * np.linalg.inv(EYE - RHO * D) @ np.linalg.inv(EYE - RHO * D).T,
    "GMRF": np.linalg.inv(0.3 * EYE + 0.8 * LAPLACIAN),
    "one matrix": np.linalg.inv(2.0 * (EYE + LAPLACIAN)),
    "A": 1.69 * np.linalg.inv(EYE + LAPLACIAN),
    "precision": 1.69 * np.linalg.inv(EYE + LAPLACIAN),
    "pedigree": 1.69 * PEDIGREE.relationship(),
}


def make(name, **kwargs):
    return {
        "CAR": lambda: CAR.dist(D=sp.csr_matrix(D), rho=RHO, tau=TAU, **kwargs),
        "SAR": lambda: SAR.dist(D=D, rho=RHO, tau=TAU, **kwargs),
        "GMRF": lambda: GMRF.dist([EYE, sp.coo_array(LAPLACIAN)], [0.3, 0.8], **kwargs),
        "one matrix": lambda: GMRF.dist(EYE + LAPLACIAN, 2.0, **kwargs),
        "A": lambda: Relationship.dist(1.3, A=np.linalg.inv(EYE + LAPLACIAN), **kwargs),
        "precision": lambda: Relationship.dist(1.3, precision=sp.csr_array(EYE + LAPLACIAN), **kwargs),
        "pedigree": lambda: Relationship.dist(1.3, pedigree=PEDIGREE, **kwargs),
    }[name]()


@pytest.fixture(params=["eigenvalues", "sparse factor"])
def strategy(request, monkeypatch):
    """Both ways to a log-determinant on the same small problems."""
    if request.param == "sparse factor":
        monkeypatch.setattr(structure, "SPECTRAL_SIZE", 0)


@pytest.mark.parametrize("name", COVARIANCE)
def test_density(name, strategy):
    x = np.random.default_rng(1).normal(size=(3, N))
    expected = stats.multivariate_normal(np.full(N, 0.4), COVARIANCE[name]).logpdf(x)
    np.testing.assert_allclose(pm.logp(make(name, mu=0.4), x[0]).eval(), expected[0], rtol=1e-12)
    several = make(name, mu=np.full(N, 0.4), shape=(3, N))
    np.testing.assert_allclose(pm.logp(several, x).eval(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", COVARIANCE)
def test_draws(name):
    draws = pm.draw(make(name, mu=np.arange(N)), 20_000, random_seed=1)
    S = COVARIANCE[name]
    assert np.all(np.abs(draws.mean(axis=0) - np.arange(N)) < 5 * np.sqrt(np.diag(S) / 20_000))
    assert np.all(np.abs(np.cov(draws.T) - S) < 5 * np.sqrt((S**2 + np.outer(np.diag(S), np.diag(S))) / 20_000))
    assert pm.draw(make(name, shape=(2, 3, N)), random_seed=1).shape == (2, 3, N)


def _model():
    with pm.Model(coords={"area": range(N)}) as model:
        rho = pm.Uniform("rho", *rho_range(D))
        tau = pm.HalfNormal("tau", 1)
        mean = pm.Normal("mean", 0, 1)
        CAR("v", D=D, rho=rho, tau=tau, mu=mean, dims="area")
        SAR("w", D=D, rho=rho, tau=tau, dims="area")
        GMRF("g", [EYE, LAPLACIAN], [tau, rho**2], dims="area")
        Relationship("a", sigma=tau, pedigree=PEDIGREE, dims="area")
    return model


def test_gradient(strategy):
    model = _model()
    density, gradient = model.compile_logp(mode="FAST_COMPILE"), model.compile_dlogp(mode="FAST_COMPILE")
    rng = np.random.default_rng(2)
    point = {name: value + 0.1 * rng.normal(size=np.shape(value)) for name, value in model.initial_point().items()}
    names = list(point)
    found = dict(zip([v.name for v in model.value_vars], _split(gradient(point), model, point), strict=True))
    for name in names:
        numeric = np.empty(np.size(point[name]))
        for k in range(numeric.size):
            step = np.zeros(numeric.size)
            step[k] = 1e-5
            up, down = (
                density({**point, name: point[name] + sign * step.reshape(np.shape(point[name]))}) for sign in (1, -1)
            )
            numeric[k] = (up - down) / 2e-5
        np.testing.assert_allclose(np.ravel(found[name]), numeric, rtol=1e-6, atol=1e-7)


def _split(flat, model, point):
    sizes = [np.size(point[v.name]) for v in model.value_vars]
    return np.split(flat, np.cumsum(sizes)[:-1])


def test_dims_and_printing():
    model = _model()
    assert model.named_vars_to_dims["v"] == ("area",)
    assert model["v"].type.shape == (N,)
    assert "v ~ CAR" in model.str_repr()
    assert model.initial_point()["g"].shape == (N,)


def test_sampling_recovers_the_conditional():
    """NUTS on a Gaussian field with known parameters: mean and variance by algebra."""
    y = np.linspace(-1, 1, N)
    with pm.Model():
        v = CAR("v", D=D, rho=RHO, tau=TAU)
        pm.Normal("y", v, 0.5, observed=y)
        idata = pm.sample(500, tune=300, chains=1, progressbar=False, random_seed=1, compute_convergence_checks=False)
    H = np.linalg.inv(COVARIANCE["CAR"]) + 4 * EYE
    covariance = np.linalg.inv(H)
    draws = idata.posterior["v"].to_numpy()[0]
    error = np.sqrt(np.diag(covariance) / 100)  # 500 draws are worth 100 at the very least
    assert np.all(np.abs(draws.mean(axis=0) - covariance @ (4 * y)) < 5 * error)
    np.testing.assert_allclose(draws.var(axis=0), np.diag(covariance), rtol=0.5)


def test_range_of_rho():
    low, high = rho_range(D)
    eigenvalues = np.linalg.eigvalsh(D)
    np.testing.assert_allclose([low, high], [1 / eigenvalues[0], 1 / eigenvalues[-1]], rtol=1e-12)
    assert rho_range(np.zeros((2, 2))) == (-np.inf, np.inf)
    side = 24  # more areas than go through all eigenvalues
    path = sp.diags_array([np.ones(side - 1)] * 2, offsets=[-1, 1])
    grid = sp.kronsum(path, path)
    largest = 4 * np.cos(np.pi / (side + 1))
    np.testing.assert_allclose(rho_range(grid), [-1 / largest, 1 / largest], rtol=1e-10)


@pytest.mark.parametrize("distribution", [CAR, SAR])
def test_rho_out_of_range(distribution, strategy):
    high = rho_range(D)[1]
    inside, outside = (distribution.dist(D=D, rho=factor * high, tau=1.0) for factor in (0.999, 1.05))
    assert np.isfinite(pm.logp(inside, np.zeros(N)).eval())
    with pytest.raises(ParameterValueError, match="I - rho D"):
        pm.logp(outside, np.zeros(N)).eval()
    with pytest.raises(ValueError, match="I - rho D"):
        pm.draw(outside)
    with pytest.raises(ParameterValueError, match="tau must be positive"):
        pm.logp(distribution.dist(D=D, rho=0.1, tau=-1.0), np.zeros(N)).eval()


@pytest.mark.parametrize("size", [12, 26])
def test_logdeterminant_of_a_grid(size):
    """Sparse factor and selected inverse against the eigenvalues of the grid's Laplacian, known in closed form."""
    path = sp.diags_array([np.ones(size - 1)] * 2, offsets=[-1, 1])
    grid = sp.csc_array(sp.kronsum(path, path))
    axis = 2 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))
    eigenvalues = np.add.outer(axis, axis).ravel()
    found = structure.PrecisionStructure([sp.eye_array(size**2), grid, grid @ grid])
    rho = 0.24
    c = np.array([1.0, -2 * rho, rho**2])
    np.testing.assert_allclose(found.logdet(c), 2 * np.sum(np.log1p(-rho * eigenvalues)), rtol=1e-10)
    powers = np.array([eigenvalues**k for k in range(3)])
    np.testing.assert_allclose(
        found.logdet_gradient(c), np.sum(powers / (1 - rho * eigenvalues) ** 2, axis=1), rtol=1e-10
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CAR.dist(D=np.triu(D), rho=0.1, tau=1.0), "D must be symmetric"),
        (lambda: CAR.dist(D=D + EYE, rho=0.1, tau=1.0), "zeros on its diagonal"),
        (lambda: SAR.dist(D=D[:3], rho=0.1, tau=1.0), "D must be a square matrix, got shape"),
        (lambda: CAR.dist(D=D, rho=[0.1, 0.2], tau=1.0), "must be scalars"),
        (lambda: CAR.dist(D=D, rho=0.1, tau=1.0, mu=np.zeros((2, N))), "mu must be a scalar or a vector of 7"),
        (lambda: GMRF.dist([EYE, D], [1.0]), "2 matrices need as many coefficients; got 1"),
        (lambda: GMRF.dist([EYE, np.eye(3)], [1.0, 1.0]), "matrices of one shape"),
        (lambda: GMRF.dist([EYE * np.nan], [1.0]), "not finite"),
        (lambda: Relationship.dist(1.0), "one of A, precision and pedigree; got none"),
        (lambda: Relationship.dist(1.0, A=EYE, precision=EYE), "got \\['A', 'precision'\\]"),
        (lambda: Relationship.dist(1.0, A=np.ones((3, 3))), "smallest eigenvalue"),
        (lambda: Relationship.dist(1.0, pedigree=[1, 2]), "got list"),
    ],
)
def test_arguments_that_cannot_be(call, message):
    with pytest.raises(ModelError, match=message):
        call()


def test_neighbours_are_not_changed():
    given = sp.csc_array(D)
    before = given.copy()
    CAR.dist(D=given, rho=0.1, tau=1.0)
    SAR.dist(D=given, rho=0.1, tau=1.0)
    np.testing.assert_array_equal(given.toarray(), before.toarray())
    assert given.nnz == before.nnz


def test_structures_can_be_pickled():
    found = structure.PrecisionStructure([sp.eye_array(N), sp.csc_array(D)])
    c = np.array([1.0, -0.1])
    expected = found.logdet(c)
    assert pickle.loads(pickle.dumps(found)).logdet(c) == expected
