"""(beta, v) of EQL for given dispersions: scoring steps, then Newton's where the link is not canonical."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlik.augmented import AugmentedModel, Dispersions, Point
from hlik.estimators.hl11 import profile_score
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel

EPS = float(np.finfo(float).eps)
MAX_STEPS = 60
NEWTON_RANGE = 1.0  # standard errors from the solution, inside which the observed information is tried
SOLVED = 1e-8  # standard errors
STUCK = 1e-5  # standard errors: shorter steps that no longer get shorter are rounding errors


@dataclass(frozen=True, eq=False)
class MeanSolution:
    """The point where the mixed-model equations hold, H there with expected and with observed weights.

    `decrement` is the length of the last step in standard errors, `rounding` how short a step can be told from
    rounding errors, `steps` the number of steps.
    """

    point: Point
    expected: Bordered
    observed: Bordered
    steps: int
    decrement: float
    rounding: float

    @property
    def is_solved(self) -> bool:
        """Whether the equations hold: the last step was short, so that after it the solution is far closer."""
        return self.decrement <= max(SOLVED, self.rounding)


def solve_mean(
    augmented: AugmentedModel,
    point: Point,
    spread: Dispersions,
    tolerance: float,
    correction: str | None,
    max_steps: int = MAX_STEPS,
) -> MeanSolution:
    """Step until the steps are shorter than `tolerance` standard errors, or no longer get shorter.

    The factors belong to the point before the last step, hence are as accurate as `tolerance`. A linear Gaussian
    model is solved by one step and one of iterative refinement, with one factor.
    """
    linear = is_linear(augmented.model)
    expected = observed = augmented.factor(point)
    before, length = np.inf, 1.0
    for step in range(1, max_steps + 1):
        if step > 1 and not linear:
            expected = observed = augmented.factor(point)
        scores = _scores(augmented, point, spread, correction)
        direction, decrement = _direction(expected, scores)
        if not augmented.is_canonical and decrement < NEWTON_RANGE:
            found = augmented.factor_observed(point, spread)
            if found is not None:
                observed = found
                direction, decrement = _direction(observed, scores)
        stuck = before < STUCK and decrement > 0.5 * before
        if correction and decrement > before and not stuck:
            length = max(0.5 * length, 0.1)  # the correction has no objective: shorter steps where they grow
        slope = -1.0 if correction else decrement**2
        scaled = tuple(length * part for part in direction)
        point, taken = augmented.step(point, scaled, spread, slope)  # type: ignore[arg-type]
        if decrement <= tolerance or stuck or taken == 0.0 or (linear and step == 2):
            break
        before = decrement
    prior = point.random_weight[augmented.model.prior.diagonal]
    rounding = 8.0 * EPS * float(np.sqrt(np.sum(point.weight * point.eta**2) + np.sum(prior * point.v**2)))
    return MeanSolution(point, expected, observed, step, decrement, rounding)


def _scores(
    augmented: AugmentedModel, point: Point, spread: Dispersions, correction: str | None
) -> tuple[np.ndarray, np.ndarray]:
    beta, v = augmented.scores(point)
    if correction == "HL11":
        beta = beta + profile_score(augmented, point, spread)
    return beta, v


def _direction(
    bordered: Bordered, scores: tuple[np.ndarray, np.ndarray]
) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """``H^-1 scores`` and its length in standard errors."""
    beta, v = bordered.solve(*scores)
    return (beta, v), float(np.sqrt(max(float(scores[0] @ beta + scores[1] @ v), 0.0)))


def is_linear(model: HierarchicalModel) -> bool:
    """Whether the mixed-model equations are linear: normal responses and effects, identity links."""
    return all(
        r.family.name == "normal" and r.link.name == "identity"  # type: ignore[union-attr]
        for r in model.responses
    ) and all(e.family is None or e.family.name == "normal" for e in model.random_effects)
