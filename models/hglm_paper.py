"""Examples 1 to 3 of the paper on hglm, simulated: a mixed model, one with a modelled dispersion, Poisson-gamma counts.

Five clusters of twenty observations. Example 1 is a linear mixed model; in Example 2 the log of the residual variance
depends on a covariate; Example 3 has counts with gamma effects. (Example 4 is an animal model on QTLMAS data: see
`models.animal`; Example 5 are the seeds: see `models.seeds`.) The data are simulated here by the paper's own lines
(`make_simulated.R`). For Examples 2 and 3 the paper prints results of another random stream, in which a picture was
drawn in between; the numbers below are hglm's for these data.

In the paper's Example 3 the counts are drawn with mean exp(u), u gamma, not with mean u: the gamma effects of the model
are then an approximation. hglm also models a dispersion of the Poisson counts there; a Poisson distribution has none,
and `build_counts` does not either.

Units: none. Source: simulated.

References
----------
Rönnegård, L., Shen, X. and Alam, M. (2010). hglm: a package for fitting hierarchical generalized linear models. The R
Journal 2(2), 20-28.
"""

import pandas as pd
import pymc as pm

import hlik
from models import DATA

EXAMPLE_1_PUBLISHED = {"beta": 0.1473, "se_beta": 0.158, "phi": 0.8400608, "lam": 0.08211}
"""Example 1 as printed, page 22; hglm of 2010 stopped at a looser rule."""

EXAMPLE_1 = {"beta": 0.147300889, "se_beta": 0.157339872, "phi": 0.840156089, "lam": 0.081771324}
"""Example 1 by hglm 2.2-1 run on to its fixed point (``conv = 1e-12``): restricted maximum likelihood."""

EXAMPLE_2 = {
    "beta": 0.093817616,
    "se_beta": 0.231646310,
    "dispersion": (-0.303538063, 1.362117905),
    "se_dispersion": (0.202723493, 0.288918362),
    "lam": 0.210566712,
}
"""Example 2 without the picture in between, by hglm 2.2-1 at its fixed point."""

EXAMPLE_3 = {"beta": 0.760805829, "se_beta": 0.176599001, "lam": 0.132571598}
"""Example 3 without the picture in between and with ``fix.disp = 1``, by hglm 2.2-1 at its fixed point."""


def load() -> pd.DataFrame:
    """Read the simulated data.

    100 rows: ``clus`` (1 to 5), ``x_d`` (0, 1), the responses ``y1``, ``y2`` and ``y3`` of the three examples.
    """
    return pd.read_csv(DATA / "hglm_paper.csv")


def build(data: pd.DataFrame) -> pm.Model:
    """Build Example 1, the linear mixed model.

    ``Intercept``, ``1|clus_sigma``, ``1|clus``, ``sigma`` and the observed ``y1``.
    """
    return hlik.from_formula("y1 ~ 1 + (1 | clus)", data)


def build_dispersion(data: pd.DataFrame) -> pm.Model:
    """Build Example 2, with the log of the residual variance linear in ``x_d``.

    ``Intercept``, ``1|clus_sigma``, ``1|clus``, ``dispersion_Intercept``, ``dispersion_x_d`` and the observed
    ``y2``.
    """
    return hlik.from_formula("y2 ~ 1 + (1 | clus)", data, dispersion="~ x_d")


def build_counts(data: pd.DataFrame) -> pm.Model:
    """Build Example 3, Poisson counts with gamma effects.

    ``Intercept``, ``1|clus_lam``, ``1|clus`` (gamma, mean 1) and the observed ``y3``.
    """
    return hlik.from_formula("y3 ~ 1 + (1 | clus)", data, family="poisson", random={"clus": "gamma"})
