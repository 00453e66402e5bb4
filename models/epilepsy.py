"""Epileptic seizures under progabide: overdispersed counts over time (Thall and Vail 1990).

Fifty-nine patients with epilepsy were given the drug progabide (31) or a placebo (28); their seizures were
counted over eight weeks before treatment and over four periods of two weeks under it. The vignette of the R
package mcemGLM fits a negative binomial model, log link, variance ``mu + mu**2 / alpha``, with a random
intercept per patient that follows a t distribution with 10 degrees of freedom. Its covariates, used here too,
are ``base = log(seizures before / 4)``, ``group`` (1 progabide), their product, ``age = log(years)`` and
``visit`` = -0.3, -0.1, 0.1, 0.3.

Copies of these data differ. The one kept here is geepack's; against it MASS's ``epil`` has other counts in
three periods, another age for three patients and another baseline for one; mcemGLM's has another age for two
(8 and 13). `load` puts those two ages in unless told not to, so that the published numbers can be reproduced.

Units: counts of seizures per two weeks (``y``) and per eight weeks (``base`` of the data), ages in years.

References
----------
Thall, P. F. and Vail, S. C. (1990). Some covariance models for longitudinal count data with overdispersion.
Biometrics 46, 657-671.
Booth, J. G., Casella, G., Friedl, H. and Hobert, J. P. (2003). Negative binomial loglinear mixed models.
Statistical Modelling 3, 179-191.
Acosta Archila, F. (2023). mcemGLM (R package, version 1.1.3), vignette.
"""

import numpy as np
import pandas as pd
import pymc as pm

from models import DATA

COEFFICIENTS = ("Intercept", "base", "group", "age", "visit", "base:group")

MCEMGLM_AGES = {8: 36, 13: 28}
"""Ages in years of patients 8 and 13 in mcemGLM's copy (geepack and MASS have 42 and 23)."""

MCEMGLM_VIGNETTE = {
    "beta": (-0.9920524, 0.8950982, -0.8754207, 0.3690062, -0.2578519, 0.3016896),
    "se_beta": (1.1068225, 0.1342273, 0.4003589, 0.3200139, 0.1668548, 0.2065637),
    "alpha": 7.385486,
    "se_alpha": 1.795523,
    "scale2": 0.2190529,
    "se_scale2": 0.1140393,
}
"""Negative binomial with t effects, by MCEM: vignette, section 2.2.

The t distribution has 10 degrees of freedom and is one multivariate t: a single chi-square mixes all
patients. ``scale2`` is the squared scale of the t distribution, not its variance.

The maximum of that likelihood, by quadrature, is at ``scale2 = 0.218334`` with a standard error of 0.1146: the
published value differs by mcemGLM's Monte Carlo error, less than a hundredth of its standard error. With a t
distribution for each patient the maximum is at 0.185115 (0.0541), with normal effects at 0.224518 (0.0604).
"""

EXACT_NEGATIVE_BINOMIAL = {
    "beta": (-0.963095271, 0.891094620, -0.878917774, 0.362164631, -0.257769616, 0.302990533),
    "se_beta": (1.087563865, 0.132293304, 0.401939826, 0.316037517, 0.166379662, 0.202804931),
    "alpha": 7.458835415,
    "se_alpha": 1.758247085,
    "sigma2": 0.224517720,
    "se_sigma2": 0.060425751,
    "log_likelihood": -625.647746775,
}
"""Negative binomial with normal effects (the model of `build`): maximum likelihood by quadrature."""

LAPLACE_NEGATIVE_BINOMIAL = {
    "beta": (-0.964245292, 0.891162914, -0.879024315, 0.362489542, -0.257808873, 0.303091911),
    "alpha": 7.474096468,
    "sigma": 0.472302764,
    "log_likelihood": -625.783442526,
}
"""The same by Laplace's approximation: glmmTMB 1.1.5."""


def load(mcemglm_ages: bool = True) -> pd.DataFrame:
    """Read the epilepsy data.

    One row per patient and period: ``subject`` (1 to 59), ``period`` (1 to 4), ``y`` (seizures), ``trt``
    (placebo, progabide), ``base`` (seizures in the eight weeks before), ``age``.

    Parameters
    ----------
    mcemglm_ages : bool, default True
        Put in the two ages of `MCEMGLM_AGES`, with which the published numbers were computed. False: as in
        the file.
    """
    data = pd.read_csv(DATA / "epilepsy.csv")
    if mcemglm_ages:
        data["age"] = data["subject"].map(MCEMGLM_AGES).fillna(data["age"]).astype(int)
    return data


def design(data: pd.DataFrame) -> np.ndarray:
    """Make the design matrix of the published analysis.

    Returns
    -------
    ndarray of shape (n_rows, 6)
        Columns `COEFFICIENTS`.
    """
    base = np.log(data["base"].to_numpy() / 4)
    group = (data["trt"] == "progabide").to_numpy(float)
    age = np.log(data["age"].to_numpy())
    visit = (data["period"].to_numpy() - 2.5) / 5
    return np.column_stack([np.ones(len(data)), base, group, age, visit, base * group])


def _coords(data: pd.DataFrame) -> dict:
    return {"coef": COEFFICIENTS, "patient": data["subject"].unique(), "obs": data.index}


def build(data: pd.DataFrame) -> pm.Model:
    """Build the negative binomial model with a normal intercept per patient.

    ``beta`` (coef), ``alpha`` (the variance is ``mu + mu**2 / alpha``), ``sigma``, the patients' effects
    ``u`` (patient) and the observed counts ``y`` (obs).
    """
    X = design(data)
    patient = pd.factorize(data["subject"])[0]
    with pm.Model(coords=_coords(data)) as model:
        beta = pm.Normal("beta", 0, 5, dims="coef")
        alpha = pm.Gamma("alpha", 2, 0.1)
        sigma = pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, dims="patient")
        mu = pm.math.exp(X @ beta + u[patient])
        pm.NegativeBinomial("y", mu=mu, alpha=alpha, observed=data["y"].to_numpy(), dims="obs")
    return model


def build_poisson(data: pd.DataFrame) -> pm.Model:
    """Build the Poisson model with a normal intercept per patient.

    ``beta`` (coef), ``sigma``, the patients' effects ``u`` (patient) and the observed counts ``y`` (obs).
    """
    X = design(data)
    patient = pd.factorize(data["subject"])[0]
    with pm.Model(coords=_coords(data)) as model:
        beta = pm.Normal("beta", 0, 5, dims="coef")
        sigma = pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, dims="patient")
        mu = pm.math.exp(X @ beta + u[patient])
        pm.Poisson("y", mu=mu, observed=data["y"].to_numpy(), dims="obs")
    return model
