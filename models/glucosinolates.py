"""Genomic prediction: what 117 markers say about a glucosinolate of *Arabidopsis* leaves (Keurentjes et al. 2006).

162 recombinant inbred lines of a cross of Landsberg erecta with Cape Verde Islands, homozygous at almost every
marker, and the amounts of secondary metabolites in their leaves. bigRR's example in the tutorial on hglm is of the
same kind (216,130 markers of 84 *Arabidopsis* accessions): the effects of all markers are random, ``y = mu + M u +
e`` with ``u ~ N(0, sigma_u^2)`` (ridge regression, SNP-BLUP); or, the same model, the genetic values ``g = M u`` are,
with covariance proportional to ``M M'`` (G-BLUP). The response here is log(1 + amount) of 4-hydroxybutyl glucosinolate.

Units: amounts as in the package, not calibrated. Markers 1 (Ler) and 2 (Cvi). Source: data set ``multitrait`` of the
R package qtl.

References
----------
Keurentjes, J. J. B. et al. (2006). The genetics of plant metabolism. Nature Genetics 38, 842-849.
Shen, X., Alam, M., Fikse, F. and Rönnegård, L. (2013). A novel generalized ridge regression method for quantitative
genetics. Genetics 193, 1255-1268.
"""

import numpy as np
import pandas as pd
import pymc as pm

import hlik
from models import DATA


def load() -> pd.DataFrame:
    """Read the lines that were measured.

    158 rows: ``line``, four amounts (``hydroxybutyl``, ``butenyl``, ``propenyl``, ``benzoyloxypentyl``), and 117
    markers named ``chr<chromosome>_<position in cM>_<number>`` with values 1 (Ler) and 2 (Cvi), a few missing.
    """
    data = pd.read_csv(DATA / "glucosinolates.csv")
    return data[data["hydroxybutyl"].notna()].reset_index(drop=True)


def markers(data: pd.DataFrame) -> pd.DataFrame:
    """Code the markers -1 and 1; the 0.4 % that are missing get the mean of the marker.

    Shape (158, 117).
    """
    coded = 2.0 * (data.filter(regex="^chr") - 1.5)
    return coded.fillna(coded.mean())


def build(data: pd.DataFrame, trait: str = "hydroxybutyl") -> pm.Model:
    """Build the regression on all markers (SNP-BLUP).

    ``beta`` (the mean), ``marker_sigma``, the effects ``marker``, ``sigma`` and the observed log(1 + amount).

    Parameters
    ----------
    data : DataFrame
        As from `load`.
    trait : str
        The amount that is the response.
    """
    y = np.log1p(data[trait]).rename(trait)
    return hlik.from_matrices(y, pd.DataFrame({"Intercept": np.ones(len(data))}), {"marker": markers(data)})


def build_gblup(data: pd.DataFrame, trait: str = "hydroxybutyl") -> pm.Model:
    """Build the model of genetic values (G-BLUP): the same likelihood but for 1e-4 on the diagonal of M M'.

    ``mean``, ``sigma_g`` (standard deviation of a genetic value of average relationship to itself), ``sigma``, the
    genetic values ``g`` (line) and the observed log(1 + amount).

    Parameters
    ----------
    data : DataFrame
        As from `load`.
    trait : str
        The amount that is the response.
    """
    M = markers(data).to_numpy()
    K = M @ M.T / M.shape[1]
    K = K + 1e-4 * np.eye(len(K))  # 117 markers cannot tell 158 lines apart: K alone is singular
    with pm.Model(coords={"line": data["line"]}) as model:
        mean = pm.Normal("mean", 0, 10)
        sigma_g, sigma = pm.HalfNormal("sigma_g", 2), pm.HalfNormal("sigma", 2)
        g = hlik.distributions.Relationship("g", sigma=sigma_g, A=K, dims="line")
        pm.Normal(trait, mean + g, sigma, observed=np.log1p(data[trait].to_numpy()), dims="line")
    return model
