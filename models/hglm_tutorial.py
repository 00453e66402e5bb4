"""Two simulated examples of the tutorial on hglm: random effects in the dispersion, and the choice between models.

Ten individuals with fifty observations each. In the first example (section 3.1 of the tutorial) both the mean and the
log of the residual variance have a random effect of the individual, a *double* HGLM; the tutorial fits it by
alternating two hglm fits. In the second (section 3.3) a random effect that is not there, with a random design matrix
of twenty columns, is tested for by the restricted likelihood. The data are simulated by the tutorial's own lines
(`make_simulated.R`).

Units: none. Source: simulated.

References
----------
Rönnegård, L., Shen, X. and Alam, M. (2013). Tutorial for the hglm package, course held at the Roslin Institute.
Lee, Y. and Nelder, J. A. (2006). Double hierarchical generalized linear models. Applied Statistics 55, 139-185.
"""

import numpy as np
import pandas as pd
import pymc as pm

import hlik
from models import DATA

TRUE_DOUBLE = {"beta": 0.0, "sigma2_mean": 4.0, "dispersion": 0.0, "sigma2_dispersion": 1.0}
"""What the data of the double HGLM were simulated with."""

TUTORIAL_DOUBLE = {
    "beta": 0.204006028,
    "se_beta": 0.623115665,
    "sigma2_mean": 3.848660607,
    "dispersion": 0.140160624,
    "sigma2_dispersion": 1.129259292,
}
"""The tutorial's alternation of two hglm fits, three rounds, by hglm 2.2-1."""

HGLM_SELECTION = {"beta": 0.173713524, "se_beta": 0.607693560, "phi": 0.958095294, "lam": 3.673755488}
"""The model with individuals only, by hglm 2.2-1 at its fixed point."""

HGLM_TEST = {"p_bv_h": (-724.152641, -724.192317), "statistic": 0.0793509905, "p": 0.389089431}
"""The test of the tutorial: p_bv(h) without and with the second effect as hglm 2.2-1 stops. The second variance goes
to zero (so that the exact statistic is 0 and the p-value 1/2); hglm stops on the way there."""


def load() -> pd.DataFrame:
    """Read the simulated data.

    500 rows: ``ID`` (1 to 10), ``double`` (response of the double HGLM), ``selection`` (response of the other), and
    the columns ``z1`` to ``z20`` of the design matrix that has nothing to do with it.
    """
    return pd.read_csv(DATA / "hglm_tutorial.csv")


def build(data: pd.DataFrame) -> pm.Model:
    """Build the double HGLM.

    ``Intercept``, ``1|ID_sigma``, ``1|ID``, ``dispersion_Intercept``, ``dispersion_1|ID_sigma``,
    ``dispersion_1|ID`` and the observed ``double``.
    """
    return hlik.from_formula("double ~ 1 + (1 | ID)", data, dispersion="~ 1 + (1 | ID)")


def build_selection(data: pd.DataFrame, second: bool = False) -> pm.Model:
    """Build the linear mixed model of the second example.

    ``beta``, ``individual_sigma``, ``individual``, with `second` also ``extra_sigma`` and ``extra``, ``sigma``
    and the observed ``selection``.

    Parameters
    ----------
    data : DataFrame
        As from `load`.
    second : bool, default False
        Put the second random effect in.
    """
    Z = {"individual": np.eye(10)[data["ID"].to_numpy() - 1]}
    if second:
        Z["extra"] = data.filter(regex=r"^z\d+$").to_numpy()
    return hlik.from_matrices(data["selection"], np.ones((len(data), 1)), Z)
