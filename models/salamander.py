"""Do two populations of salamanders interbreed? Binary outcomes, crossed effects (McCullagh and Nelder 1989).

Mountain dusky salamanders of two populations, Rough Butt (R) and White Side (W), were put together in pairs
in three experiments at the University of Chicago in 1986, and it was noted whether they mated: 360 pairings
of 60 females with 60 males (animals of the first experiment that were used again are counted as new ones, as
in every analysis cited here). White Side females hardly accept Rough Butt males (WR). Animals differ, females
and males each with a random effect, and the effects are crossed: the likelihood does not split into small
integrals, which made these data the test of every method for binary mixed models. Exact maximum likelihood
puts the variances at 1.38 (females) and 1.24 (males); EQL at 0.72 and 0.63.

Units: none. The data are not kept here, because no package that could be had without R has them. `load` reads
a CSV file written from the R package mcemGLM, glmm or hglm.data, for example by
``write.csv(mcemGLM::salamander, "salamander.csv", row.names = FALSE)``.

References
----------
McCullagh, P. and Nelder, J. A. (1989). Generalized Linear Models, 2nd edition, section 14.5, pages 439-450.
Chapman and Hall.
Knudson, C., Benson, S., Geyer, C. and Jones, G. (2021). Likelihood-based inference for generalized linear
mixed models: inference with the R package glmm. Stat 10, e339.
Acosta Archila, F. (2023). mcemGLM (R package, version 1.1.3), vignette.
"""

from pathlib import Path

import pandas as pd
import pymc as pm

CROSSES = ("RR", "RW", "WR", "WW")
"""Type of the female, then of the male."""

MCEMGLM_VIGNETTE = {
    "beta": (1.0199914, 0.3247652, -1.9538935, 1.0010712),
    "se_beta": (0.4192513, 0.3973106, 0.4806576, 0.4248659),
    "sigma2_female": 1.409038,
    "se_sigma2_female": 0.6309231,
    "sigma2_male": 1.259087,
    "se_sigma2_male": 0.5867664,
}
"""Monte Carlo EM: vignette of mcemGLM, section 2.1."""

GLMM_VIGNETTE = {
    "beta": (0.9560113, 0.2804932, -1.8968316, 0.9722904),
    "se_beta": (0.3502521, 0.3660097, 0.4222644, 0.3580335),
    "sigma2_female": 1.287848,
    "se_sigma2_female": 0.4434794,
    "sigma2_male": 1.083975,
    "se_sigma2_male": 0.413132,
}
"""Monte Carlo likelihood with 10,000 draws: vignette of glmm. Visibly below the exact variances."""

LAPLACE = {
    "beta": (1.008208285, 0.306177631, -1.895956417, 0.990402285),
    "sigma_female": 1.083665048,
    "sigma_male": 1.020278880,
    "log_likelihood": -209.276606320,
}
"""Laplace's approximation: lme4 1.1-31, ``glmer``."""

EXACT = {
    "beta": (1.01816, 0.32120, -1.94090, 0.99651),
    "se_beta": (0.41277, 0.39405, 0.47021, 0.41053),
    "sigma2_female": 1.3842,
    "se_sigma2_female": 0.6253,
    "sigma2_male": 1.2386,
    "se_sigma2_male": 0.5776,
    "log_likelihood": -207.5976,
}
"""Maximum likelihood by randomised quasi-Monte Carlo, block by block; Monte Carlo errors below 0.0004."""


def load(path: str | Path) -> pd.DataFrame:
    """Read the salamander data from a CSV file.

    360 rows: ``Cross`` (one of `CROSSES`), ``Female``, ``Male`` (the file's numbers), ``Mate``.

    Parameters
    ----------
    path : str or Path
        File with at least the columns ``Cross`` (RR or R/R, ...), ``Female``, ``Male`` and ``Mate`` (0, 1),
        one row per pairing.
    """
    data = pd.read_csv(path)[["Cross", "Female", "Male", "Mate"]]
    data["Cross"] = data["Cross"].str.replace("/", "")
    unknown = set(data["Cross"]) - set(CROSSES)
    if unknown:
        raise ValueError(f"column 'Cross' of {path}: expected {CROSSES}, found also {sorted(unknown)}")
    return data


def build(data: pd.DataFrame) -> pm.Model:
    """Build the logistic model with crossed normal effects of females and males.

    ``beta`` (cross), ``sigma_female``, ``sigma_male``, the animals' effects ``u_female`` (female) and
    ``u_male`` (male), and the observed ``mate`` (obs).
    """
    cross = pd.Categorical(data["Cross"], categories=CROSSES).codes
    female, females = pd.factorize(data["Female"], sort=True)
    male, males = pd.factorize(data["Male"], sort=True)
    with pm.Model(coords={"cross": CROSSES, "female": females, "male": males, "obs": data.index}) as model:
        beta = pm.Normal("beta", 0, 5, dims="cross")
        sigma_female = pm.HalfNormal("sigma_female", 2)
        sigma_male = pm.HalfNormal("sigma_male", 2)
        u_female = pm.Normal("u_female", 0, sigma_female, dims="female")
        u_male = pm.Normal("u_male", 0, sigma_male, dims="male")
        eta = beta[cross] + u_female[female] + u_male[male]
        pm.Bernoulli("mate", logit_p=eta, observed=data["Mate"].to_numpy(), dims="obs")
    return model
