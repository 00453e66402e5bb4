"""The animal model: a pedigree, records of the offspring, and how much of the variance is inherited.

``y = mu + a + e`` with breeding values ``a ~ N(0, sigma_a^2 A)``, A the relationship matrix of the pedigree. Example
4 of the paper on hglm, and section 2.1 of the tutorial, fit it to the simulated data of the workshop QTLMAS 2009:
1,000 offspring of 100 unrelated parents, which hglm takes as ``Z = Z0 L`` with ``A = L L'``. Those data are in the R
package hglm.data only and are not kept here; `simulate` makes data of the same kind: two generations, 20 sires and 80
dams, 1,000 offspring with records. The animals have to be unrelated for none of this: give a pedigree of any depth.

Units: none. Source: simulated, from a fixed seed.

References
----------
Henderson, C. R. (1976). A simple method for computing the inverse of a numerator relationship matrix used in
prediction of breeding values. Biometrics 32, 69-83.
Rönnegård, L., Shen, X. and Alam, M. (2010). hglm: a package for fitting hierarchical generalized linear models. The R
Journal 2(2), 20-28.
"""

import numpy as np
import pandas as pd
import pymc as pm

import hlik

TRUE = {"mean": 7.0, "sigma2_a": 2.0, "sigma2": 2.0, "heritability": 0.5}
"""What `simulate` uses unless told otherwise."""

QTLMAS_HGLM = {"beta": 7.279766, "se_beta": 0.3107, "phi": 2.211169, "lam": 1.502516, "heritability": 0.4045889}
"""QTLMAS as printed in the paper, Example 4: hglm's rule stops after two iterations."""

QTLMAS_REML = {"phi": 2.0456, "lam": 1.8095, "heritability": 0.4694}
"""QTLMAS at hglm's fixed point, which is restricted maximum likelihood."""


def simulate(n_sires: int = 20, n_dams: int = 80, n_offspring: int = 1000, seed: int = 2009) -> pd.DataFrame:
    """Simulate a pedigree of two generations with a record of each offspring.

    One row an animal, parents first: ``id`` (from 1), ``sire``, ``dam`` (0 where unknown), ``y`` (missing for
    parents), ``a`` (the true breeding value).

    Parameters
    ----------
    n_sires, n_dams, n_offspring : int
        Numbers of animals; each offspring has a random sire and dam.
    seed : int
        Of `numpy.random.default_rng`.
    """
    rng = np.random.default_rng(seed)
    n_parents = n_sires + n_dams
    sire = rng.integers(1, n_sires + 1, n_offspring)
    dam = rng.integers(n_sires + 1, n_parents + 1, n_offspring)
    parents = rng.normal(0, np.sqrt(TRUE["sigma2_a"]), n_parents)
    mendelian = rng.normal(0, np.sqrt(TRUE["sigma2_a"] / 2), n_offspring)
    a = np.concatenate([parents, (parents[sire - 1] + parents[dam - 1]) / 2 + mendelian])
    y = TRUE["mean"] + a + rng.normal(0, np.sqrt(TRUE["sigma2"]), len(a))
    y[:n_parents] = np.nan
    none = np.zeros(n_parents, int)
    return pd.DataFrame(
        {
            "id": np.arange(1, len(a) + 1),
            "sire": np.concatenate([none, sire]),
            "dam": np.concatenate([none, dam]),
            "y": y,
            "a": a,
        }
    )


def build(data: pd.DataFrame) -> pm.Model:
    """Build the animal model.

    ``mean``, ``sigma_a``, ``sigma``, the breeding values ``a`` (animal, all of the pedigree), the deterministic
    ``heritability`` and the observed ``y`` (record).

    Parameters
    ----------
    data : DataFrame
        As from `simulate`.
    """
    pedigree = hlik.Pedigree.of(data["id"], data["sire"], data["dam"])
    recorded = np.flatnonzero(data["y"].notna())
    coords = {"animal": pedigree.ids, "record": data["id"].to_numpy()[recorded]}
    with pm.Model(coords=coords) as model:
        mean = pm.Normal("mean", 0, 10)
        sigma_a, sigma = pm.HalfNormal("sigma_a", 2), pm.HalfNormal("sigma", 2)
        a = hlik.distributions.Relationship("a", sigma=sigma_a, pedigree=pedigree, dims="animal")
        pm.Deterministic("heritability", sigma_a**2 / (sigma_a**2 + sigma**2))
        pm.Normal("y", mean + a[recorded], sigma, observed=data["y"].to_numpy()[recorded], dims="record")
    return model
