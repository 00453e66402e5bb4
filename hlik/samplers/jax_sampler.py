"""E-steps by numpyro or blackjax: compiled once, with positions, step sizes and metrics carried from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hlik.hlikelihood import HLikelihood
from hlik.samplers.base import Draws
from hlik.samplers.jax_kernels import Density, compiled
from hlik.samplers.source import EffectsModel

LATER_TUNE = (15, 15, 15)  # draws, not used, that begin later E-steps; the step size is corrected after each round
TARGET = 0.8  # mean acceptance of a proposal
GAIN = 2.0  # how strongly a mean acceptance other than that changes the step size
MOST = 2.0  # factor of one change


class JaxSampler:
    """NUTS in JAX, all chains side by side.

    The first E-step adapts step size and diagonal metric of every chain; later ones keep the metric and correct the
    step size by the mean acceptance a of three short rounds that are not used: times ``exp(2 (a - 0.8))``, between 1/2
    and 2.

    Parameters
    ----------
    kind
        ``"numpyro"`` or ``"blackjax"``.
    """

    def __init__(self, likelihood: HLikelihood, position: np.ndarray, tune: int, kind: str):
        self.model, self.chains, self.tune, self.kind = likelihood.model, len(position), tune, kind
        self.position = position.copy()
        self.step_size = np.empty(0)
        self.compilations = 0
        self._metric: np.ndarray | None = None
        self._effects: EffectsModel | None = None
        self._begin: Callable
        self._go_on: Callable

    def restore(self, position: np.ndarray, step_size: np.ndarray | None) -> None:
        """Go on from these positions; step size and metric are found anew."""
        self.position, self._metric = position[np.arange(self.chains) % len(position)], None

    def _at(self, beta: np.ndarray, theta: np.ndarray) -> tuple[EffectsModel, tuple[np.ndarray, ...]]:
        if self._effects is None:
            self._effects = EffectsModel(self.model, beta, theta)
            self.density = Density(self._effects, self._effects.values(beta, theta))
            self._begin, self._go_on, self._most = compiled(self.kind, self.density, self.tune, self.chains)
            self.compilations += 1
        values = self._effects.values(beta, theta)
        return self._effects, tuple(values[name] for name in self.density.names)

    def draw(self, beta: np.ndarray, theta: np.ndarray, draws: int, rng: np.random.Generator) -> Draws:
        """Draws of v; the chains begin where the last ones ended."""
        effects, parameters = self._at(beta, theta)
        x = effects.flat_of(self.position, beta, theta)
        if self._metric is None:
            x, step_size, metric = map(np.asarray, self._begin(self._keys(rng), x, parameters))
            self.step_size, self._metric = step_size, metric
        else:
            x = self._adapted(x, parameters, rng)
        per_chain = -(-draws // self.chains)
        parts, told = [], []
        for start in range(0, per_chain, self._most):
            x, values, stats = self._next(x, parameters, min(self._most, per_chain - start), rng)
            parts.append(values)
            told.append(stats)
        v = effects.v_of_flat(np.concatenate(parts, axis=1), beta, theta)
        found = {name: np.concatenate([stats[name] for stats in told], axis=1) for name in told[0]}
        self.position = v[:, -1].copy()
        return Draws(v, found, self.step_size)

    def _adapted(self, x: np.ndarray, parameters: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray:
        """Positions after rounds that are not used; the step sizes follow the new parameters."""
        for count in LATER_TUNE:
            x, _, stats = self._next(x, parameters, count, rng)
            change = GAIN * (stats["mean_tree_accept"].mean(axis=1) - TARGET)
            self.step_size = self.step_size * np.exp(np.clip(change, -np.log(MOST), np.log(MOST)))
        return x

    def _keys(self, rng: np.random.Generator) -> Any:
        import jax

        return jax.random.split(jax.random.PRNGKey(int(rng.integers(2**31))), self.chains)

    def _next(
        self, x: np.ndarray, parameters: tuple[np.ndarray, ...], count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Positions after `count` draws, the draws (chains, count, q), their statistics."""
        keys = self._keys(rng)
        x, values, stats = self._go_on(keys, x, parameters, self.step_size, self._metric, np.int64(count))
        kept = {name: np.asarray(value)[:, :count] for name, value in stats.items()}
        return np.asarray(x), np.asarray(values)[:, :count], kept
