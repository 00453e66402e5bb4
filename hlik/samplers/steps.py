"""PyMC's own step methods (NUTS, Metropolis) on ``pm.do(model, parameters)``, built and compiled once."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from hlik.hlikelihood import HLikelihood
from hlik.samplers.base import Draws
from hlik.samplers.source import EffectsModel

LATER_TUNE = {"pymc": 20, "metropolis": 500}  # draws, not used, that let later E-steps forget the last parameters
THIN = {"pymc": 1, "metropolis": 10}  # a random walk of many effects moves slowly: one draw in ten is kept


class StepSampler:
    """A step method that keeps its step size and metric from one E-step to the next; chains take turns with it.

    Parameters
    ----------
    kind
        ``"pymc"``: NUTS. ``"metropolis"``: random walk.
    """

    def __init__(self, likelihood: HLikelihood, position: np.ndarray, tune: int, kind: str):
        self.model, self.chains, self.tune, self.kind = likelihood.model, len(position), tune, kind
        self.position = position.copy()
        self.compilations = 0
        self._effects: EffectsModel | None = None
        self._step: Any = None
        self._tuned = False

    def restore(self, position: np.ndarray, step_size: np.ndarray | None) -> None:
        """Go on from these positions; step size and metric are found anew."""
        self.position = position[np.arange(self.chains) % len(position)]
        if self._step is not None:
            self._step.reset_tuning()
            self._tuned = False

    def _build(self, beta: np.ndarray, theta: np.ndarray) -> EffectsModel:
        import pymc as pm

        if self._effects is None:
            self._effects = EffectsModel(self.model, beta, theta)
            with self._effects.model, warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                self._step = pm.NUTS() if self.kind == "pymc" else pm.Metropolis()
            self.compilations += 1
        else:
            with self._effects.model:
                pm.set_data(self._effects.values(beta, theta))
        return self._effects

    def draw(self, beta: np.ndarray, theta: np.ndarray, draws: int, rng: np.random.Generator) -> Draws:
        """Draws of v; the chains begin where the last ones ended."""
        effects = self._build(beta, theta)
        per_chain = -(-draws // self.chains)
        self._step.set_rng(rng)
        v = np.empty((self.chains, per_chain, self.model.n_random))
        stats: dict[str, np.ndarray] = {}
        for chain in range(self.chains):
            point = self._point(effects, self.position[chain], beta, theta)
            point = self._adapt(point, chain)
            for k in range(per_chain):
                for _ in range(THIN[self.kind]):
                    point, told = self._step.step(point)
                v[chain, k] = self._v(effects, point, beta, theta)
                for name, value in _numbers(told).items():
                    stats.setdefault(name, np.zeros((self.chains, per_chain)))[chain, k] = value
            self.position[chain] = v[chain, -1]
        self._tuned = True
        size = np.full(self.chains, float(np.mean(stats["step_size_bar"][:, -1]))) if "step_size_bar" in stats else None
        return Draws(v, stats, size)

    def _adapt(self, point: dict[str, np.ndarray], chain: int) -> dict[str, np.ndarray]:
        """Tune in the first E-step's first chain; elsewhere only move, with what was learnt."""
        first = not self._tuned and chain == 0
        steps = self.tune if first else LATER_TUNE[self.kind]
        if first:
            steps *= 2 if self.kind == "pymc" else 20
        self._step.tune = first
        for _ in range(steps):
            point, _told = self._step.step(point)
        if first:
            self._step.stop_tuning()
        return point

    def _point(
        self, effects: EffectsModel, v: np.ndarray, beta: np.ndarray, theta: np.ndarray
    ) -> dict[str, np.ndarray]:
        point = {}
        for effect in effects.ordered():  # PyMC's steps put a point's values side by side as they come
            value = effects.value_of(effect, v[effect.index], beta, theta)
            point[effect.variable.value_name] = value.reshape(effect.variable.unconstrained_shape)
        return point

    def _v(
        self, effects: EffectsModel, point: dict[str, np.ndarray], beta: np.ndarray, theta: np.ndarray
    ) -> np.ndarray:
        v = np.empty(self.model.n_random)
        for effect in self.model.random_effects:
            v[effect.index] = effects.v_of(effect, np.ravel(point[effect.variable.value_name]), beta, theta)
        return v


def _numbers(told: list[dict[str, Any]]) -> dict[str, float]:
    """The statistics of a step that are single numbers; of several step methods the mean."""
    found: dict[str, list[float]] = {}
    for one in told:
        for name, value in one.items():
            if isinstance(value, int | float | bool | np.number | np.bool_) and name != "tune":
                found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}
