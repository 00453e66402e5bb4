"""Which response family, which random-effect family: read from the distributions of a graph.

Each reader states a distribution in the terms of hlik: the mean and the dispersion, as PyTensor expressions of the
distribution's parameters. To teach hlik a family that `hlik.families` has, register one reader here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.continuous import WaldRV
from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.tensor.random.basic import (
    BernoulliRV,
    BetaRV,
    BinomialRV,
    ExponentialRV,
    GammaRV,
    InvGammaRV,
    LogNormalRV,
    NormalRV,
    PoissonRV,
)

from hlik import families, random_families
from hlik.families import ResponseFamily
from hlik.random_families import RandomFamily


@dataclass(frozen=True)
class ResponseParts:
    """A response as an exponential dispersion model: expressions for its mean, dispersion and trials.

    `shift` must be zero; `dispersion_name` says in PyMC's words what the dispersion is.
    """

    family: ResponseFamily
    mean: Variable
    dispersion: Variable | None = None
    trials: Variable | None = None
    shift: Variable | None = None
    dispersion_name: str = ""


@dataclass(frozen=True)
class RandomParts:
    """A random effect's family: its dispersion, its location, and an expression that must be zero.

    `scale` is the link from u to v, where it is not the family's; `condition` says what `must_vanish` means.
    """

    family: RandomFamily
    dispersion: Variable
    location: Variable | None = None
    must_vanish: Variable | None = None
    condition: str = ""
    scale: str = ""


@singledispatch
def response_parts(op: Op, rv: Variable) -> ResponseParts | None:
    """How `op` reads as a response; None for a distribution without closed forms."""
    return None


@response_parts.register(NormalRV)
def _(op: Op, rv: Variable) -> ResponseParts:
    mean, deviation = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return ResponseParts(families.Normal(), mean, dispersion=deviation**2, dispersion_name="sigma**2")


@response_parts.register(BernoulliRV)
def _(op: Op, rv: Variable) -> ResponseParts:
    (probability,) = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return ResponseParts(families.Bernoulli(), probability)


@response_parts.register(BinomialRV)
def _(op: Op, rv: Variable) -> ResponseParts:
    trials, probability = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return ResponseParts(families.Binomial(), probability, trials=trials)


@response_parts.register(PoissonRV)
def _(op: Op, rv: Variable) -> ResponseParts:
    (mean,) = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return ResponseParts(families.Poisson(), mean)


@response_parts.register(ExponentialRV)
def _(op: Op, rv: Variable) -> ResponseParts:
    (mean,) = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return ResponseParts(families.Gamma(), mean, dispersion=pt.ones(()))


@response_parts.register(GammaRV)
def _(op: Op, rv: Variable) -> ResponseParts:
    shape, scale = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return ResponseParts(families.Gamma(), shape * scale, dispersion=1.0 / shape, dispersion_name="1/alpha")


@response_parts.register(WaldRV)
def _(op: Op, rv: Variable) -> ResponseParts:
    mean, precision, shift = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return ResponseParts(
        families.InverseGaussian(), mean, dispersion=1.0 / precision, shift=shift, dispersion_name="1/lam"
    )


@singledispatch
def random_parts(op: Op, rv: Variable) -> RandomParts | None:
    """How `op` reads as a random effect; None for a density without closed forms."""
    return None


@random_parts.register(NormalRV)
def _(op: Op, rv: Variable) -> RandomParts:
    mean, deviation = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return RandomParts(random_families.Normal(), deviation**2, location=mean)


@random_parts.register(LogNormalRV)
def _(op: Op, rv: Variable) -> RandomParts:
    mean, deviation = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return RandomParts(
        random_families.Normal(),
        deviation**2,
        must_vanish=mean,
        condition="LogNormal(mu=0, sigma=...), its mean being a coefficient of the predictor",
        scale="log",
    )


@random_parts.register(GammaRV)
def _(op: Op, rv: Variable) -> RandomParts:
    shape, scale = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return RandomParts(
        random_families.Gamma(),
        1.0 / shape,
        must_vanish=pt.log(shape * scale),
        condition="Gamma(alpha=1/lam, beta=1/lam), its mean being a coefficient of the predictor",
    )


@random_parts.register(BetaRV)
def _(op: Op, rv: Variable) -> RandomParts:
    alpha, beta = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return RandomParts(
        random_families.Beta(),
        0.5 / alpha,
        must_vanish=pt.log(alpha / beta),
        condition="Beta(alpha=1/(2*lam), beta=1/(2*lam)), its mean being a coefficient of the predictor",
    )


@random_parts.register(InvGammaRV)
def _(op: Op, rv: Variable) -> RandomParts:
    alpha, beta = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    return RandomParts(
        random_families.InverseGamma(),
        1.0 / beta,
        must_vanish=alpha - 1.0 - beta,
        condition="InverseGamma(alpha=1 + 1/lam, beta=1/lam), its mean being a coefficient of the predictor",
    )


def is_zero(value: object, tolerance: float = 1e-10) -> bool:
    """Whether data are zero to rounding."""
    return bool(np.all(np.abs(np.asarray(value, float)) < tolerance))
