"""The likelihoods that hglm reports with calc.like = TRUE."""

from dataclasses import dataclass

import numpy as np

from .families import FAMILIES
from .model import observation_weights, random_weights


@dataclass(frozen=True)
class Likelihoods:
    hlik: float
    pvh: float
    pbvh: float
    cAIC: float


def likelihoods(model, fit) -> Likelihoods:
    """
    conditional = sum of log f(y | v);  h = conditional + sum of log f(u) + log |du/dv|;
    pvh = h - 1/2 log |H/2pi|, H = Z'W1 Z + W2;  pbvh = h - 1/2 log |A/2pi|, A = T'WT;
    cAIC = -2 conditional + 2 sum of the leverages of the observations. W with the final phi, lam: no lag here.
    """
    n = len(model.y)
    step, phi, lam = fit.step, fit.dispersions.phi, fit.dispersions.lam
    conditional = np.sum(FAMILIES[model.family].saturated(model.y, phi, model.weights) - 0.5 * fit.d[:n] / phi)
    h = conditional + np.sum(model.by_term(_log_density_of_v, step.v, lam))
    W1 = observation_weights(model, step.eta, phi)
    W2 = random_weights(model, step.v, model.u(step.v), lam)
    H = model.Z.T @ (W1[:, None] * model.Z) + np.diag(W2)
    A = model.T.T @ (np.concatenate([W1, W2])[:, None] * model.T)
    return Likelihoods(
        hlik=h,
        pvh=h - 0.5 * np.linalg.slogdet(H / (2 * np.pi))[1],
        pbvh=h - 0.5 * np.linalg.slogdet(A / (2 * np.pi))[1],
        cAIC=-2 * conditional + 2 * np.sum(fit.h[:n]),
    )


def _log_density_of_v(random_family, link, v, lam):
    return random_family.log_density(link.inverse(v), lam) + np.log(np.abs(link.first(v)))
