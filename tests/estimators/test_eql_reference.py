"""EQL at its fixed point against R's hglm run to its own: every record of ../shared/reference/seeds that EQL serves.

The tight records of R are themselves converged to about 1e-6 only, in a few cases less; `LOOSER` gives the reason
for every tolerance above 1e-5. The dense oracle in `tests/oracle`, which reproduces hglm to 1e-12, run on to its
fixed point, says which side is off: always the record.
"""

from __future__ import annotations

import numpy as np
import pytest

import hlik
from hlik.inference.tables import model_of
from tests.reference_models import REFERENCE_MODELS, example3_design, lip_cancer_eigen

TOLERANCE = 1e-5
LOOSER = {
    # hglm restarts its working responses from u where it should from v: its last standard errors lag
    "rj_example3": 1e-4,
    "rj_example3_fixdisp": 1e-4,
    # not converged after 86 iterations: the oracle needs 242 to its fixed point
    "tut_g3_bacteria_slopes": 2e-4,
    # hglm leaves the correction out of the first of its three passes, so its SEs and leverages lag for ever
    "lipcancer_iid_EQL1": 1e-4,
    "lipcancer_CAR_rotated_EQL1": 1e-4,
    # not converged: one step of hglm at the exact REML estimate moves 1e-9, at the record 1e-5
    "tut_qtlmas": 1e-3,
}
ELSEWHERE = {"bacteria_EQL1_fixdisp", "tut_modelsel_hg1"}  # the record is off by more: tests of their own below
RECORDS = sorted(set(REFERENCE_MODELS) - ELSEWHERE)


def fitted(shared, name):
    reference = REFERENCE_MODELS[name]
    estimator = reference.estimator
    if reference.dispersion_coefficients == "y_dispersion":
        estimator = hlik.EQL(dispersion={"y": example3_design(shared / "data", name.removesuffix("_fixdisp"))})
    return reference, hlik.fit(reference.build(shared / "data"), estimator, progressbar=False, draws=0)


def variances(reference, idata):
    values = np.array([float(idata["estimates"][name]) for name in reference.variances])
    return values**2 if reference.squared else values


@pytest.mark.parametrize("name", RECORDS)
def test_fixed_effects_and_their_errors(shared, reference, name):
    _, idata = fitted(shared, name)
    record = reference(f"seeds/{name}")["got_tight_conv"]
    rtol = LOOSER.get(name, TOLERANCE)
    np.testing.assert_allclose(np.ravel(idata["estimates"]["beta"]), list(record["fixef"].values()), rtol=rtol)
    np.testing.assert_allclose(np.ravel(idata["standard_errors"]["beta"]), record["se_fixef"], rtol=rtol)
    assert idata["fit"].attrs["status"] == "converged"
    assert round(float(idata["fit"]["df_residual"])) == record["df"]


@pytest.mark.parametrize("name", RECORDS)
def test_dispersions(shared, reference, name):
    setting, idata = fitted(shared, name)
    record = reference(f"seeds/{name}")["got_tight_conv"]
    rtol = LOOSER.get(name, TOLERANCE)
    if setting.variances:
        np.testing.assert_allclose(variances(setting, idata), record["varRanef"], rtol=rtol)
    if setting.residual:
        power = 1 if setting.residual.endswith("_dispersion") else 2
        np.testing.assert_allclose(float(idata["estimates"][setting.residual]) ** power, record["varFix"], rtol=rtol)
    if setting.dispersion_coefficients:
        values = np.array(record["disp_model"]["values"])
        found = idata["estimates"][setting.dispersion_coefficients]
        errors = idata["standard_errors"][setting.dispersion_coefficients]
        np.testing.assert_allclose(found, values[:, 0], rtol=rtol, atol=1e-6)
        np.testing.assert_allclose(errors, values[:, 1], rtol=rtol)


@pytest.mark.parametrize("name", [name for name in RECORDS if "rotated" not in name])
def test_random_effects_and_their_errors(shared, reference, name):
    setting, idata = fitted(shared, name)
    record = reference(f"seeds/{name}")["got_tight_conv"]
    rtol = LOOSER.get(name, TOLERANCE)
    u = np.concatenate([idata["estimates"][effect].values.ravel() for effect in setting.effects])
    scale = np.max(np.abs(record["ranef"]))
    np.testing.assert_allclose(u, record["ranef"], rtol=0, atol=rtol * scale)
    value_names = {e["name"]: e["value_name"] for e in model_of(idata)["random_effects"]}
    errors = idata["unconstrained_standard_errors"]
    v_se = np.concatenate([errors[value_names[effect]].values.ravel() for effect in setting.effects])
    np.testing.assert_allclose(v_se, record["se_ranef"], rtol=10 * rtol if name in LOOSER else 1e-4)


