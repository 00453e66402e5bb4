"""Covariances of correlated effects as standard deviations and correlations, for tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import arviz as az
import numpy as np
from scipy import stats

PACKED = "_cholesky-cov-packed__"  # end of the value variable's name of pymc.LKJCholeskyCov


def is_packed(idata: az.InferenceData, parameter: dict[str, Any]) -> bool:
    """Whether a parameter is a packed Cholesky factor whose deviations and correlations the result holds."""
    name, found = parameter["name"], idata["estimates"]
    return parameter["value_name"].endswith(PACKED) and f"{name}_stds" in found and f"{name}_corr" in found


def correlated_rows(idata: az.InferenceData, parameter: dict[str, Any], level: float) -> list[dict[str, Any]]:
    r"""Rows of `hlik.summary` for one covariance matrix: deviations, then correlations below the diagonal.

    Standard errors are those of the delta method; the intervals are Wald on the scales log(sd) and
    ``artanh(correlation)``, mapped back: the errors there are se / sd and ``se / (1 - r^2)``.
    """
    name, quantile = parameter["name"], float(stats.norm.ppf(0.5 + level / 2))
    deviations, errors = (idata[group][f"{name}_stds"].values for group in ("estimates", "standard_errors"))
    correlations, r_errors = (idata[group][f"{name}_corr"].values for group in ("estimates", "standard_errors"))
    owner, own = _owner(idata, name, deviations, correlations)
    rows = []
    with np.errstate(all="ignore"):
        for k, label in enumerate(own):
            half = quantile * errors[k] / deviations[k]
            ends = _ends(np.log(deviations[k]), half, np.exp)
            rows.append(_row(f"sd({owner})[{label}]", deviations[k], errors[k], ends))
        for i in range(len(own)):
            for j in range(i):
                r, se = correlations[i, j], r_errors[i, j]
                ends = _ends(np.arctanh(r), quantile * se / (1 - r**2), np.tanh)
                rows.append(_row(f"cor({owner})[{own[j]}, {own[i]}]", r, se, ends))
    return rows


def _ends(middle: float, half: float, inverse: Callable[[Any], Any]) -> tuple[float, float]:
    return float(inverse(middle - half)), float(inverse(middle + half))


def _row(label: str, value: float, se: float, ends: tuple[float, float]) -> dict[str, Any]:
    missing = dict.fromkeys(("statistic", "df", "p_value"), np.nan)
    found = {"label": label, "role": "dispersion parameter", "estimate": float(value), "se": float(se)}
    return found | missing | {"lower": ends[0], "upper": ends[1]}


def _owner(
    idata: az.InferenceData, name: str, deviations: np.ndarray, correlations: np.ndarray
) -> tuple[str, list[str]]:
    """The effects with this covariance matrix, and the labels of its rows; the parameter itself where none has it."""
    covariance = correlations * np.outer(deviations, deviations)
    effects = [effect["name"] for effect in json.loads(idata["fit"].attrs["model"])["random_effects"]]
    own = [effect for effect in effects if _has_covariance(idata, effect, covariance)]
    owner = own[0] if len(own) == 1 else next((e for e in effects if name == f"{e}_chol"), name)
    values = idata["estimates"][owner] if owner in effects else None
    if values is None or values.ndim != 2 or values.shape[1] != deviations.size:
        return owner, [str(k) for k in range(deviations.size)]
    return owner, [str(label) for label in values[values.dims[1]].values]


def _has_covariance(idata: az.InferenceData, effect: str, covariance: np.ndarray) -> bool:
    key = f"{effect}_covariance"
    found = idata["fit"][key].values if key in idata["fit"] else None
    return found is not None and found.shape == covariance.shape and np.allclose(found, covariance, rtol=1e-8)
