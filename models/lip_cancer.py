"""Lip cancer in Scotland: counts by district against what was expected (Clayton and Kaldor 1987).

New cases of lip cancer in men, 1975 to 1980, in the 56 districts of Scotland, and the number expected from
Scotland's rates and each district's ages. Work in the open is thought to raise the risk, so the covariate is
the share of the workforce in agriculture, fishing and forestry. Rates vary by more than Poisson chance and
that covariate explain: each district has its own normal effect, independent (`build`) or, since neighbouring
districts resemble each other, from a conditional autoregression (`build_car`), as in section 4 of the tutorial on
hglm. The neighbours kept here are districts with a common border on a map; the published analyses use a list with 132
pairs, of which 16 have no common border on that map, and 12 that have one are missing. `neighbours` reads either.

Units: ``observed`` in cases, ``expected`` in cases, ``aff`` in percent of the workforce.

References
----------
Clayton, D. and Kaldor, J. (1987). Empirical Bayes estimates of age-standardized relative risks for use in
disease mapping. Biometrics 43, 671-681.
Breslow, N. E. and Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. Journal of
the American Statistical Association 88, 9-25.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import scipy.sparse as sp

import hlik
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

CAR_EQL = {"beta": (0.267417, 0.0377074), "se_beta": (0.207288, 0.0121505), "tau": 0.1541, "rho": 0.17400}
"""Conditional autoregression over the published neighbours, EQL: hglm 2.2-1 with the effects written by hand on the
eigenvectors of the neighbour matrix, at its fixed point."""

CAR_EXACT = {"beta": (0.2359, 0.03782), "se_beta": (0.2368, 0.01217), "tau": 0.1453, "rho": 0.174027}
"""The same by maximum likelihood: randomised quasi-Monte Carlo; Monte Carlo error of the intercept 0.003."""


def load() -> pd.DataFrame:
    """Read the lip-cancer data.

    One row per district: ``district`` (1 to 56), ``name``, ``observed``, ``expected``, ``aff``.
    """
    return pd.read_csv(DATA / "lip_cancer.csv")


def build(data: pd.DataFrame) -> pm.Model:
    """Build the Poisson model with an independent normal effect per district.

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


def neighbours(path: str | Path = DATA / "lip_cancer_borders.csv") -> sp.csr_array:
    """Read which districts are neighbours.

    Parameters
    ----------
    path : str or Path
        CSV file whose first two columns are the numbers of two neighbours. Default: the common borders on the map of
        `load`, on which islands touch the district next to them.

    Returns
    -------
    csr_array of shape (56, 56)
        Symmetric, ones for neighbours.
    """
    pairs = pd.read_csv(path).iloc[:, :2].to_numpy() - 1
    D = sp.coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(56, 56))
    both = sp.csr_array(D + D.T)
    both.data[:] = 1.0
    return both


def build_car(data: pd.DataFrame, D: sp.csr_array | None = None) -> pm.Model:
    """Build the Poisson model with a conditional autoregression over neighbouring districts.

    ``beta`` (coef), ``tau`` and ``rho`` of ``v ~ N(0, tau (I - rho D)^-1)``, the districts' effects ``v``
    (district) and the observed counts ``cases`` (district).

    Parameters
    ----------
    data : DataFrame
        As from `load`.
    D : csr_array of shape (56, 56)
        As from `neighbours`, its default.
    """
    D = neighbours() if D is None else D
    X = np.column_stack([np.ones(len(data)), data["aff"]])
    offset = np.log(data["expected"].to_numpy())
    low, high = hlik.distributions.rho_range(D)
    with pm.Model(coords={"coef": COEFFICIENTS, "district": data["name"].to_numpy()}) as model:
        beta = pm.Normal("beta", 0, 5, dims="coef")
        tau = pm.HalfNormal("tau", 1)
        rho = pm.Uniform("rho", low, high)
        v = hlik.distributions.CAR("v", tau=tau, rho=rho, D=D, dims="district")
        pm.Poisson(
            "cases", mu=pm.math.exp(X @ beta + v + offset), observed=data["observed"].to_numpy(), dims="district"
        )
    return model
