"""Multivariate t effects by quadrature over their scales: brute force, closed forms, the normal limit, the result."""

import arviz as az
import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import special as sc
from scipy import stats
from scipy.sparse import csr_array

import hlik
from hlik.adjusted_profile import Profile
from hlik.errors import ModelError
from hlik.estimators.agq_profile import QuadratureProfile
from hlik.estimators.scale_mixture_profile import ScaleMixtureProfile
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from hlik.inference.restore import restore
from hlik.samplers.scale_mixture import ScaleMixtureSampler
from hlik.scale_mixture import ScaleMixture, log_scale_density, log_scale_slope
from tests.estimators.test_laplace import epilepsy

GROUP = np.repeat([0, 1, 2], 3)
COUNT = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4])
POINT = np.array([0.9, np.log(0.8)])


def poisson(nu=5.0):
    with pm.Model() as model:
        b, s = pm.Normal("b", 0, 5), pm.HalfNormal("s")
        degrees = 2 + pm.HalfNormal("d") if nu is None else nu
        u = pm.MvStudentT("u", nu=degrees, mu=np.zeros(3), scale=s**2 * np.eye(3))
        pm.Poisson("y", pm.math.exp(b + u[GROUP]), observed=COUNT)
    return model


def mixture(model, inner=None, **arguments):
    likelihood = HLikelihood(read_model(model))
    return ScaleMixtureProfile(likelihood, inner or (lambda given: QuadratureProfile(given, 25)), **arguments)


def at(profile, psi):
    return profile.mode(np.asarray(psi), np.zeros(profile.n_beta), profile.likelihood.start_v())


def differences(profile, psi, moves=None):
    expected = []
    for move in 1e-3 * np.eye(len(psi)) if moves is None else moves:
        near, far = (at(profile, psi + k * move).value - at(profile, psi - k * move).value for k in (1, 2))
        expected.append((8 * near - far) / 12e-3)
    return expected


def brute_force(psi, nu):
    """The integral over u by the trapezoidal rule with 201 ** 3 nodes, which is cut off at 2e-8 for nu = 5."""
    b, s = psi[0], np.exp(psi[1])
    u, step = np.linspace(-8, 8, 201, retstep=True)
    values = np.array([stats.poisson(np.exp(b + u)[:, None]).logpmf(COUNT[GROUP == k]).sum(axis=1) for k in range(3)])
    peaks = values.max(axis=1)
    first, second, third = np.exp(values - peaks[:, None])
    square = u[:, None] ** 2 + u**2
    total = 0.0
    for k in range(u.size):
        tails = (1 + (square + u[k] ** 2) / (nu * s**2)) ** (-(nu + 3) / 2)
        total += third[k] * float(first @ tails @ second)
    constant = sc.gammaln((nu + 3) / 2) - sc.gammaln(nu / 2) - 1.5 * np.log(nu * np.pi) - 3 * np.log(s)
    return np.log(total) + peaks.sum() + constant + 3 * np.log(step)


@pytest.mark.parametrize("nu", [5.0, 10.0])
def test_equals_the_integral_over_the_effects(nu):
    profile = mixture(poisson(nu))
    exact = brute_force(POINT, nu)
    error = at(profile, POINT).value - exact
    laplace = at(Profile(profile.mixture.original), POINT).value - exact
    print(f"error {error:.1e}, of Laplace's approximation {laplace:.1e}")
    assert abs(error) < 1e-7
    assert abs(laplace) > 1e-2


@pytest.mark.parametrize("nu", [4.0, None])
def test_gradients(nu):
    """The nodes move with the parameters, and the rule's error of 1e-8 is all that they move the value by."""
    profile = mixture(poisson(nu))
    psi = np.append(POINT, [] if nu else 0.3)
    np.testing.assert_allclose(at(profile, psi).gradient, differences(profile, psi), rtol=1e-6, atol=1e-6)


