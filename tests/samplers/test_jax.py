"""E-steps by numpyro and blackjax: right moments at changing parameters, one compilation a fit, a plain refusal."""

from importlib.util import find_spec

import numpy as np
import pytest

import hlik
from hlik.hlikelihood import HLikelihood
from hlik.samplers import jax_kernels
from hlik.samplers.choose import sampler_for
from tests.estimators.test_mcem_samplers import counts, read


def installed(kind):
    absent = jax_kernels.missing(kind)
    reason = f"needs {' and '.join(absent)}: pip install 'hlik[jax]'"
    return pytest.param(kind, marks=[pytest.mark.skipif(bool(absent), reason=reason), pytest.mark.slow])


KINDS = [installed(kind) for kind in jax_kernels.KINDS]
# JAX and PyMC's part of it warn of their own future on import; none of it is about what is tested here
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("kind", jax_kernels.KINDS)
def test_told_where_not_installed(kind, monkeypatch):
    monkeypatch.setattr(jax_kernels, "find_spec", lambda name: None)
    with pytest.raises(hlik.ModelError, match=rf"needs the packages jax and {kind}: pip install 'hlik\[jax\]'"):
        hlik.fit(counts("centred"), hlik.MCEM(sampler=kind), progressbar=False)
    monkeypatch.setattr(jax_kernels, "find_spec", lambda name: None if name == kind else find_spec("numpy"))
    with pytest.raises(hlik.ModelError, match=f"needs the package {kind}:"):
        hlik.fit(counts("centred"), hlik.SAEM(sampler=kind), progressbar=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["centred", "non-centred", "located", "gamma"])
def test_moments_agree_with_importance_sampling(kind, way):
    """At three parameters in turn and three numbers of draws, with nothing compiled after the first."""
    likelihood = HLikelihood(read(counts(way)))
    rng = np.random.default_rng(1)
    first = rng.normal(size=(2, 5))
    sampler, exact = sampler_for(kind, likelihood, first, 300), sampler_for("importance", likelihood, first, 0)
    traced = []
    for beta, theta, draws in ((1.1, -0.3, 2000), (0.5, 0.4, 3001), (0.8, -0.5, 2500)):
        at = np.array([beta]), np.array([theta])
        found, wanted = sampler.draw(*at, draws, rng), exact.draw(*at, 8192, rng)
        columns, reference = found.columns, wanted.columns
        error = np.sqrt(np.diag(found.mean_covariance(columns)))
        # 4.5 errors: of 15 means in eight samplers, and the reference has an error a tenth as large
        assert np.all(np.abs(columns.mean(axis=1) - reference.mean(axis=1)) < 4.5 * error)
        np.testing.assert_allclose(columns.std(axis=1), reference.std(axis=1), rtol=0.15)
        np.testing.assert_allclose(sampler.position, found.v[:, -1])
        # the step size follows the parameters: a mean acceptance of 0.8 is aimed at
        assert 0.6 < found.stats["mean_tree_accept"].mean() < 0.97
        traced.append(sampler.density.traced)
    assert sampler.compilations == 1
    assert len(set(traced)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_compiles_once_and_goes_on(kind):
    model = counts("centred")
    found = hlik.fit(model, hlik.MCEM(sampler=kind), progressbar=False, random_seed=1)
    exact = hlik.fit(model, hlik.AGQ(), progressbar=False)
    assert found.fit.attrs["status"] == "converged"
    assert int(found.em["n_compilations"]) == 1
    assert len(found.history["iteration"]) >= 2
    for name in ("beta", "sigma"):
        difference = np.abs(found.estimates[name] - exact.estimates[name])
        assert difference < 4 * found.monte_carlo_errors[name] + 0.01 * exact.standard_errors[name]
    assert found.sample_stats["diverging"].dtype == bool
    assert found.posterior["u"].shape[0] == 2
    assert np.all(found.em["step_size"] > 0)
    again = hlik.fit(model, hlik.MCEM(sampler=kind), start=found, progressbar=False, random_seed=2)
    assert again.fit.attrs["status"] == "converged"
