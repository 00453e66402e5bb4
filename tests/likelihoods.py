"""Models of twelve groups of five with likelihoods of many kinds, none of which is a family known in closed form."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

N, GROUPS = 60, 12
GROUP = np.repeat(np.arange(GROUPS), N // GROUPS)
_rng = np.random.default_rng(0)
X = _rng.normal(size=N)
_shift = 0.7 * _rng.normal(size=GROUPS)[GROUP]  # the groups differ, and counts vary more than Poisson's
COUNT = _rng.poisson(3 * np.exp(_shift) * _rng.gamma(2, 1 / 2, N))
FEW = _rng.poisson(3 * np.exp(_shift)) * (_rng.random(N) < 0.7)
REAL = _rng.normal(size=N) + _shift
SHARE = _rng.beta(3 * np.exp(_shift), 2)
TIME = _rng.gamma(2, np.exp(_shift))
ORDERED = np.digitize(_shift + _rng.logistic(size=N), [-1, 0, 1])
TRIALS = 10
SUCCESSES = _rng.binomial(TRIALS, _rng.beta(2 * np.exp(_shift), 2))
GROWN = np.exp(0.5 + 0.3 * X + 0.5 * _shift) * (1 - np.exp(-2 * np.abs(X))) + 0.1 * _rng.normal(size=N)
MIXED = np.where(_rng.random(N) < 0.3, 0.3, 4.0 + 0.6 * _rng.normal(size=N)) + 0.3 * _rng.normal(size=N) + _shift


@dataclass(frozen=True)
class Kind:
    """A likelihood of y given a linear predictor and two positive parameters, and its number of predictors."""

    observe: Callable
    n_predictors: int = 1
    effects: tuple[str, ...] = ("u",)

    def build(self) -> pm.Model:
        """The model with an intercept, a slope and normal effects u."""
        with pm.Model() as model, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyMC's hurdles, for their scan
            beta = pm.Normal("beta", 0, 1, shape=2)
            sigma = pm.HalfNormal("sigma")
            u = pm.Normal("u", 0, sigma, shape=GROUPS)
            self.observe(beta[0] + beta[1] * X + u[GROUP], pm.HalfNormal("alpha"), u)
        return model


def _growth(eta, alpha, u):
    rate = pt.exp(0.1 * u[GROUP] + pm.Normal("rate"))
    return pm.Normal("y", pt.exp(eta) * (1 - pt.exp(-rate * np.abs(X))), alpha, observed=GROWN)


def _ordered(eta, alpha, u):
    ordered = pm.distributions.transforms.ordered
    cut = pm.Normal("cut", 0, 1, shape=3, transform=ordered, initval=[-1, 0, 1])
    return pm.OrderedLogistic("y", eta=eta, cutpoints=cut, observed=ORDERED)


def _double(eta, alpha, u):
    spread = pm.Normal("w", 0, pm.HalfNormal("sigma_w"), shape=GROUPS)
    return pm.Normal("y", eta, pt.exp(0.5 * (pm.Normal("gamma") + spread[GROUP])), observed=REAL)


def _beta_binomial(eta, alpha, u):
    p = pm.math.invlogit(eta)
    return pm.BetaBinomial("y", n=TRIALS, alpha=p / alpha, beta=(1 - p) / alpha, observed=SUCCESSES)


def _mixture(eta, alpha, u):
    centres = pt.stack([eta, eta + 4], axis=-1)
    return pm.NormalMixture("y", w=[0.3, 0.7], mu=centres, sigma=pt.stack([alpha, 2 * alpha]), observed=MIXED)


def _gumbel(value, mu, scale):
    z = (value - mu) / scale
    return -pt.log(scale) - z - pt.exp(-z)


def _logistic_zero(eta, alpha):
    return pm.math.invlogit(0.3 * X + alpha)


KINDS: dict[str, Kind] = {
    "negative_binomial": Kind(lambda e, a, u: pm.NegativeBinomial("y", mu=pt.exp(e), alpha=a, observed=COUNT)),
    "student_t": Kind(lambda e, a, u: pm.StudentT("y", nu=pm.Gamma("nu", 2, 0.1), mu=e, sigma=a, observed=REAL)),
    "zero_inflated": Kind(
        lambda e, a, u: pm.ZeroInflatedPoisson("y", psi=_logistic_zero(e, a), mu=pt.exp(e), observed=FEW), 2
    ),
    "hurdle": Kind(lambda e, a, u: pm.HurdlePoisson("y", psi=_logistic_zero(e, a), mu=pt.exp(e), observed=FEW), 2),
    "beta": Kind(lambda e, a, u: pm.Beta("y", mu=pm.math.invlogit(e), nu=1 + a, observed=SHARE)),
    "beta_binomial": Kind(_beta_binomial),
    "ordered_logistic": Kind(_ordered),
    "censored": Kind(
        lambda e, a, u: pm.Censored("y", pm.Normal.dist(e, a), lower=-1, upper=1, observed=np.clip(REAL, -1, 1))
    ),
    "truncated": Kind(lambda e, a, u: pm.Truncated("y", pm.Normal.dist(e, a), lower=-1, observed=np.abs(REAL))),
    "growth_curve": Kind(_growth, 2),
    "mixture": Kind(_mixture),
    "double_hglm": Kind(_double, 2, ("u", "w")),
    "weibull": Kind(lambda e, a, u: pm.Weibull("y", alpha=a, beta=pt.exp(e), observed=TIME)),
    "log_normal": Kind(lambda e, a, u: pm.LogNormal("y", e, a, observed=TIME)),
    "custom_gumbel": Kind(lambda e, a, u: pm.CustomDist("y", e, a, logp=_gumbel, observed=REAL)),
    "skew_normal": Kind(lambda e, a, u: pm.SkewNormal("y", mu=e, sigma=a, alpha=0.8, observed=REAL)),
}
