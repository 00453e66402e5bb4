r"""Degrees of freedom of t effects that are estimated at infinity: normal effects fit as well.

As nu grows, the log density of a block of k effects, ``s = v'Qv``, is

.. math:: \log t_\nu(v) = \log N(v) + \frac{s^2 - 2 k s + k (k - 2)}{4 \nu} + O(\nu^{-2}),

so that the likelihood falls from its normal limit in 1 / nu where the mean of the sum of these terms over the effects
given the responses is negative.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize

from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel, RandomEffect

MANY = 100.0  # degrees of freedom that may be said to be at the end of their range
RANGE = 40.0  # of an unconstrained parameter


def endless_degrees(model: HierarchicalModel, place: int, theta: np.ndarray) -> list[str]:
    """A sentence for every term of t effects whose degrees of freedom one element of theta takes to infinity."""
    found = []
    for effect in model.random_effects:
        if effect.degrees is not None and effect.degrees.map.jacobian(theta)[0, place] != 0:
            if not effect.degrees.map.value(theta)[0] < MANY:
                found.append(degrees_sentence(effect))
    return found


def degrees_sentence(effect: RandomEffect) -> str:
    """What a status says of a term of t effects that is estimated to be normal."""
    return f"df of {effect.name!r} at the end of its range: normal effects fit as well"


def normal_slope(likelihood: HLikelihood, effect: RandomEffect, columns: np.ndarray, theta: np.ndarray) -> float:
    """Derivative of the log-likelihood by 1 / nu in the normal limit; `columns` (q, m): draws given the responses."""
    assert effect.degrees is not None
    assert effect.precision is not None
    point, v = effect.precision.at(theta), columns[effect.index]
    if point is None:
        return np.nan
    k = effect.degrees.blocks.shape[1]
    s = (v * effect.precision.multiply(point.values, v))[effect.degrees.blocks].sum(axis=1)
    return float(np.mean(np.sum(s**2 - 2 * k * s + k * (k - 2), axis=0)) / 4)


def own_element(effect: RandomEffect, theta: np.ndarray, elsewhere: np.ndarray) -> int | None:
    """The element of theta that moves nothing but a term's degrees of freedom; None where there is none."""
    if effect.degrees is None or effect.precision is None:
        return None
    moves = np.flatnonzero(effect.degrees.map.jacobian(theta)[0])
    if moves.size != 1 or elsewhere[moves[0]]:
        return None
    scale = effect.precision.coefficients.jacobian(theta)[:, moves[0]]
    return None if np.any(scale != 0) else int(moves[0])


def with_degrees(effect: RandomEffect, theta: np.ndarray, k: int, wanted: float) -> np.ndarray | None:
    """theta with the degrees of freedom at a value by its element k; None where no value of it gives that."""
    assert effect.degrees is not None
    own = effect.degrees.map

    def excess(value: float) -> float:
        moved = theta.copy()
        moved[k] = value
        with np.errstate(all="ignore"):
            reached = float(own.value(moved)[0])
        return np.log(max(reached, 1e-300)) - np.log(wanted) if np.isfinite(reached) else RANGE

    if excess(-RANGE) * excess(RANGE) >= 0:
        return None
    moved = theta.copy()
    moved[k] = optimize.brentq(excess, -RANGE, RANGE)
    return moved
