"""Distribution functions of the response families, in both tails."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from hlik.errors import ModelError


class Limits(NamedTuple):
    """P(Y < y), P(Y <= y) and their complements P(Y >= y), P(Y > y); all of the shape of y."""

    below: np.ndarray
    at: np.ndarray
    from_here: np.ndarray
    above: np.ndarray


def limits(family: str, y: np.ndarray, mean: np.ndarray, phi: np.ndarray, weight: np.ndarray) -> Limits:
    """The distribution function at the responses.

    Parameters
    ----------
    family
        Name in `hlik.families.FAMILIES`.
    y, mean
        Responses and means; of a Binomial both counts' proportions.
    phi
        Dispersions.
    weight
        Prior weights; of a Binomial the trials.
    """
    distribution, values = _distribution(family, y, mean, phi, weight)
    at, above = distribution.cdf(values), distribution.sf(values)
    if family not in ("poisson", "binomial", "bernoulli"):
        return Limits(at, at, above, above)
    return Limits(distribution.cdf(values - 1), at, distribution.sf(values - 1), above)


def _distribution(
    family: str, y: np.ndarray, mean: np.ndarray, phi: np.ndarray, weight: np.ndarray
) -> tuple[Any, np.ndarray]:
    variance = phi / weight
    if family == "normal":
        return stats.norm(mean, np.sqrt(variance)), y
    if family == "gamma":
        return stats.gamma(1 / variance, scale=mean * variance), y
    if family == "inverse_gaussian":
        return stats.invgauss(mean * variance, scale=1 / variance), y
    if family == "poisson":
        return stats.poisson(mean), y
    if family in ("binomial", "bernoulli"):
        return stats.binom(weight, mean), np.rint(y * weight)
    raise ModelError(f"The distribution function of the family {family!r} is not known here.")


def normal_scores(found: Limits, uniform: np.ndarray) -> np.ndarray:
    """Normal quantiles of ``P(Y < y) + uniform P(Y = y)``, computed in the nearer tail."""
    lower = found.below + uniform * (found.at - found.below)
    upper = found.above + (1 - uniform) * (found.from_here - found.above)
    with np.errstate(divide="ignore"):
        return np.where(found.at <= found.from_here, special.ndtri(lower), -special.ndtri(upper))
