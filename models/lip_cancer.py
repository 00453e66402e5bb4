"""Lip cancer in Scotland: counts by district against what was expected (Clayton and Kaldor 1987).

New cases of lip cancer in men, 1975 to 1980, in the 56 districts of Scotland, and the number expected from
Scotland's rates and each district's ages. Work in the open is thought to raise the risk, so the covariate is
the share of the workforce in agriculture, fishing and forestry. Rates vary by more than Poisson chance and
that covariate explain: here each district has its own independent normal effect. (Neighbouring districts
resemble each other; the spatial model needs a neighbourhood matrix.)

Units: ``observed`` in cases, ``expected`` in cases, ``aff`` in percent of the workforce.

References
----------
Clayton, D. and Kaldor, J. (1987). Empirical Bayes estimates of age-standardized relative risks for use in
disease mapping. Biometrics 43, 671-681.
Breslow, N. E. and Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. Journal of
the American Statistical Association 88, 9-25.
"""

import numpy as np
import pandas as pd
import pymc as pm

from models import DATA

COEFFICIENTS = ("Intercept", "aff")

HGLM_FIXED_POINT = {
    "beta": (-0.440639172, 0.067947729),
    "se_beta": (0.157009584, 0.014072525),
    "sigma2": 0.355218194,
    "df_residual": 16,
}
"""EQL, independent effects, dispersion one: R package hglm 2.2-1 run on to convergence."""

LAPLACE = {"beta": (-0.489493721, 0.068297347), "sigma": 0.586725445, "log_likelihood": -171.769106363}
"""Laplace's approximation: lme4 1.1-31, ``glmer``."""

EXACT = {
    "beta": (-0.490139559, 0.068300639),
    "se_beta": (0.157153284, 0.014022976),
    "sigma2": 0.348244078,
    "se_sigma2": 0.098083002,
    "log_likelihood": -171.722594537,
}
"""Maximum likelihood by quadrature."""


def load() -> pd.DataFrame:
    """Read the lip-cancer data.

    Returns
    -------
    DataFrame
        One row per district: ``district`` (1 to 56), ``name``, ``observed``, ``expected``, ``aff``.
    """
    return pd.read_csv(DATA / "lip_cancer.csv")


def build(data: pd.DataFrame) -> pm.Model:
    """Build the Poisson model with an independent normal effect per district.

    Parameters
    ----------
    data : DataFrame
        As from `load`.

    Returns
    -------
    pymc.Model
        ``beta`` (coef), ``sigma``, the districts' effects ``u`` (district) and the observed counts ``cases``
        (district); the logarithm of the expected number is an offset.
    """
    X = np.column_stack([np.ones(len(data)), data["aff"]])
    offset = np.log(data["expected"].to_numpy())
    with pm.Model(coords={"coef": COEFFICIENTS, "district": data["name"].to_numpy()}) as model:
        beta = pm.Normal("beta", 0, 5, dims="coef")
        sigma = pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, dims="district")
        mu = pm.math.exp(X @ beta + u + offset)
        pm.Poisson("cases", mu=mu, observed=data["observed"].to_numpy(), dims="district")
    return model
