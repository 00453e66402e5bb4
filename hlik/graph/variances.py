"""Variances of distributions given their parameters, as PyTensor expressions: what PyMC has of means, but not of these.

One function a distribution, registered by its Op; the parameters are those of PyTensor's random variables. None where
a variance has no closed form here.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.continuous import SkewNormalRV, WaldRV
from pymc.distributions.distribution import DiracDeltaRV
from pymc.distributions.mixture import MixtureRV
from pymc.distributions.moments import mean
from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.tensor.random import basic as rvs

from hlik.graph.describe import distribution_parameters


def variance(rv: Variable) -> Variable | None:
    """``Var(Y)`` given the parameters of the random variable `rv`; None where it is not known here."""
    return _variance(rv.owner.op, *distribution_parameters(rv))


@singledispatch
def _variance(op: Op, *parameters: Variable) -> Variable | None:
    return None


@_variance.register(rvs.NormalRV)
def _(op: Op, mu: Variable, sigma: Variable) -> Variable:
    return pt.zeros_like(mu) + sigma**2


@_variance.register(rvs.BernoulliRV)
def _(op: Op, p: Variable) -> Variable:
    return p * (1 - p)


@_variance.register(rvs.BinomialRV)
def _(op: Op, n: Variable, p: Variable) -> Variable:
    return n * p * (1 - p)


@_variance.register(rvs.PoissonRV)
def _(op: Op, mu: Variable) -> Variable:
    return mu


@_variance.register(rvs.ExponentialRV)
def _(op: Op, scale: Variable) -> Variable:
    return scale**2


@_variance.register(rvs.GammaRV)
def _(op: Op, shape: Variable, scale: Variable) -> Variable:
    return shape * scale**2


@_variance.register(WaldRV)
def _(op: Op, mu: Variable, lam: Variable, alpha: Variable) -> Variable:
    return mu**3 / lam


@_variance.register(rvs.NegBinomialRV)
def _(op: Op, n: Variable, p: Variable) -> Variable:
    return n * (1 - p) / p**2


@_variance.register(rvs.GeometricRV)
def _(op: Op, p: Variable) -> Variable:
    return (1 - p) / p**2


@_variance.register(rvs.BetaRV)
def _(op: Op, a: Variable, b: Variable) -> Variable:
    return a * b / ((a + b) ** 2 * (a + b + 1))


@_variance.register(rvs.BetaBinomialRV)
def _(op: Op, n: Variable, a: Variable, b: Variable) -> Variable:
    return n * a * b * (a + b + n) / ((a + b) ** 2 * (a + b + 1))


@_variance.register(rvs.StudentTRV)
def _(op: Op, nu: Variable, mu: Variable, sigma: Variable) -> Variable:
    return pt.zeros_like(mu) + pt.switch(nu > 2, sigma**2 * nu / (nu - 2), np.nan)


@_variance.register(rvs.LogNormalRV)
def _(op: Op, mu: Variable, sigma: Variable) -> Variable:
    return pt.expm1(sigma**2) * pt.exp(2 * mu + sigma**2)


@_variance.register(rvs.LaplaceRV)
def _(op: Op, mu: Variable, b: Variable) -> Variable:
    return pt.zeros_like(mu) + 2 * b**2


@_variance.register(rvs.LogisticRV)
def _(op: Op, mu: Variable, s: Variable) -> Variable:
    return pt.zeros_like(mu) + (np.pi * s) ** 2 / 3


@_variance.register(rvs.GumbelRV)
def _(op: Op, mu: Variable, beta: Variable) -> Variable:
    return pt.zeros_like(mu) + (np.pi * beta) ** 2 / 6


@_variance.register(rvs.WeibullRV)
def _(op: Op, alpha: Variable, beta: Variable) -> Variable:
    return beta**2 * (pt.gamma(1 + 2 / alpha) - pt.gamma(1 + 1 / alpha) ** 2)


@_variance.register(SkewNormalRV)
def _(op: Op, mu: Variable, sigma: Variable, alpha: Variable) -> Variable:
    return pt.zeros_like(mu) + sigma**2 * (1 - 2 * alpha**2 / (np.pi * (1 + alpha**2)))


@_variance.register(DiracDeltaRV)
def _(op: Op, *parameters: Variable) -> Variable:
    return pt.zeros_like(parameters[0], dtype="float64")


@_variance.register(MixtureRV)
def _(op: Op, *parameters: Variable) -> Variable | None:
    """``sum_k w_k (s2_k + m_k^2) - (sum_k w_k m_k)^2`` of univariate components."""
    weights, *components = [p for p in parameters if not _is_generator(p)]
    own = [variance(component) for component in components]
    if any(part is None for part in own) or components[0].owner.op.ndim_supp:
        return None
    means = [mean(component) for component in components]
    join = (lambda parts: parts[0]) if len(components) == 1 else (lambda parts: pt.stack(parts, axis=-1))
    spread = [pt.zeros_like(m, dtype="float64") + s for m, s in zip(means, own, strict=True)]
    m, s = join(means), join(spread)
    return pt.sum(weights * (s + m**2), axis=-1) - pt.sum(weights * m, axis=-1) ** 2


def _is_generator(variable: Variable) -> bool:
    return type(variable.type).__name__ == "RandomGeneratorType"
