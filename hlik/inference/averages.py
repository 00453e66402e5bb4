r"""Averages over random effects: ``E f(eta + sum_j z_j v_j)`` row by row, by quadrature.

All normal effects of a row are one normal variable (Gauss-Hermite); an effect of another family is integrated on the
scale of v by the trapezoidal rule, which converges exponentially for densities that are smooth and vanish at both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from hlik.errors import ModelError
from hlik.random_families import Normal, RandomFamily

HERMITE = 64  # exp(s x) is integrated to 1e-12 for standard deviations s up to 3
TRAPEZOID = 301
FALL = 60.0  # log density below its peak at which the trapezoidal rule ends
AT_ONCE = 4_000_000  # values of f held at a time
MOST_NODES = 200_000


@dataclass(frozen=True, eq=False)
class Entries:
    """The part of one non-normal random effect in each row: ``coefficient * v``, one level a row.

    `nodes` and `weights` are the rule for the density of that level's v, shapes (m, nodes); rows without the effect
    have coefficient zero.
    """

    coefficient: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray


def variance_of_v(family: RandomFamily, lam: np.ndarray) -> np.ndarray:
    """Var(v) of a random effect: lam; trigamma(1/lam); 2 trigamma(1/(2 lam)); lam + lam^2."""
    if family.name == "normal":
        return np.asarray(lam, float)
    if family.name == "gamma":
        return special.polygamma(1, 1 / lam)
    if family.name == "beta":
        return 2 * special.polygamma(1, 0.5 / lam)
    return lam + lam**2  # inverse gamma: v is Gamma(1 + 1/lam, rate 1/lam)


def average(
    function: Callable[[np.ndarray], np.ndarray], eta: np.ndarray, variance: np.ndarray, others: Sequence[Entries]
) -> np.ndarray:
    """``E f(eta_i + N(0, variance_i) + sum_k coefficient_ik v_ik)``, shape (m,).

    Raises
    ------
    ModelError
        Where a row has more non-normal effects than quadrature can take.
    """
    rules: list[tuple[np.ndarray, np.ndarray]] = []
    if np.any(variance > 0):
        x, w = special.roots_hermitenorm(HERMITE)
        rules.append((np.sqrt(variance)[:, None] * x, np.broadcast_to(w / w.sum(), (eta.size, x.size))))
    rules += [(entries.coefficient[:, None] * entries.nodes, entries.weights) for entries in others]
    nodes = int(np.prod([shift.shape[1] for shift, _ in rules], dtype=float)) if rules else 1
    if nodes > MOST_NODES:
        raise ModelError(
            f"Averaging over {len(others)} random effects a row that are not normal takes {nodes:.0e} points a row: "
            f"average over hlik.simulate(model, idata) instead."
        )
    result = np.empty(eta.size)
    for start in range(0, eta.size, max(1, AT_ONCE // nodes)):
        rows = slice(start, start + max(1, AT_ONCE // nodes))
        result[rows] = _average_of_rows(function, eta[rows], [(s[rows], w[rows]) for s, w in rules])
    return result


def _average_of_rows(
    function: Callable[[np.ndarray], np.ndarray], eta: np.ndarray, rules: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    points, weight = eta[:, None], np.ones((eta.size, 1))
    for shift, own in rules:
        points = (points[:, :, None] + shift[:, None, :]).reshape(eta.size, -1)
        weight = (weight[:, :, None] * own[:, None, :]).reshape(eta.size, -1)
    with np.errstate(over="ignore"):
        return np.einsum("ij,ij->i", weight, np.where(weight > 0, function(points), 0.0))


def family_rule(family: RandomFamily, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes v and normalised weights for every lam, shapes (m, nodes); one rule for each distinct lam."""
    assert not isinstance(family, Normal)
    distinct, where = np.unique(lam, return_inverse=True)
    nodes, weights = zip(*(_trapezoid(family, float(value)) for value in distinct), strict=True)
    return np.array(nodes)[where], np.array(weights)[where]


def _trapezoid(family: RandomFamily, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """The rule in t, with v = t, or v = exp(t) where v must be positive (inverse gamma)."""
    positive = family.name == "inverse_gamma"

    def log_density(t: np.ndarray) -> np.ndarray:
        v = np.exp(t) if positive else t
        return family.log_density(v, lam) + (t if positive else 0.0)

    centre = float(np.log1p(lam)) if positive else family.mode
    ends = [_end(log_density, centre, sign) for sign in (-1.0, 1.0)]
    t = np.linspace(ends[0], ends[1], TRAPEZOID)
    weight = np.exp(log_density(t) - float(log_density(np.array([centre]))[0]))
    return (np.exp(t) if positive else t), weight / weight.sum()


def _end(log_density: Callable[[np.ndarray], np.ndarray], centre: float, sign: float) -> float:
    """Where the log density has fallen by `FALL` from its value at the centre."""
    peak, near, far = float(log_density(np.array([centre]))[0]), 0.0, 1e-3
    while float(log_density(np.array([centre + sign * far]))[0]) > peak - FALL:
        near, far = far, 2 * far
    for _ in range(20):
        middle = 0.5 * (near + far)
        above = float(log_density(np.array([centre + sign * middle]))[0]) > peak - FALL
        near, far = (middle, far) if above else (near, middle)
    return centre + sign * far
