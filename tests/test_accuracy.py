"""How far fits are from maximum likelihood, told by importance sampling."""

import arviz as az
import numpy as np
import pytest

import hlik
from models import bacteria


@pytest.fixture(scope="module")
def model():
    return bacteria.build(bacteria.load())


@pytest.fixture(scope="module")
def fits(model):
    return {e.name: hlik.fit(model, e, progressbar=False) for e in (hlik.EQL(), hlik.Laplace(), hlik.AGQ())}


LEVELS = {"EQL": "far", "Laplace": "slight", "AGQ": "clean"}


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_bacteria(model, fits, name):
    """Maximum likelihood puts the variance at 1.8394 (quadrature), EQL at 1.026, Laplace at 1.6545."""
    found = hlik.check_accuracy(model, fits[name], random_seed=1)
    assert found.level == LEVELS[name]
    row = found.table.loc["sigma"]
    exact = fits["AGQ"]
    error = float(exact.unconstrained_standard_errors["sigma_log__"])
    gap = float(fits[name].unconstrained_estimates["sigma_log__"] - exact.unconstrained_estimates["sigma_log__"])
    # the standard error has a Monte Carlo error too, a few per cent
    assert abs(row["distance"] - gap / error) <= 4 * row["mcse"] + 0.05 * abs(gap / error)
    text = str(found)
    if name != "AGQ":
        assert f"{name}'s sigma" in text
        assert "below the maximum-likelihood estimate" in text
    # the gradient at the estimate vanishes at the maximum only
    assert (abs(row["gradient"]) < 0.05) == (name == "AGQ")


def test_log_likelihood_of_any_estimator(model, fits, tmp_path):
    exact = float(fits["AGQ"].fit.log_likelihood)
    fits["AGQ"].to_netcdf(tmp_path / "agq.nc")
    found = hlik.loglik(model, az.from_netcdf(tmp_path / "agq.nc"), random_seed=1)
    assert found.is_reliable
    assert found.mcse <= 0.01
    assert abs(float(found) - exact) <= 4 * found.mcse
    lower = hlik.loglik(model, fits["EQL"], random_seed=1)
    assert float(lower) < exact - 0.5
    assert "Monte Carlo error" in str(found)


def test_refusals(model):
    quasi = hlik.fit(model, hlik.EQL(dispersion="estimate"), progressbar=False)
    with pytest.raises(hlik.ModelError, match="quasi-likelihoods have no marginal likelihood"):
        hlik.check_accuracy(model, quasi)


def test_auto_goes_on_to_maximum_likelihood(model, fits):
    idata = hlik.fit(model, "auto", random_seed=1, progressbar=False)
    story = idata.fit.attrs["auto"]
    assert story.startswith("Laplace first; slightly off: Laplace's sigma")
    assert "so MCLA, from there" in story
    assert idata.fit.attrs["estimator_name"] == "MCLA"
    error = float(idata.estimates["sigma"] - fits["AGQ"].estimates["sigma"])
    assert abs(error) <= 4 * float(idata.monte_carlo_errors["sigma"]) + 1e-5
    assert np.isfinite(error)
