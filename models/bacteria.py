"""Bacteria in children's ears: binary tests, children who differ (Venables and Ripley 2002).

Fifty children with a history of otitis media in the Northern Territory of Australia were followed for 11
weeks and tested for *Haemophilus influenzae* at weeks 0, 2, 4, 6 and 11; some visits were missed, which
leaves 220 tests. hglm's tutorial asks how the presence of the bacterium changes with time, with a random
intercept per child. Groups of at most five binary answers are hard for likelihood approximations: exact
maximum likelihood puts the variance between children at 1.84, Laplace's approximation at 1.65 and EQL
(dispersion one) at 1.03.

Units: ``week`` in weeks since the start. Source: data frame ``bacteria`` of the R package MASS.

References
----------
Venables, W. N. and Ripley, B. D. (2002). Modern Applied Statistics with S, 4th edition. Springer.
Tutorial of the R package hglm (Roslin Institute, 2013), binomial GLMM.
"""

import numpy as np
import pandas as pd
import pymc as pm

import hlik
from models import DATA

COEFFICIENTS = ("Intercept", "week")

HGLM_TUTORIAL = {
    "beta": (2.30216, -0.13510),
    "se_beta": (0.33627, 0.04127),
    "dispersion": 0.7581144,
    "sigma2": 1.613,
    "df_residual": 193,
    "iterations": 14,
    "v_first_3": (0.7472, -0.2844, 0.8602),
}
"""EQL with the binomial dispersion estimated, not one as the model says: hglm tutorial, binomial GLMM."""

HGLM_FIXED_POINT = {
    "beta": (2.304321833, -0.135241866),
    "se_beta": (0.336673679, 0.041278724),
    "dispersion": 0.757696470,
    "sigma2": 1.619435195,
    "df_residual": 193,
}
"""The same run on to convergence with the R package hglm 2.2-1: the tutorial's stopped early."""

HGLM_FIXED_POINT_DISPERSION_ONE = {
    "beta": (2.125193709, -0.122826989),
    "se_beta": (0.337950020, 0.045146795),
    "sigma2": 1.026281831,
    "df_residual": 200,
}
"""EQL with dispersion one, as the model says (hglm 2.2-1, ``fix.disp = 1``, run on to convergence)."""

HGLM_SLOPES_TUTORIAL = {
    "beta": (2.29715, -0.13269),
    "se_beta": (0.3406, 0.04326),
    "dispersion": 0.739098,
    "sigma2": (1.6421, 0.1091),
    "df_residual": 189,
}
"""`build_slopes` by EQL with the binomial dispersion estimated: hglm tutorial, two random effects."""

HGLM_SLOPES_FIXED_POINT = {
    "beta": (2.298438911, -0.132453173),
    "se_beta": (0.341747663, 0.043640604),
    "dispersion": 0.735919640,
    "sigma2": (1.652319961, 0.127294353),
}
"""The same run on to convergence with the R package hglm 2.2-1. With dispersion one, as the model says, the variance
of the slopes is zero by maximum likelihood."""

LAPLACE = {"beta": (2.554861871, -0.143688911), "sigma": 1.286285160, "log_likelihood": -101.102267763}
"""Laplace's approximation: lme4 1.1-31, ``glmer``."""

EXACT = {
    "beta": (2.577577492, -0.146182118),
    "se_beta": (0.478234024, 0.051632422),
    "sigma2": 1.839389462,
    "se_sigma2": 1.100515855,
    "log_likelihood": -100.820515191,
}
"""Maximum likelihood by quadrature."""


def load() -> pd.DataFrame:
    """Read the bacteria data.

    One row per test: ``y`` (n, y: bacterium present), ``ap`` (a active drug, p placebo), ``hilo`` (hi, lo
    compliance), ``week`` (0, 2, 4, 6, 11), ``ID`` (child, 50 levels), ``trt`` (placebo, drug, drug+).
    """
    return pd.read_csv(DATA / "bacteria.csv")


def build(data: pd.DataFrame) -> pm.Model:
    """Build the logistic model with a normal intercept per child.

    ``beta`` (coef), ``sigma``, the children's effects ``u`` (child) and the observed ``y`` (obs), 1 where
    the bacterium was present.
    """
    X = np.column_stack([np.ones(len(data)), data["week"]])
    child, children = pd.factorize(data["ID"], sort=True)
    coords = {"coef": COEFFICIENTS, "child": children, "obs": data.index}
    with pm.Model(coords=coords) as model:
        beta = pm.Normal("beta", 0, 5, dims="coef")
        sigma = pm.HalfNormal("sigma", 2)
        u = pm.Normal("u", 0, sigma, dims="child")
        eta = X @ beta + u[child]
        pm.Bernoulli("y", logit_p=eta, observed=(data["y"] == "y").to_numpy(int), dims="obs")
    return model


def build_slopes(data: pd.DataFrame) -> pm.Model:
    """Build the logistic model with independent normal intercepts and slopes of each child.

    ``Intercept``, ``week``, ``1|ID`` and ``sweek|ID`` with their standard deviations, and the observed ``y``, 1
    where the bacterium was present; the slopes are those of the standardised week.
    """
    weeks = data.assign(y=(data["y"] == "y").astype(int), sweek=data["week"] / data["week"].std())
    weeks["sweek"] -= weeks["sweek"].mean()
    return hlik.from_formula("y ~ week + (1 | ID) + (0 + sweek | ID)", weeks, family="bernoulli")