def test_tolerance():
    exact = brute_force(POINT, 10.0)
    errors = [abs(at(mixture(poisson(10.0), tolerance=t), POINT).value - exact) for t in (1e-2, 1e-4, 1e-10)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9


def test_many_degrees_are_the_normal_model():
    """The next term of the expansion in 1 / nu is of order 1e-6."""
    likelihood = HLikelihood(read_model(poisson(1e6)))
    normal = QuadratureProfile(ScaleMixture(likelihood).conditional, 25)
    mode = at(mixture(poisson(1e6)), POINT)
    expected = at(normal, POINT)
    np.testing.assert_allclose(mode.value, expected.value, atol=1e-5)
    np.testing.assert_allclose(mode.gradient, normal.gradient(expected), atol=1e-4)
    np.testing.assert_allclose(mode.point.v, expected.point.v, atol=1e-5)


@pytest.mark.parametrize("nu", [0.7, 10.0, 3e4])
def test_density_of_the_scale(nu):
    w = np.array([0.5, 0.999, 1.002, 1.7])
    np.testing.assert_allclose(
        log_scale_density(w, nu), stats.gamma(nu / 2, scale=2 / nu).logpdf(w) + np.log(w), atol=1e-7
    )
    move = 1e-4 * nu
    slope = (log_scale_density(w, nu + move) - log_scale_density(w, nu - move)) / (2 * move)
    np.testing.assert_allclose(log_scale_slope(w, nu), slope, rtol=1e-5)


# ---------------------------------------------------------------- Gaussian responses, where the rest is closed


REAL = np.random.default_rng(2).normal(size=12) + np.repeat([1.5, -1.0, 0.3], 4)
LEVEL, PERIOD = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
CORRELATED = 0.4 + 0.6 * np.eye(3)


def crossed():
    with pm.Model() as model:
        s, t = pm.HalfNormal("s"), pm.HalfNormal("t")
        u = pm.MvStudentT("u", nu=4, mu=np.zeros(3), scale=s**2 * CORRELATED)
        w = pm.MvStudentT("w", nu=6, mu=np.zeros(4), scale=t**2 * np.eye(4))
        pm.Normal("y", pm.Normal("b") + u[LEVEL] + w[PERIOD], pm.HalfNormal("sigma"), observed=REAL)
    return model


@pytest.mark.slow
def test_two_densities_and_crossed_factors():
    """Given both scales Laplace's approximation is exact, and their integral is done by Gauss-Legendre rules."""
    profile = mixture(crossed(), Profile)
    psi = np.array([0.2, 0.3, -0.2, -0.1])
    first, second = np.eye(3)[LEVEL], np.eye(4)[PERIOD]

    def density(x, z):
        V = np.exp(2 * psi[1] - x) * first @ CORRELATED @ first.T + np.exp(2 * psi[2] - z) * second @ second.T
        V += np.exp(2 * psi[3]) * np.eye(12)
        root = np.linalg.cholesky(V)
        square = np.sum(np.linalg.solve(root, REAL - psi[0]) ** 2)
        log_density = -0.5 * square - np.log(np.diag(root)).sum() - 6 * np.log(2 * np.pi)
        return np.exp(log_density + log_scale_density(np.exp(x), 4) + log_scale_density(np.exp(z), 6))

    nodes, weights = np.polynomial.legendre.leggauss(40)
    nodes = -2.5 + 5.5 * nodes  # from -8 to 3
    heights = np.array([[density(x, z) for z in nodes] for x in nodes])
    exact = np.log(5.5**2 * (weights @ heights @ weights))
    mode = at(profile, psi)
    np.testing.assert_allclose(mode.value, exact, atol=1e-7)
    along = np.array([0.4, 1.0, -0.7, 0.5])
    (slope,) = differences(profile, psi, [1e-3 * along])
    np.testing.assert_allclose(mode.gradient @ along, slope, rtol=1e-6)
    assert mode.weights.shape == (2,)


def test_zeros_of_the_scale_matrix_are_found():
    """Correlated pairs given the scale: blocks of two, though one density links all six."""
    with pm.Model() as model:
        s, r = pm.HalfNormal("s"), pm.Uniform("r", -1, 1)
        pair = s**2 * pm.math.stack([pm.math.stack([1.0, r]), pm.math.stack([r, 1.0])])
        u = pm.MvStudentT("u", nu=4, mu=np.zeros(6), scale=pt.linalg.kron(np.eye(3), pair))
        pm.Normal("y", u[2 * LEVEL] + u[2 * LEVEL + 1] * (PERIOD - 1.5), pm.HalfNormal("e"), observed=REAL)
    profile = mixture(model)
    np.testing.assert_array_equal(profile.inner.blocks.size, [2, 2, 2])
    psi = np.array([0.3, 0.4, -0.2])
    laplace = mixture(model, Profile)  # exact here
    np.testing.assert_allclose(at(profile, psi).value, at(laplace, psi).value, atol=1e-9)
    np.testing.assert_allclose(at(profile, psi).gradient, differences(laplace, psi), rtol=1e-6, atol=1e-6)


def test_too_many_densities():
    with pm.Model() as model:
        effects = [pm.MvStudentT(n, nu=4, mu=np.zeros(3), scale=np.eye(3) * pm.HalfNormal(f"s{n}")) for n in "uvw"]
        pm.Normal("y", sum(effects)[LEVEL], pm.HalfNormal("sigma"), observed=REAL)
    with pytest.raises(ModelError, match=r"3 multivariate t densities in 'u', 'v', 'w'.*independent pm.StudentT"):
        hlik.fit(model, hlik.AGQ(5), progressbar=False)


# ---------------------------------------------------------------- draws of the effects


def moments(nu):
    """Means and variances of the three effects given the counts, by the rule of `brute_force` with 121 ** 3 nodes."""
    b, s = POINT[0], np.exp(POINT[1])
    u = np.linspace(-5, 5, 121)
    values = [stats.poisson(np.exp(b + u)[:, None]).logpmf(COUNT[GROUP == k]).sum(axis=1) for k in range(3)]
    square = u[:, None, None] ** 2 + u[None, :, None] ** 2 + u**2
    log_density = -(nu + 3) / 2 * np.log1p(square / (nu * s**2))
    log_density += values[0][:, None, None] + values[1][None, :, None] + values[2]
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    margins = [density.sum(axis=tuple(a for a in range(3) if a != k)) for k in range(3)]
    means = np.array([margin @ u for margin in margins])
    products = np.einsum("ijk,i,j,k->", density, u**2, u**2, u**2)
    return means, np.array([margin @ u**2 for margin in margins]) - means**2, products


@pytest.mark.parametrize("nu", [3.0, 10.0])
def test_draws_by_the_scale(nu):
    """Moments up to the product of all squares, which effects that were independent would not have."""
    likelihood = HLikelihood(read_model(poisson(nu)))
    sampler = ScaleMixtureSampler(likelihood, np.zeros(3), 8)
    draws = sampler.draw(POINT[:1], POINT[1:], 16_384, np.random.default_rng(3))
    columns = draws.columns
    means, variances, product = moments(nu)
    found = np.vstack([columns, (columns - means[:, None]) ** 2, np.prod(columns**2, axis=0)])
    exact = np.concatenate([means, variances, [product]])
    # errors from eight randomisations are known to a quarter: five of them; and the resampling of 2,048 draws
    error = 5 * np.sqrt(np.diag(draws.mean_covariance(found))) + 1e-3 * np.abs(exact)
    assert np.all(np.abs(found.mean(axis=1) - exact) < error)
    assert draws.stats["pareto_k"].max() < 0.5
    assert draws.stats["mixing_weight_u"].shape == (8, 2048)


def test_likelihood_by_the_scale():
    sampler = ScaleMixtureSampler(HLikelihood(read_model(poisson(5.0))), np.zeros(3), 8)
    value, error = sampler.log_likelihood(POINT[:1], POINT[1:], np.random.default_rng(4))
    assert error < 5e-3
    assert abs(value - brute_force(POINT, 5.0)) < 4 * error + 1e-5  # the rule over the scale has an error of 1e-5


@pytest.mark.slow
def test_two_scales_and_crossed_factors_by_monte_carlo():
    """Two t densities, effects linked by crossed factors; Laplace's approximation given the scales is exact."""
    likelihood = HLikelihood(read_model(crossed()))
    psi = np.array([0.2, 0.3, -0.2, -0.1])
    exact = at(mixture(crossed(), Profile), psi)
    sampler = ScaleMixtureSampler(likelihood, np.zeros(7), 8)
    value, error = sampler.log_likelihood(psi[:1], psi[1:], np.random.default_rng(4))
    assert abs(value - exact.value) < 4 * error + 1e-4
    draws = sampler.draw(psi[:1], psi[1:], 16_384, np.random.default_rng(5))
    error = np.sqrt(np.diag(draws.mean_covariance(draws.columns)))
    assert np.all(np.abs(draws.columns.mean(axis=1) - exact.point.v) < 5 * error + 1e-3)


@pytest.mark.slow
def test_crossed_fit_by_monte_carlo():
    """AGQ refuses seven linked effects; MCEM's two ways to draw agree on the likelihood's maximum."""
    rng = np.random.default_rng(8)
    first, second = np.repeat(np.arange(15), 12), np.tile(np.arange(12), 15)
    y = rng.poisson(np.exp(1 + 0.6 * rng.normal(size=15)[first] + 0.4 * rng.normal(size=12)[second]))
    with pm.Model() as model:
        s, t = pm.HalfNormal("s"), pm.HalfNormal("t")
        u = pm.MvStudentT("u", nu=8, mu=np.zeros(15), scale=s**2 * np.eye(15))
        w = pm.MvStudentT("w", nu=8, mu=np.zeros(12), scale=t**2 * np.eye(12))
        pm.Poisson("y", pm.math.exp(pm.Normal("b") + u[first] + w[second]), observed=y)
    found, other = (
        hlik.fit(model, hlik.MCEM(sampler=sampler), progressbar=False, random_seed=1, draws=0)
        for sampler in ("importance", "pymc")
    )
    assert found.fit.attrs["status"] == other.fit.attrs["status"] == "converged"
    for name in ("b", "s", "t"):
        error = np.hypot(found.monte_carlo_errors[name], other.monte_carlo_errors[name])
        assert abs(found.estimates[name] - other.estimates[name]) < 4 * error + 0.01 * found.standard_errors[name]


# ---------------------------------------------------------------- epilepsy, and what follows a fit


def epilepsy_t(shared):
    return epilepsy(shared, lambda s: pm.MvStudentT("u", nu=10, mu=np.zeros(59), scale=s**2 * np.eye(59)))


def test_epilepsy_at_the_reference(shared, reference):
    """Value and a gradient of zero at the maximum that exact quadrature found, to its own tolerance."""
    record = reference("truth/exact_quadrature")["epilepsy_negbin_t10_multivariate"]
    estimates = list(record["estimates"].values())
    psi = np.concatenate([estimates[:6], np.log([estimates[6], estimates[7] ** 0.5])])
    mode = at(mixture(epilepsy_t(shared)), psi)
    np.testing.assert_allclose(mode.value, record["loglik"], atol=1e-8)
    np.testing.assert_allclose(mode.gradient, 0, atol=1e-6)


@pytest.mark.slow
def test_epilepsy(shared, reference):
    """sigma^2 = 0.2183; Laplace's approximation of the t density is far from it."""
    record = reference("truth/exact_quadrature")["epilepsy_negbin_t10_multivariate"]
    expected, errors = (list(record[key].values()) for key in ("estimates", "se"))
    model = epilepsy_t(shared)
    idata = hlik.fit(model, hlik.AGQ(15), progressbar=False, draws=0)
    assert idata.fit.attrs["status"] == "converged"
    sigma = float(idata.estimates.sigma)
    np.testing.assert_allclose([*idata.estimates.beta, idata.estimates.alpha, sigma**2], expected, rtol=1e-5, atol=1e-6)
    se = [*idata.standard_errors.beta, idata.standard_errors.alpha, 2 * sigma * idata.standard_errors.sigma]
    np.testing.assert_allclose(se, errors, rtol=1e-4)
    assert float(idata.fit.quadrature_error) < 1e-6
    laplace = hlik.fit(model, hlik.Laplace(), progressbar=False, draws=0)
    print(f"sigma^2 {sigma**2:.4f}, by Laplace {float(laplace.estimates.sigma) ** 2:.4f}")
    # p_v(h) itself, by a dense numerical Hessian of h: -629.2792 at sigma = 0.59, -632.4588 at 0.35
    np.testing.assert_allclose(float(laplace.estimates.sigma) ** 2, 0.348598, rtol=1e-5)
    np.testing.assert_allclose(float(laplace.fit.log_likelihood), -629.279184, atol=1e-5)


@pytest.fixture(scope="module")
def small():
    model = poisson(6.0)
    return model, hlik.fit(model, hlik.AGQ(9), progressbar=False, draws=100, random_seed=1)


def test_effects_are_means_over_the_scale(small):
    """The modes given the scale at every node, averaged here; errors are larger than with known parameters."""
    model, idata = small
    profile = mixture(model)
    psi = np.array([float(idata.estimates.b), np.log(float(idata.estimates.s))])
    mode = at(profile, psi)
    nodes = [profile.given(mode, k) for k in range(len(mode.nodes))]
    means = sum(share * node.point.v for share, node in zip(mode.share, nodes, strict=True))
    np.testing.assert_allclose(idata.estimates.u, means, atol=1e-6)
    weight = float(mode.share @ mode.nodes[:, 0])
    np.testing.assert_allclose(float(idata.fit["mixing_weight_u"]), weight, rtol=1e-5)
    spread = sum(
        share * (node.bordered.inverse_diagonal()[1] + (node.point.v - means) ** 2)
        for share, node in zip(mode.share, nodes, strict=True)
    )
    assert np.all(idata.standard_errors.u > np.sqrt(spread))  # the parameters are not known


def test_what_follows_a_fit(small, tmp_path):
    model, idata = small
    assert idata.fit.attrs["status"] == "converged"
    assert idata.fit.attrs["likelihood"] == "marginal"
    assert np.all(np.isfinite(idata.posterior["u"]))
    idata.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    assert "MvStudentT" in str(hlik.summary(again))
    effects = hlik.ranef(again)
    assert len(effects) == 3
    assert len(hlik.confint(model, again)) == 2


@pytest.mark.slow
def test_profile_intervals(small):
    model, idata = small
    found = hlik.confint(model, idata, parm="s", method="profile").select_dtypes("number").to_numpy()
    assert np.all(np.isfinite(found))
    assert found.min() < float(idata.estimates.s) < found.max()


def test_restored_errors(small):
    """Contrasts take the scale as known at its mean: errors near those of the result, which count its spread."""
    model, idata = small
    restored = restore(model, idata)
    errors = restored.error(np.zeros((3, 1)), csr_array(np.eye(3)), np.zeros((3, 1)))
    np.testing.assert_allclose(errors, idata.standard_errors.u, rtol=0.05)
