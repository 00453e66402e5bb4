"""Responses of formula models: from a linear predictor to an observed PyMC variable.

Names of families and of their parameters are Bambi's, so that fits of both can be put beside each other. The priors
are weak and matter only where the model is sampled: `hlik.fit` ignores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from hlik.errors import ModelError

INVERSE_LINKS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda eta: eta,
    "log": pt.exp,
    "logit": pm.math.invlogit,
    "probit": pm.math.invprobit,
    "cloglog": lambda eta: -pt.expm1(-pt.exp(eta)),
    "loglog": lambda eta: pt.exp(-pt.exp(-eta)),
    "cauchit": lambda eta: 0.5 + pt.arctan(eta) / np.pi,
    "inverse": lambda eta: 1.0 / eta,
    "sqrt": lambda eta: eta**2,
    "inverse_squared": lambda eta: 1.0 / pt.sqrt(eta),
}


@dataclass(frozen=True)
class Observed:
    """What a family needs to write the response into the model.

    `mean` is the inverse link of the linear predictor, `log_dispersion` the predictor of a dispersion formula or None,
    `weights` prior weights or 1, `spread` the standard deviation of y, for priors.
    """

    name: str
    y: np.ndarray
    mean: Any
    trials: Any
    log_dispersion: Any
    weights: Any
    spread: float
    dims: str


@dataclass(frozen=True)
class Family:
    """A response family: its default link, what `dispersion` means, and how the response is written."""

    name: str
    link: str
    write: Callable[[Observed], None]
    dispersion: str = ""
    weighted: bool = False
    trials: bool = False


def _scale(observed: Observed, name: str = "sigma") -> Any:
    """A standard deviation: exp(log phi / 2), or a parameter."""
    if observed.log_dispersion is None:
        return pm.HalfStudentT(name, 4, sigma=observed.spread) / np.sqrt(observed.weights)
    return pt.exp(0.5 * observed.log_dispersion) / np.sqrt(observed.weights)


def _precision(observed: Observed, name: str) -> Any:
    """1 / phi: exp(-log phi), or a parameter."""
    if observed.log_dispersion is None:
        return pm.HalfCauchy(name, 1) * observed.weights
    return pt.exp(-observed.log_dispersion) * observed.weights


def _gaussian(o: Observed) -> None:
    pm.Normal(o.name, o.mean, _scale(o), observed=o.y, dims=o.dims)


def _t(o: Observed) -> None:
    nu = pm.Gamma("nu", alpha=2, beta=0.1)
    pm.StudentT(o.name, nu=nu, mu=o.mean, sigma=_scale(o), observed=o.y, dims=o.dims)


def _bernoulli(o: Observed) -> None:
    pm.Bernoulli(o.name, p=o.mean, observed=o.y, dims=o.dims)


def _binomial(o: Observed) -> None:
    pm.Binomial(o.name, n=o.trials, p=o.mean, observed=o.y, dims=o.dims)


def _beta_binomial(o: Observed) -> None:
    kappa = _precision(o, "kappa")
    pm.BetaBinomial(o.name, alpha=o.mean * kappa, beta=(1 - o.mean) * kappa, n=o.trials, observed=o.y, dims=o.dims)


def _poisson(o: Observed) -> None:
    pm.Poisson(o.name, mu=o.mean, observed=o.y, dims=o.dims)


def _negative_binomial(o: Observed) -> None:
    pm.NegativeBinomial(o.name, mu=o.mean, alpha=_precision(o, "alpha"), observed=o.y, dims=o.dims)


def _gamma(o: Observed) -> None:
    alpha = _precision(o, "alpha")
    pm.Gamma(o.name, alpha=alpha, beta=alpha / o.mean, observed=o.y, dims=o.dims)


def _wald(o: Observed) -> None:
    pm.Wald(o.name, mu=o.mean, lam=_precision(o, "lam"), observed=o.y, dims=o.dims)


def _exponential(o: Observed) -> None:
    pm.Exponential(o.name, lam=1.0 / o.mean, observed=o.y, dims=o.dims)


def _beta(o: Observed) -> None:
    kappa = _precision(o, "kappa")
    pm.Beta(o.name, alpha=o.mean * kappa, beta=(1 - o.mean) * kappa, observed=o.y, dims=o.dims)


def _weibull(o: Observed) -> None:
    alpha = pm.HalfCauchy("alpha", 1)
    pm.Weibull(o.name, alpha=alpha, beta=o.mean / pt.gamma(1 + 1 / alpha), observed=o.y, dims=o.dims)


def _zero_inflated_poisson(o: Observed) -> None:
    psi = pm.Beta("psi", 2, 2)
    pm.ZeroInflatedPoisson(o.name, psi=psi, mu=o.mean, observed=o.y, dims=o.dims)


def _zero_inflated_binomial(o: Observed) -> None:
    psi = pm.Beta("psi", 2, 2)
    pm.ZeroInflatedBinomial(o.name, psi=psi, n=o.trials, p=o.mean, observed=o.y, dims=o.dims)


def _zero_inflated_negative_binomial(o: Observed) -> None:
    psi, alpha = pm.Beta("psi", 2, 2), _precision(o, "alpha")
    pm.ZeroInflatedNegativeBinomial(o.name, psi=psi, mu=o.mean, alpha=alpha, observed=o.y, dims=o.dims)


FAMILIES = {
    family.name: family
    for family in (
        Family("gaussian", "identity", _gaussian, dispersion="sigma**2", weighted=True),
        Family("t", "identity", _t, dispersion="sigma**2", weighted=True),
        Family("bernoulli", "logit", _bernoulli),
        Family("binomial", "logit", _binomial, trials=True),
        Family("beta_binomial", "logit", _beta_binomial, dispersion="1/kappa", trials=True),
        Family("poisson", "log", _poisson),
        Family("negativebinomial", "log", _negative_binomial, dispersion="1/alpha"),
        Family("gamma", "inverse", _gamma, dispersion="1/alpha", weighted=True),
        Family("wald", "inverse_squared", _wald, dispersion="1/lam", weighted=True),
        Family("exponential", "log", _exponential),
        Family("beta", "logit", _beta, dispersion="1/kappa"),
        Family("weibull", "log", _weibull),
        Family("zero_inflated_poisson", "log", _zero_inflated_poisson),
        Family("zero_inflated_binomial", "logit", _zero_inflated_binomial, trials=True),
        Family("zero_inflated_negativebinomial", "log", _zero_inflated_negative_binomial, dispersion="1/alpha"),
    )
}


def family_of(name: str, link: str | None, *, trials: bool, weights: bool, dispersion: bool) -> tuple[Family, str]:
    """The family and its link, after checking that the other arguments suit it."""
    if name not in FAMILIES:
        raise ModelError(f"family={name!r}: expected one of {sorted(FAMILIES)}.")
    family = FAMILIES[name]
    if link is not None and link not in INVERSE_LINKS:
        raise ModelError(f"link={link!r}: expected one of {sorted(INVERSE_LINKS)}.")
    if family.trials and not trials:
        raise ModelError(f"family={name!r} needs the numbers of trials: trials='n', or a response 'p(r, n)'.")
    if trials and not family.trials:
        raise ModelError(f"trials= goes with binomial families; got family={name!r}.")
    if weights and not family.weighted:
        raise ModelError(
            f"family={name!r} has no dispersion that weights could divide: pass them to the fit, as in "
            f"hlik.fit(model, weights={{'y': w}})."
        )
    if dispersion and not family.dispersion:
        having = sorted(n for n, f in FAMILIES.items() if f.dispersion)
        raise ModelError(
            f"dispersion= needs a family that has one, {having}; family={name!r} has none. Overdispersion of counts: "
            f"'negativebinomial' or 'beta_binomial', an effect of each row, or hlik.EQL(dispersion='estimate')."
        )
    return family, link or family.link
