"""h at many values of v at once: the same numbers as one at a time, and gradients by differences."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp

from hlik.batch import Batch, columns_at_once
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from tests.likelihoods import COUNT, GROUP, GROUPS, KINDS, REAL, TIME, X

M = 5


def number_of_cases(likelihood):
    return sum(term.n for term in likelihood.terms)


def closed(kind):
    with pm.Model() as model:
        beta, sigma, phi = pm.Normal("beta", 0, 1, shape=2), pm.HalfNormal("sigma"), pm.HalfNormal("phi", shape=2)
        eta = beta[0] + beta[1] * X
        if kind == "gamma effects":
            u = pm.Gamma("u", alpha=1 / sigma, beta=1 / sigma, shape=GROUPS)
            pm.Poisson("y", pt.exp(eta) * u[GROUP], observed=COUNT)
        elif kind == "gamma response":
            u = pm.Normal("u", 0, sigma * (1 + np.arange(GROUPS)), shape=GROUPS)
            mu = pt.exp(eta + u[GROUP])
            pm.Gamma("y", mu=mu, sigma=mu * phi[0], observed=TIME)
        else:
            u = pm.Normal("u", 0, sigma, shape=GROUPS)
            pm.Normal("y", eta + u[GROUP], pt.exp(phi[0] + phi[1] * X), observed=REAL)
    return model


BUILD = {name: kind.build for name, kind in KINDS.items()}
BUILD |= {name: (lambda name=name: closed(name)) for name in ("gamma effects", "gamma response", "double normal")}


@pytest.fixture(scope="module", params=sorted(BUILD))
def setting(request):
    """A likelihood, a point, and M values of v around the mode of its density."""
    likelihood = HLikelihood(read_model(BUILD[request.param]()))
    model, rng = likelihood.model, np.random.default_rng(1)
    beta, theta = 0.1 * rng.normal(size=model.n_beta), 0.1 * rng.normal(size=model.n_theta)
    v = likelihood.start_v()[:, None] + 0.2 * rng.normal(size=(model.n_random, M))
    return likelihood, beta, v, theta


def test_values_and_scores(setting):
    likelihood, beta, v, theta = setting
    batch = Batch.at(likelihood, beta, v, theta, order=2)
    assert batch.case_values().shape == (number_of_cases(likelihood), M)
    for k in range(M):
        point = likelihood.at(beta, v[:, k], theta)
        assert point is not None
        np.testing.assert_allclose(batch.total()[k], point.h, rtol=1e-12)
        score = np.zeros(likelihood.n_rows)
        for term, found in zip(likelihood.terms, batch.responses, strict=True):
            score[term.rows] = found.score[:, :, k].ravel()
        np.testing.assert_allclose(score, point.score, rtol=1e-10, atol=1e-12)


def gradient_by_differences(likelihood, beta, v, theta, case_weight, level_weight, step=1e-5):
    def value(psi):
        batch = Batch.at(likelihood, psi[: beta.size], v, psi[beta.size :])
        return (case_weight * batch.case_values()).sum() + (level_weight * batch.level_values()).sum()

    psi = np.concatenate([beta, theta])
    moves = step * np.eye(psi.size)
    return np.array([(value(psi + move) - value(psi - move)) / (2 * step) for move in moves])


def test_weighted_gradients(setting):
    likelihood, beta, v, theta = setting
    rng = np.random.default_rng(2)
    case_weight, level_weight = rng.random((number_of_cases(likelihood), M)), rng.random((v.shape[0], M))
    batch = Batch.at(likelihood, beta, v, theta, order=1, with_theta=True)
    found = batch.gradient(case_weight, level_weight)
    expected = gradient_by_differences(likelihood, beta, v, theta, case_weight, level_weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())  # of the differences
    column = rng.random((1, M))
    expected = gradient_by_differences(likelihood, beta, v, theta, column, column)
    np.testing.assert_allclose(batch.gradient(column, column), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_block_gradients_add_up(setting):
    likelihood, beta, v, theta = setting
    rng = np.random.default_rng(3)
    cases, blocks = number_of_cases(likelihood), 4
    case_block = sp.csr_array((np.ones(cases), (rng.integers(blocks, size=cases), np.arange(cases))), (blocks, cases))
    q = v.shape[0]
    level_block = sp.csr_array((np.ones(q), (rng.integers(blocks, size=q), np.arange(q))), (blocks, q))
    batch = Batch.at(likelihood, beta, v, theta, order=1, with_theta=True)
    by_block = batch.block_gradients(case_block, level_block)
    weight = rng.random((blocks, M))
    found = np.einsum("pbm,bm->p", by_block, weight)
    expected = batch.gradient(case_block.T @ weight, level_block.T @ weight)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_values_out_of_range_do_not_count():
    likelihood = HLikelihood(read_model(closed("gamma effects")))
    v = np.zeros((GROUPS, 2))
    v[3, 1] = 800.0  # exp overflows
    total = Batch.at(likelihood, np.zeros(2), v, np.zeros(likelihood.model.n_theta)).total()
    assert np.isfinite(total[0])
    assert total[1] == -np.inf


def test_memory_bound():
    likelihood = HLikelihood(read_model(closed("gamma effects")))
    assert columns_at_once(likelihood, 600) == 600 // likelihood.n_rows
    assert columns_at_once(likelihood, 1) == 1
