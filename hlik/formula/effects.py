"""Random effects of formula models: the distribution of u, the scale v on which it enters the predictor."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pymc as pm
import pytensor.tensor as pt

from hlik.errors import ModelError
from hlik.transforms import reciprocal

RandomDistribution = str | Callable[[str, tuple[str, ...]], Any]
"""A name, or a function of the effect's name and dims that makes the variable and returns v."""

NAMES = ("normal", "gamma", "beta", "inverse_gamma", "t", "t(10)")


@dataclass(frozen=True)
class EffectShape:
    """How an effect is laid out: names of the variable and its dims, columns per level, correlated or not.

    `dims` end in the grouping factor for independent effects and begin with it for correlated ones.
    """

    name: str
    dims: tuple[str, ...]
    n_columns: int
    correlated: bool
    spread: Any
    noncentered: bool = False


def write_effect(shape: EffectShape, distribution: RandomDistribution, log_dispersion: Any) -> Any:
    """Make the random variable(s) of one term inside the current model; v, in the dims of the effect."""
    if callable(distribution):
        _refuse(shape, log_dispersion, "a function")
        return distribution(shape.name, shape.dims)
    if shape.correlated:
        if distribution != "normal":
            raise ModelError(
                f"random effects {shape.name!r} are correlated, which needs 'normal'; got {distribution!r}. "
                f"Write (... || ...) for independent ones."
            )
        _refuse(shape, log_dispersion, "correlated effects")
        return _correlated(shape)
    kind, degrees = _parse(distribution, shape.name)
    dispersion = None if log_dispersion is None else pt.exp(log_dispersion)
    if kind == "normal":
        return _normal(shape, _sigma(shape, dispersion))
    if kind == "t":
        nu = degrees if degrees is not None else pm.Gamma(f"{shape.name}_nu", alpha=2, beta=0.1)
        return pm.StudentT(shape.name, nu=nu, mu=0, sigma=_sigma(shape, dispersion), dims=shape.dims)
    lam = pm.HalfNormal(f"{shape.name}_lam", 1, dims=shape.dims[:-1] or None) if dispersion is None else dispersion
    lam = lam[:, None] if dispersion is None and len(shape.dims) > 1 else lam
    if kind == "gamma":
        return pt.log(pm.Gamma(shape.name, alpha=1 / lam, beta=1 / lam, dims=shape.dims))
    if kind == "beta":
        return pm.math.logit(pm.Beta(shape.name, alpha=1 / (2 * lam), beta=1 / (2 * lam), dims=shape.dims))
    u = pm.InverseGamma(
        shape.name, alpha=1 + 1 / lam, beta=1 / lam, dims=shape.dims, default_transform=None, transform=reciprocal
    )
    return 1 / u


def _sigma(shape: EffectShape, dispersion: Any) -> Any:
    """The standard deviation, one for each column."""
    if dispersion is not None:
        return pt.sqrt(dispersion)
    if len(shape.dims) == 1:
        return pm.HalfNormal(f"{shape.name}_sigma", shape.spread[0])
    return pm.HalfNormal(f"{shape.name}_sigma", shape.spread, dims=shape.dims[:-1])[:, None]


def _normal(shape: EffectShape, sigma: Any) -> Any:
    if not shape.noncentered:
        return pm.Normal(shape.name, 0, sigma, dims=shape.dims)
    z = pm.Normal(f"{shape.name}_offset", 0, 1, dims=shape.dims)
    return pm.Deterministic(shape.name, sigma * z, dims=shape.dims)


def _correlated(shape: EffectShape) -> Any:
    k = shape.n_columns
    scales = pm.HalfNormal.dist(shape.spread, shape=k)
    chol, _, _ = pm.LKJCholeskyCov(f"{shape.name}_chol", n=k, eta=1, sd_dist=scales, compute_corr=True)
    return pm.MvNormal(shape.name, mu=pt.zeros(k), chol=chol, dims=shape.dims)


def _parse(distribution: object, name: str) -> tuple[str, float | None]:
    if isinstance(distribution, str):
        found = re.fullmatch(r"t\(\s*(\d+(?:\.\d*)?)\s*\)", distribution)
        if found:
            return "t", float(found[1])
        if distribution in NAMES:
            return distribution, None
    raise ModelError(
        f"random effects {name!r}: expected one of {list(NAMES)} (the number is any degrees of freedom), or a function "
        f"of name and dims; got {distribution!r}."
    )


def _refuse(shape: EffectShape, log_dispersion: Any, what: str) -> None:
    if log_dispersion is not None:
        raise ModelError(f"random_dispersion of {shape.name!r}: {what} cannot take a model of the dispersion.")
