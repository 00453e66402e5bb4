"""The simulated examples of the documents on hglm, the markers and the animals: data, and fits against hglm."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import hlik
from models import animal, bacteria, glucosinolates, hglm_paper, hglm_tutorial, lip_cancer


def fitted(model, estimator="eql"):
    return hlik.fit(model, estimator, progressbar=False, draws=0)


def squared(idata, name):
    return float(idata.estimates[name]) ** 2


@pytest.mark.parametrize("fixed_point", [True, False])
def test_example_1(fixed_point):
    """At hglm's fixed point to its stopping rule (1e-12 of the predictors); as printed to 1 % of the variance."""
    idata = fitted(hglm_paper.build(hglm_paper.load()))
    known, rtol = (hglm_paper.EXAMPLE_1, 1e-5) if fixed_point else (hglm_paper.EXAMPLE_1_PUBLISHED, 1e-2)
    assert float(idata.estimates["Intercept"]) == pytest.approx(known["beta"], rel=rtol)
    assert float(idata.standard_errors["Intercept"]) == pytest.approx(known["se_beta"], rel=rtol)
    assert squared(idata, "sigma") == pytest.approx(known["phi"], rel=rtol)
    assert squared(idata, "1|clus_sigma") == pytest.approx(known["lam"], rel=rtol)


def test_example_2():
    idata, known = fitted(hglm_paper.build_dispersion(hglm_paper.load())), hglm_paper.EXAMPLE_2
    assert float(idata.estimates["Intercept"]) == pytest.approx(known["beta"], rel=1e-4)
    assert float(idata.standard_errors["Intercept"]) == pytest.approx(known["se_beta"], rel=1e-4)
    for name, estimate, se in zip(("Intercept", "x_d"), known["dispersion"], known["se_dispersion"], strict=True):
        assert float(idata.estimates[f"dispersion_{name}"]) == pytest.approx(estimate, rel=1e-4)
        assert float(idata.standard_errors[f"dispersion_{name}"]) == pytest.approx(se, rel=1e-3)
    assert squared(idata, "1|clus_sigma") == pytest.approx(known["lam"], rel=1e-4)


def test_example_3():
    idata, known = fitted(hglm_paper.build_counts(hglm_paper.load())), hglm_paper.EXAMPLE_3
    assert float(idata.estimates["Intercept"]) == pytest.approx(known["beta"], rel=1e-5)
    assert float(idata.standard_errors["Intercept"]) == pytest.approx(known["se_beta"], rel=1e-4)
    assert float(idata.estimates["1|clus_lam"]) == pytest.approx(known["lam"], rel=1e-5)


def test_bacteria_with_slopes():
    """hglm approaches its fixed point slowly (86 iterations): 2e-4 of the smallest variance are left."""
    idata = fitted(bacteria.build_slopes(bacteria.load()), hlik.EQL(dispersion="estimate"))
    known = bacteria.HGLM_SLOPES_FIXED_POINT
    for name, value, se in zip(("Intercept", "week"), known["beta"], known["se_beta"], strict=True):
        assert float(idata.estimates[name]) == pytest.approx(value, rel=1e-5)
        assert float(idata.standard_errors[name]) == pytest.approx(se, rel=1e-5)
    assert float(idata.estimates["y_dispersion"]) == pytest.approx(known["dispersion"], rel=1e-5)
    for name, value in zip(("1|ID_sigma", "sweek|ID_sigma"), known["sigma2"], strict=True):
        assert squared(idata, name) == pytest.approx(value, rel=2e-4)


@pytest.mark.parametrize("estimator", [hlik.Laplace(), hlik.Laplace(reml=True)], ids=["ML", "REML"])
def test_double(estimator):
    """The tutorial's alternation approximates the same likelihood: all within a quarter of a standard error."""
    idata, known = fitted(hglm_tutorial.build(hglm_tutorial.load()), estimator), hglm_tutorial.TUTORIAL_DOUBLE
    for name, value in {
        "Intercept": known["beta"],
        "dispersion_Intercept": known["dispersion"],
        "1|ID_sigma": known["sigma2_mean"] ** 0.5,
        "dispersion_1|ID_sigma": known["sigma2_dispersion"] ** 0.5,
    }.items():
        se = float(idata.standard_errors[name])
        assert float(idata.estimates[name]) == pytest.approx(value, abs=0.25 * se)


def test_selection():
    data = hglm_tutorial.load()
    one, known = fitted(hglm_tutorial.build_selection(data)), hglm_tutorial.HGLM_SELECTION
    assert float(one.estimates["beta"][0]) == pytest.approx(known["beta"], rel=1e-6)
    assert float(one.standard_errors["beta"][0]) == pytest.approx(known["se_beta"], rel=1e-5)
    assert squared(one, "sigma") == pytest.approx(known["phi"], rel=1e-6)
    assert squared(one, "individual_sigma") == pytest.approx(known["lam"], rel=1e-5)
    assert float(one.fit["p_bv_h"]) == pytest.approx(hglm_tutorial.HGLM_TEST["p_bv_h"][0], abs=1e-5)
    with pytest.warns(hlik.ConvergenceWarning, match="sd of 'extra' estimated at zero"):
        two = fitted(hglm_tutorial.build_selection(data, second=True))
    assert float(two.fit["p_bv_h"]) == pytest.approx(float(one.fit["p_bv_h"]), abs=1e-4)