@pytest.mark.parametrize(("name", "beta"), [("EQL", (0.267417, 0.037707)), ("EQL1", (0.233713, 0.037703))])
def test_spatial_effects_in_the_eigenbasis(shared, reference, name, beta):
    """tau = 1/b0, rho = -b1/b0; the effects agree after rotation (eigenvectors have no sign)."""
    _, idata = fitted(shared, f"lipcancer_CAR_rotated_{name}")
    estimates = idata["estimates"]
    # with the correction hglm's leverages lag (see LOOSER): its 0.233713 is 0.2337107 at the true fixed point
    np.testing.assert_allclose(estimates["beta"], beta, atol=1.5e-6 if name == "EQL" else 4e-6)
    record = reference(f"seeds/lipcancer_CAR_rotated_{name}")["got_tight_conv"]
    values = np.array(record["ranef_disp_model"][".|Random1"]["values"])[:, 0]
    np.testing.assert_allclose(estimates["b"], values, rtol=1e-4)  # the record stops there: the oracle goes on 4e-5
    if name == "EQL":
        b0, b1 = estimates["b"].values
        np.testing.assert_allclose((1 / b0, -b1 / b0), (0.154133, 0.173996), atol=1e-5)
        _, vectors = lip_cancer_eigen(shared / "data")
        published = reference("seeds/tut_lipcancer_CAR_EQL")["got_tight_conv"]["ranef"]
        np.testing.assert_allclose(vectors @ estimates["u"].values, published, atol=2e-5)


def test_bacteria_with_correction_is_at_the_true_fixed_point(shared, reference):
    """hglm's record has lambda = 1.48827, but its own equations, solved, have 1.47726 (see the oracle's tests)."""
    from tests.oracle.hglm import hglm
    from tests.oracle.reference import CASES

    _, idata = fitted(shared, "bacteria_EQL1_fixdisp")
    exact = hglm(**CASES["bacteria_EQL1_fixdisp"](), fixed_point=True)
    np.testing.assert_allclose(idata["estimates"]["beta"], exact.fixef, rtol=1e-7)
    np.testing.assert_allclose(float(idata["estimates"]["sigma_u"]) ** 2, exact.var_ranef[0], rtol=1e-7)
    np.testing.assert_allclose(idata["standard_errors"]["beta"], exact.se_fixef, rtol=1e-7)
    record = reference("seeds/bacteria_EQL1_fixdisp")["got_tight_conv"]
    assert abs(exact.var_ranef[0] / record["varRanef"][0] - 1) > 5e-3


def test_variance_that_is_zero(shared, reference):
    """Twenty effects of a random matrix have no variance: hglm crawls towards zero for 155 iterations."""
    with pytest.warns(hlik.ConvergenceWarning, match="boundary: sd of 'w' estimated at zero"):
        _, idata = fitted(shared, "tut_modelsel_hg1")
    assert float(idata["estimates"]["sigma_w"]) ** 2 < 1e-6
    assert np.isnan(float(idata["standard_errors"]["sigma_w"]))
    assert idata["fit"].attrs["n_iterations"] <= 25
    _, without = fitted(shared, "tut_modelsel_hg2")  # the model without them: the same estimates
    for name in ("beta", "sigma_u", "sigma"):
        np.testing.assert_allclose(idata["estimates"][name], without["estimates"][name], rtol=1e-5)
    ratio = 2 * (without["fit"]["p_bv_h"] - idata["fit"]["p_bv_h"])
    assert abs(float(ratio)) < 1e-4  # REML log-likelihoods: nothing gained (hglm's own difference is 0.079)


def test_animal_model(shared, reference):
    """REML of the QTLMAS animal model, exact by dense algebra; hglm stops at heritability 0.4046."""
    _, idata = fitted(shared, "tut_qtlmas")
    truth = reference("truth/qtlmas_exact_reml")
    residual, genetic = float(idata["estimates"]["sigma"]) ** 2, float(idata["estimates"]["sigma_u"]) ** 2
    np.testing.assert_allclose((residual, genetic), (truth["varFix"], truth["varRanef"]), rtol=1e-6)
    np.testing.assert_allclose(genetic / (genetic + residual), truth["h2"], rtol=1e-6)
    np.testing.assert_allclose(float(idata["standard_errors"]["beta"]), truth["se_fixef"], rtol=1e-6)
    np.testing.assert_allclose(idata["estimates"]["u"][:12], truth["ranef_first12"], rtol=1e-5)
    assert idata["fit"].attrs["n_iterations"] <= 10  # hglm: 157 to its fixed point


def test_figures_of_the_issue(shared):
    _, seeds = fitted(shared, "rj_example5_seeds_beta")
    np.testing.assert_allclose(seeds["estimates"]["beta"], (-0.54241, 1.33901, 0.07672, -0.82544), atol=6e-6)
    np.testing.assert_allclose(float(seeds["estimates"]["lam"]), 0.024350, atol=1e-6)
    _, bacteria = fitted(shared, "tut_g1_bacteria")
    np.testing.assert_allclose(bacteria["estimates"]["beta"], (2.30432, -0.13524), atol=6e-6)
    np.testing.assert_allclose(float(bacteria["estimates"]["y_dispersion"]), 0.757696, atol=1e-6)
    np.testing.assert_allclose(float(bacteria["estimates"]["sigma_u"]) ** 2, 1.619435, atol=1e-5)
