"""Germination of Orobanche seeds: binomial counts with plates that differ (Crowder 1978).

Seeds of two varieties of the parasitic plant *Orobanche aegyptiaca* (O75 and O73) were laid on 21 plates that
had been brushed with an extract of bean or of cucumber root, and the number ``r`` that germinated out of
``n`` was counted. The question is whether the extract works, and whether it works alike on both varieties.
Plates treated alike differ by more than binomial chance, so each gets a random effect; hglm's paper gives it
a beta distribution, for which the model is a hierarchical GLM with a conjugate effect:
``logit(p) = X beta + v`` with ``v = logit(u)`` and ``u ~ Beta(a, a)``, ``a = 1 / (2 lam)``.

Units: counts of seeds. Source: Crowder (1978), Table 3.

References
----------
Crowder, M. J. (1978). Beta-binomial Anova for proportions. Applied Statistics 27, 34-37.
Breslow, N. E. and Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. Journal of
the American Statistical Association 88, 9-25.
Lee, Y. and Nelder, J. A. (1996). Hierarchical generalized linear models. Journal of the Royal Statistical
Society B 58, 619-678.
Rönnegård, L., Shen, X. and Alam, M. (2010). hglm: a package for fitting hierarchical generalized linear
models. The R Journal 2(2), 20-28.
"""

import numpy as np
import pandas as pd
import pymc as pm

from models import DATA

COEFFICIENTS = ("Intercept", "extractCucumber", "seedO73", "extractCucumber:seedO73")

HGLM_2010 = {
    "beta": (-0.5421, 1.3386, 0.0751, -0.8257),
    "se_beta": (0.1928, 0.2733, 0.3114, 0.4341),
    "lam": 0.02483,
    "log_lam": -3.6956,
    "se_log_lam": 0.5304,
    "df_residual": 10,
    "iterations": 7,
    "v_plates_1_2_21": (-0.2333, 0.0085, -0.0499),
}
"""Beta effects, EQL: Rönnegård, Shen and Alam (2010), pages 20-28, Example 5.

The 2010 version of the package stopped at a loose rule; the fixed point of its algorithm is
`HGLM_FIXED_POINT`.
"""

HGLM_FIXED_POINT = {
    "beta": (-0.542411492, 1.339012669, 0.076723684, -0.825444381),
    "se_beta": (0.190791570, 0.270439892, 0.308582000, 0.430209156),
    "lam": 0.024350407,
    "df_residual": 10,
}
"""The same model run on to convergence with the R package hglm 2.2-1 (``conv = 1e-12``, ``fix.disp = 1``)."""

LEE_NELDER_1996 = {"lam": 0.023}
"""Lee and Nelder (1996), the first h-likelihood analysis of these data: dispersion of the beta effects."""

BRESLOW_CLAYTON_1993 = {
    "beta": (-0.542, 1.339, 0.077, -0.825),
    "se_beta": (0.190, 0.270, 0.308, 0.430),
    "sigma": 0.313,
    "se_sigma": 0.121,
}
"""Normal effects, penalised quasi-likelihood: Breslow and Clayton (1993), pages 9-25, the seeds example."""

EXACT_BETA = {
    "beta": (-0.548560956, 1.337048532, 0.097307690, -0.810291849),
    "se_beta": (0.166453091, 0.236729751, 0.277827753, 0.384845124),
    "lam": 0.013699337,
    "se_lam": 0.012622935,
    "log_likelihood": -53.761311863,
}
"""Maximum likelihood with beta effects, by quadrature: what EQL approximates."""

EXACT_NORMAL = {
    "beta": (-0.548431734, 1.337039262, 0.096988909, -0.810456471),
    "se_beta": (0.166593418, 0.236936490, 0.278041969, 0.385171278),
    "sigma": 0.236242166,
    "log_likelihood": -53.757420695,
}
"""Maximum likelihood with normal effects, by quadrature."""


def load() -> pd.DataFrame:
    """Read the seed data.

    One row per plate: ``plate`` (1 to 21), ``seed`` (O73, O75), ``extract`` (Bean, Cucumber), ``r``
    germinated out of ``n`` seeds.
    """
    return pd.read_csv(DATA / "seeds.csv")


def design(data: pd.DataFrame) -> np.ndarray:
    """Make the design matrix of the 2 x 2 factorial.

    Returns
    -------
    ndarray of shape (n_plates, 4)
        Columns `COEFFICIENTS`: treatment contrasts, O75 on bean extract is the baseline.
    """
    cucumber = (data["extract"] == "Cucumber").to_numpy(float)
    o73 = (data["seed"] == "O73").to_numpy(float)
    return np.column_stack([np.ones(len(data)), cucumber, o73, cucumber * o73])


def _coords(data: pd.DataFrame) -> dict:
    return {"coef": COEFFICIENTS, "plate": data["plate"].unique(), "obs": data.index}


def build(data: pd.DataFrame) -> pm.Model:
    """Build the binomial model with beta-distributed plate effects.

    ``beta`` (coef), the dispersion ``lam``, the plate effects ``u`` (plate) on (0, 1) with mean 1/2, and
    the observed counts ``r`` (obs).
    """
    X = design(data)
    plate = pd.factorize(data["plate"])[0]
    with pm.Model(coords=_coords(data)) as model:
        beta = pm.Normal("beta", 0, 10, dims="coef")
        lam = pm.HalfNormal("lam", 1)
        u = pm.Beta("u", alpha=1 / (2 * lam), beta=1 / (2 * lam), dims="plate")
        eta = X @ beta + pm.math.logit(u)[plate]
        pm.Binomial("r", n=data["n"].to_numpy(), logit_p=eta, observed=data["r"].to_numpy(), dims="obs")
    return model


def build_normal(data: pd.DataFrame) -> pm.Model:
    """Build the binomial model with normal plate effects on the logit scale.

    ``beta`` (coef), ``sigma``, the plate effects ``u`` (plate) and the observed counts ``r`` (obs).
    """
    X = design(data)
    plate = pd.factorize(data["plate"])[0]
    with pm.Model(coords=_coords(data)) as model:
        beta = pm.Normal("beta", 0, 10, dims="coef")
        sigma = pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, dims="plate")
        eta = X @ beta + u[plate]
        pm.Binomial("r", n=data["n"].to_numpy(), logit_p=eta, observed=data["r"].to_numpy(), dims="obs")
    return model