def test_markers_against_dense_algebra():
    """The restricted likelihood of y ~ N(mu, s^2 I + t^2 MM') at the estimates, and its slope there."""
    data = glucosinolates.load()
    assert data.shape == (158, 122)
    M, y = glucosinolates.markers(data).to_numpy(), np.log1p(data["hydroxybutyl"].to_numpy())
    assert M.shape == (158, 117) and not np.isnan(M).any()
    idata = fitted(glucosinolates.build(data), hlik.Laplace(reml=True))

    def restricted(log_sigma, log_marker):
        V = np.exp(2 * log_sigma) * np.eye(158) + np.exp(2 * log_marker) * M @ M.T
        one = np.ones(158)
        A = one @ np.linalg.solve(V, one)
        residual = y - one @ np.linalg.solve(V, y) / A
        logdet = np.linalg.slogdet(V)[1] + np.log(A)
        return -0.5 * (157 * np.log(2 * np.pi) + logdet + residual @ np.linalg.solve(V, residual))

    at = [np.log(float(idata.estimates[name])) for name in ("sigma", "marker_sigma")]
    assert float(idata.fit["p_bv_h"]) == pytest.approx(restricted(*at), abs=1e-6)
    for step in 1e-3 * np.eye(2):
        assert restricted(*(at + step)) - restricted(*(at - step)) == pytest.approx(0, abs=1e-4)


def test_animals():
    data = animal.simulate()
    assert len(data) == 1100 and data["y"].notna().sum() == 1000
    offspring = data[data["sire"] > 0]
    parents = data.set_index("id")["a"]
    middle = (parents[offspring["sire"]].to_numpy() + parents[offspring["dam"]].to_numpy()) / 2
    # 1,000 Mendelian deviations with variance 1: the standard error of their variance is 0.045
    assert np.var(offspring["a"].to_numpy() - middle) == pytest.approx(animal.TRUE["sigma2_a"] / 2, abs=4 * 0.045)


def test_neighbours(shared):
    ours = lip_cancer.neighbours()
    assert ours.nnz == 256 and (ours != ours.T).nnz == 0
    triplets = pd.read_csv(shared / "data" / "lipcancer_nbr_triplets.csv")
    published = np.zeros((56, 56), int)
    published[triplets["row"] - triplets["row"].min(), triplets["col"] - triplets["row"].min()] = 1
    different = np.triu(ours.toarray() - published)
    assert ((different == 1).sum(), (different == -1).sum()) == (12, 16)  # as models/lip_cancer.py says


def test_simulated_data_are_those_of_the_reference_results(shared):
    paper = hglm_paper.load()
    for name, column in {"rj_example1": "y1", "rj_example2_noplot": "y2", "rj_example3_noplot": "y3"}.items():
        theirs = pd.read_csv(shared / "data" / f"{name}.csv")
        np.testing.assert_allclose(paper[column], theirs["y"], rtol=1e-13)
        np.testing.assert_array_equal(paper["clus"], theirs["clus"])
    tutorial = hglm_tutorial.load()
    for name, column in {"tut_dhglm": "double", "tut_modelsel": "selection"}.items():
        np.testing.assert_allclose(tutorial[column], pd.read_csv(shared / "data" / f"{name}.csv")["y"], rtol=1e-12)
    theirs = pd.read_csv(shared / "data" / "tut_modelsel_Z2.csv")
    np.testing.assert_allclose(tutorial.filter(regex=r"^z\d"), theirs, atol=5e-7)  # six decimals


def test_genetic_values_and_marker_effects_are_one_model():
    """G-BLUP's likelihood is that of the regression, up to the 1e-4 on the diagonal of its relationship matrix."""
    data = glucosinolates.load()
    one, other = (
        fitted(build(data), hlik.Laplace(reml=True)) for build in (glucosinolates.build, glucosinolates.build_gblup)
    )
    assert float(one.fit["p_bv_h"]) == pytest.approx(float(other.fit["p_bv_h"]), abs=0.01)
    assert float(one.estimates["sigma"]) == pytest.approx(float(other.estimates["sigma"]), rel=1e-3)
    values = glucosinolates.markers(data).to_numpy() @ one.estimates["marker"].to_numpy()
    np.testing.assert_allclose(values, other.estimates["g"], atol=0.01)


def test_car_with_the_published_neighbours(shared):
    """hglm's fixed point, printed to six digits there."""
    triplets = pd.read_csv(shared / "data" / "lipcancer_nbr_triplets.csv")
    first = triplets["row"].min()
    D = np.zeros((56, 56))
    D[triplets["row"] - first, triplets["col"] - first] = 1
    idata, known = fitted(lip_cancer.build_car(lip_cancer.load(), sp.csr_array(D))), lip_cancer.CAR_EQL
    np.testing.assert_allclose(idata.estimates["beta"], known["beta"], rtol=1e-4)
    np.testing.assert_allclose(idata.standard_errors["beta"], known["se_beta"], rtol=1e-3)
    assert float(idata.estimates["tau"]) == pytest.approx(known["tau"], abs=1e-4)
    assert float(idata.estimates["rho"]) == pytest.approx(known["rho"], abs=1e-5)
