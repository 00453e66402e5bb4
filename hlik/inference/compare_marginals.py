"""One parameter in one fit, of likelihood or of Bayes: estimate, error, interval, mode and skewness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.summary import summary
from hlik.inference.tables import labels, model_of


@dataclass(frozen=True)
class Marginal:
    """One parameter in one fit."""

    estimate: float
    se: float
    lower: float
    upper: float
    mode: float
    skewness: float
    at_boundary: bool = False


def is_likelihood(idata: az.InferenceData) -> bool:
    """Whether a result is of `hlik.fit`."""
    return "fit" in idata.groups() and "model" in idata["fit"].attrs


def is_penalised(idata: az.InferenceData) -> bool:
    """Whether a result is a fit with ``priors="penalise"``."""
    return is_likelihood(idata) and "unpenalised_log_likelihood" in idata["fit"]


def common_names(fits: Mapping[str, az.InferenceData], var_names: Sequence[str] | None) -> list[str]:
    """Parameters that every fit has: those wanted, or all."""
    own = next((idata for idata in fits.values() if is_likelihood(idata)), None)
    if own is None:
        raise ModelError("None of the fits is a result of hlik.fit: there is nothing to compare the posteriors with.")
    names = [p["name"] for p in model_of(own)["parameters"]] if var_names is None else list(var_names)

    def there(idata: az.InferenceData, name: str) -> bool:
        group = "estimates" if is_likelihood(idata) else "posterior"
        return group in idata.groups() and name in idata[group]

    common = [name for name in names if all(there(idata, name) for idata in fits.values())]
    if var_names is not None and (lost := [name for name in names if name not in common]):
        raise ModelError(f"Not every fit has {lost}.")
    if not common:
        raise ModelError(f"The fits have no parameter in common; of {names} each lacks some.")
    return common


def marginals_of(idata: az.InferenceData, names: list[str], level: float) -> dict[str, Marginal]:
    """Every element of the parameters in one fit, by label."""
    if is_likelihood(idata):
        return _of_likelihood(idata, names, level)
    found = {}
    for name in names:
        draws = idata["posterior"][name].stack(sample=("chain", "draw")).transpose(..., "sample")
        values = draws.values.reshape(-1, draws.sizes["sample"])
        for label, own in zip(labels(idata["posterior"][name].isel(chain=0, draw=0)), values, strict=True):
            lower, upper = np.quantile(own, [0.5 - level / 2, 0.5 + level / 2])
            found[label] = Marginal(
                float(own.mean()),
                float(own.std(ddof=1)),
                float(lower),
                float(upper),
                half_sample_mode(own),
                _skewness(own),
            )
    return found


def _of_likelihood(idata: az.InferenceData, names: list[str], level: float) -> dict[str, Marginal]:
    table, found = summary(idata, level), {}
    posterior = idata["posterior"] if "posterior" in idata.groups() else None
    for name in names:
        own = labels(idata["estimates"][name])
        if posterior is not None and name in posterior:
            draws = posterior[name].stack(sample=("chain", "draw")).transpose(..., "sample").values
            skewness = np.array([_skewness(values) for values in draws.reshape(len(own), -1)])
        else:
            skewness = np.zeros(len(own))
        values, errors = (np.ravel(idata[group][name].values) for group in ("estimates", "standard_errors"))
        half = stats.norm.ppf(0.5 + level / 2) * errors
        for k, label in enumerate(own):
            row: Any = table.loc[label] if label in table.index else None
            lower, upper = (
                (row["lower"], row["upper"]) if row is not None else (values[k] - half[k], values[k] + half[k])
            )
            found[label] = Marginal(
                float(values[k]),
                float(errors[k]),
                float(lower),
                float(upper),
                float(values[k]),
                float(skewness[k]),
                at_boundary=not np.isfinite(errors[k]),
            )
    return found


def _skewness(draws: np.ndarray) -> float:
    """Of a sample; 0 for one that does not vary, as of a parameter at a boundary."""
    varies = np.ptp(draws) > 1e-12 * max(1.0, float(np.abs(draws).max()))
    return float(stats.skew(draws)) if varies else 0.0


def half_sample_mode(draws: np.ndarray) -> float:
    """The mode of a sample: the densest half of the densest half, and so on.

    The first halves are taken until fewer than a tenth of the draws are left, whose mean is the mode: the recursion to
    the end would follow single draws.
    """
    ordered = np.sort(draws)
    smallest = max(3, draws.size // 10)
    while ordered.size > smallest:
        half = -(-ordered.size // 2)
        widths = ordered[half - 1 :] - ordered[: ordered.size - half + 1]
        start = int(np.argmin(widths))
        ordered = ordered[start : start + half]
    return float(ordered.mean())
