"""The sleep study against lme4: by Bambi's default model and by formula."""

import warnings

import numpy as np
import pytest

import hlik
from models import sleepstudy
from tests.graph.test_bambi import bmb

# R 4.2.2, lme4 1.1-31, sleepstudy of lme4:
#   lmer(Reaction ~ Days + (Days || Subject), sleepstudy, REML = FALSE,
#        control = lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-12)))
INDEPENDENT_ML = {
    "Intercept": 251.40510485, "Days": 10.46728596,
    "se": (6.707737453, 1.519305372),
    "1|Subject_sigma": 24.17158788, "Days|Subject_sigma": 5.79936618, "sigma": 25.55612296,
    "log_likelihood": -876.0016276,
    "1|Subject": (1.85475017, -40.02265886, -38.72347759), "Days|Subject": (9.236412623, -8.617413474, -5.434328790),
}  # fmt: skip
# REML = TRUE
INDEPENDENT_REML = {
    "Intercept": 251.40510485, "Days": 10.46728596,
    "se": (6.885380817, 1.559569098),
    "1|Subject_sigma": 25.051328325, "Days|Subject_sigma": 5.988186674, "sigma": 25.565279202,
    "log_likelihood": -871.8346468,
    "1|Subject": (1.512664769, -40.373872828, -39.181027904),
    "Days|Subject": (9.323497040, -8.599175741, -5.387794427),
}  # fmt: skip


def from_bambi(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bmb.Model("Reaction ~ Days + (Days | Subject)", sleepstudy.load(), **settings)
        model.build()
    return model


def from_formula():
    return hlik.from_formula("Reaction ~ Days + (Days || Subject)", sleepstudy.load())


@pytest.mark.parametrize("make", [from_bambi, lambda: from_bambi(noncentered=False), from_formula])
@pytest.mark.parametrize(
    ("estimator", "published", "likelihood"),
    [
        (hlik.Laplace(), INDEPENDENT_ML, "p_v_h"),
        (hlik.Laplace(reml=True), INDEPENDENT_REML, "p_bv_h"),
        (hlik.EQL(), INDEPENDENT_REML, "p_bv_h"),
    ],
    ids=["ML", "REML", "EQL"],
)
def test_independent_effects(make, estimator, published, likelihood):
    """1e-4: lme4's optimiser stops when the deviance changes by less than 1e-12, about 1e-5 in the deviations."""
    idata = hlik.fit(make(), estimator, progressbar=False, draws=0)
    for name in ("1|Subject_sigma", "Days|Subject_sigma", "sigma"):
        assert float(idata.estimates[name]) == pytest.approx(published[name], rel=1e-4)
    assert float(idata.estimates["Days"]) == pytest.approx(published["Days"], rel=1e-7)
    assert float(idata.standard_errors["Days"]) == pytest.approx(published["se"][1], rel=1e-4)
    assert float(idata.fit[likelihood]) == pytest.approx(published["log_likelihood"], abs=1e-5)
    for name in ("1|Subject", "Days|Subject"):
        np.testing.assert_allclose(idata.estimates[name].to_numpy()[:3], published[name], rtol=1e-3)
    if make is from_formula:  # Bambi's Intercept is that of centred predictors
        assert float(idata.estimates["Intercept"]) == pytest.approx(published["Intercept"], rel=1e-7)
        assert float(idata.standard_errors["Intercept"]) == pytest.approx(published["se"][0], rel=1e-4)


# lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE and TRUE, control as above)
CORRELATED = {
    "ML": {
        "se": (6.632122742, 1.502230214), "sigmas": (23.77975958946, 5.71679851393), "rho": 0.08132109343,
        "sigma": 25.59190703649, "log_likelihood": -875.9696722,
        "intercepts": (2.81578902, -40.04785492, -38.43249687), "slopes": (9.075506778, -8.644151662, -5.513470605),
    },
    "REML": {
        "se": (6.824596695, 1.545789644), "sigmas": (24.74065799498, 5.92213765890), "rho": 0.06555123824,
        "sigma": 25.59179572168, "log_likelihood": -871.814136,
        "intercepts": (2.25855095, -40.39873808, -38.96040896), "slopes": (9.198975766, -8.619680615, -5.448856470),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CORRELATED)
def test_correlated_effects(kind):
    """1e-4 of the deviations, 1e-3 of a correlation near zero: as far as lme4's optimiser went."""
    model = hlik.from_formula("Reaction ~ Days + (Days | Subject)", sleepstudy.load())
    idata = hlik.fit(model, hlik.Laplace(reml=kind == "REML"), progressbar=False, draws=0)
    published = CORRELATED[kind]
    assert float(idata.fit["p_bv_h" if kind == "REML" else "p_v_h"]) == pytest.approx(
        published["log_likelihood"], abs=1e-5
    )
    np.testing.assert_allclose(idata.estimates["Days|Subject_chol_stds"], published["sigmas"], rtol=1e-4)
    assert float(idata.estimates["Days|Subject_chol_corr"][0, 1]) == pytest.approx(published["rho"], rel=1e-3)
    assert float(idata.estimates["sigma"]) == pytest.approx(published["sigma"], rel=1e-5)
    assert float(idata.estimates["Intercept"]) == pytest.approx(251.40510485, rel=1e-7)
    assert float(idata.standard_errors["Intercept"]) == pytest.approx(published["se"][0], rel=1e-4)
    assert float(idata.standard_errors["Days"]) == pytest.approx(published["se"][1], rel=1e-4)
    effects = idata.estimates["Days|Subject"].to_numpy()[:3]
    np.testing.assert_allclose(effects.T, [published["intercepts"], published["slopes"]], rtol=2e-3)
