"""Errors of random effects and REML's fixed effects with those of the dispersions: glmmTMB, and closed forms."""

import numpy as np
import pymc as pm
import pytest

import hlik
from models import sleepstudy
from tests.inference.test_intervals import cbpp, fit

REML = hlik.Laplace(reml=True)


def unbalanced(centred=True):
    """The sleep study without its first seven rows, random intercepts."""
    data = sleepstudy.load().iloc[7:]
    subject, days = data["Subject"].astype("category").cat.codes.to_numpy(), data["Days"].to_numpy()
    with pm.Model() as model:
        beta, sigma_u = pm.Normal("beta", 0, 1, shape=2), pm.HalfNormal("sigma_u", 1)
        u = pm.Normal("u", 0, sigma_u if centred else 1, shape=18)
        scaled = pm.Deterministic("effect", u if centred else sigma_u * u)
        eta = beta[0] + beta[1] * days + scaled[subject]
        pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=data["Reaction"].to_numpy())
    return model


def test_binomial_errors_are_those_of_glmmtmb():
    """R: as.data.frame(ranef(glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial))).

    glmmTMB's Hessian is differenced too: 3e-7 between them.
    """
    errors = hlik.ranef(fit(cbpp()))["se"]
    condsd = [0.39392217, 0.39312388, 0.34509042, 0.43359795, 0.38012573, 0.40778415, 0.38864458, 0.38125090]
    np.testing.assert_allclose(errors[:8], condsd, rtol=1e-6)


def test_binomial_reml_errors_are_those_of_glmmtmb():
    """The same with REML = TRUE: sqrt(diag(vcov(g, full = TRUE))), condsd, logLik."""
    idata = fit(cbpp(), REML)
    np.testing.assert_allclose(idata.standard_errors.beta, [0.23763973, 0.30550177, 0.32547873, 0.42648682], rtol=1e-6)
    np.testing.assert_allclose(idata.unconstrained_standard_errors.sigma_log__, 0.27814472, rtol=1e-6)
    np.testing.assert_allclose(hlik.ranef(idata)["se"][:4], [0.39651692, 0.40400291, 0.34927743, 0.44424368], rtol=1e-6)
    np.testing.assert_allclose(hlik.loglik(idata), -93.1990671, rtol=1e-9)


def test_gaussian_reml_errors_are_those_of_glmmtmb():
    """R: glmmTMB(Reaction ~ Days + (1 | Subject), sleepstudy[-(1:7), ], REML = TRUE)."""
    idata = fit(unbalanced(), REML)
    np.testing.assert_allclose(idata.standard_errors.beta, [10.03649607, 0.80158563], rtol=1e-6)
    np.testing.assert_allclose(hlik.ranef(idata)["se"][:4], [18.049673, 12.876693, 12.830382, 12.731424], rtol=1e-6)


@pytest.mark.parametrize("estimator", [hlik.Laplace(), REML])
def test_non_centred_effects_have_the_same_errors(estimator):
    """sigma z has the errors of u; z = u / sigma those of the quotient, by draws from the joint distribution."""
    centred = fit(unbalanced(), estimator)
    idata = fit(unbalanced(centred=False), estimator, draws=40_000, random_seed=3)
    np.testing.assert_allclose(idata.standard_errors.effect, centred.standard_errors.u, rtol=1e-5)
    np.testing.assert_allclose(idata.diagnostics.u_v_se, centred.standard_errors.u, rtol=1e-5)
    spread = idata.posterior["u"].std(("chain", "draw"))
    np.testing.assert_allclose(idata.standard_errors.u, spread, rtol=0.05)  # not linear in sigma: a few per cent


def test_draws_have_the_joint_covariance():
    """Standard deviations of draws of the effects: within 4.5 of their Monte Carlo errors, 1 / sqrt(2 n)."""
    idata = fit(unbalanced(), REML, draws=40_000, random_seed=4)
    ratio = idata.posterior["u"].std(("chain", "draw")) / idata.standard_errors.u
    assert np.all(np.abs(ratio - 1) < 4.5 / np.sqrt(2 * 40_000))


def test_boundary_keeps_the_other_errors():
    """At a variance of zero the effects are zero, and the fixed effects have the errors of the model without them."""
    y = np.tile([0.1, 1.0, 1.8], 4)
    group = np.repeat(np.arange(4), 3)
    with pm.Model() as model:
        mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=4)
        pm.Normal("y", mean + u[group], sigma, observed=y)
    for estimator in (hlik.Laplace(), REML):
        with pytest.warns(hlik.ConvergenceWarning, match="boundary"):
            idata = fit(model, estimator)
        assert np.isnan(idata.standard_errors.sigma_u)
        ddof = 1 if estimator.reml else 0
        np.testing.assert_allclose(idata.standard_errors["mean"], y.std(ddof=ddof) / np.sqrt(12), rtol=1e-5)
