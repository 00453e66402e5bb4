"""Reaction times of sleep-deprived drivers: a linear mixed model with random slopes (Belenky et al. 2003).

The sleep of eighteen lorry drivers was cut to three hours a night; on each of ten days, 0 to 9, their mean
reaction time in a series of tests was taken. Reactions get slower by about 10 ms a day, but not for everyone.
The example that users of lme4 know best; with independent intercepts and slopes, ``Reaction ~ Days + (Days ||
Subject)``, and with intercepts only, ``Reaction ~ Days + (1 | Subject)``. Response and effects being normal,
p_v(h) is the exact likelihood and p_bv(h) the exact restricted likelihood.

Units: ``Reaction`` in milliseconds, ``Days`` in days. Source: data frame ``sleepstudy`` of the R package
lme4.

References
----------
Belenky, G. et al. (2003). Patterns of performance degradation and restoration during sleep restriction and
subsequent recovery. Journal of Sleep Research 12, 1-12.
Bates, D., Mächler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects models using lme4.
Journal of Statistical Software 67(1), 1-48.
"""

import numpy as np
import pandas as pd
import pymc as pm

from models import DATA

COEFFICIENTS = ("Intercept", "Days")

LME4_REML = {
    "beta": (251.405105, 10.467286),
    "se_beta": (6.885381, 1.559566),
    "sigma": 25.565285,
    "sigma_intercept": 25.051328,
    "sigma_slope": 5.988172,
    "log_likelihood": -871.834647,
}
"""``(Days || Subject)``, restricted likelihood: what ``lmer`` gives (recomputed by dense linear algebra)."""

LME4_ML = {
    "beta": (251.405105, 10.467286),
    "se_beta": (6.707674, 1.519314),
    "sigma": 25.556135,
    "sigma_intercept": 24.171265,
    "sigma_slope": 5.799409,
    "log_likelihood": -876.001628,
}
"""``(Days || Subject)``, likelihood."""

LME4_INTERCEPT_REML = {
    "beta": (251.405105, 10.467286),
    "se_beta": (9.746716, 0.804221),
    "sigma": 30.991234,
    "sigma_intercept": 37.123827,
    "log_likelihood": -893.232543,
}
"""``(1 | Subject)``, restricted likelihood."""

LME4_INTERCEPT_ML = {
    "beta": (251.405105, 10.467286),
    "se_beta": (9.506185, 0.801735),
    "sigma": 30.895434,
    "sigma_intercept": 36.012082,
    "log_likelihood": -897.039322,
}
"""``(1 | Subject)``, likelihood."""


def load() -> pd.DataFrame:
    """Read the sleep study.

    180 rows: ``Reaction`` (ms), ``Days`` (0 to 9), ``Subject`` (18 numbers).
    """
    return pd.read_csv(DATA / "sleepstudy.csv")


def build(data: pd.DataFrame) -> pm.Model:
    """Build the model with independent random intercepts and slopes.

    ``beta`` (coef), ``sigma_intercept``, ``sigma_slope``, the residual ``sigma``, the subjects' effects
    ``u_intercept`` and ``u_slope`` (subject) and the observed ``reaction`` (obs).
    """
    days = data["Days"].to_numpy(float)
    X = np.column_stack([np.ones(len(data)), days])
    subject, subjects = pd.factorize(data["Subject"], sort=True)
    with pm.Model(coords={"coef": COEFFICIENTS, "subject": subjects, "obs": data.index}) as model:
        beta = pm.Normal("beta", [250, 0], [100, 50], dims="coef")
        sigma_intercept = pm.HalfNormal("sigma_intercept", 50)
        sigma_slope = pm.HalfNormal("sigma_slope", 20)
        sigma = pm.HalfNormal("sigma", 50)
        u_intercept = pm.Normal("u_intercept", 0, sigma_intercept, dims="subject")
        u_slope = pm.Normal("u_slope", 0, sigma_slope, dims="subject")
        mu = X @ beta + u_intercept[subject] + u_slope[subject] * days
        pm.Normal("reaction", mu, sigma, observed=data["Reaction"].to_numpy(), dims="obs")
    return model


def build_intercept(data: pd.DataFrame) -> pm.Model:
    """Build the model with random intercepts only.

    ``beta`` (coef), ``sigma_intercept``, the residual ``sigma``, the subjects' effects ``u_intercept``
    (subject) and the observed ``reaction`` (obs).
    """
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    subject, subjects = pd.factorize(data["Subject"], sort=True)
    with pm.Model(coords={"coef": COEFFICIENTS, "subject": subjects, "obs": data.index}) as model:
        beta = pm.Normal("beta", [250, 0], [100, 50], dims="coef")
        sigma_intercept = pm.HalfNormal("sigma_intercept", 50)
        sigma = pm.HalfNormal("sigma", 50)
        u_intercept = pm.Normal("u_intercept", 0, sigma_intercept, dims="subject")
        mu = X @ beta + u_intercept[subject]
        pm.Normal("reaction", mu, sigma, observed=data["Reaction"].to_numpy(), dims="obs")
    return model
