"""NUTS by nutpie on ``pm.do(model, parameters)``, compiled once."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
from numba.core.errors import NumbaPerformanceWarning

from hlik.hlikelihood import HLikelihood
from hlik.samplers.base import Draws
from hlik.samplers.source import EffectsModel

STATS = ("diverging", "n_steps", "energy", "depth", "mean_tree_accept")
LATER_TUNE = 100  # draws that adapt the metric in later E-steps: nutpie estimates it anew, and takes none


class NutpieSampler:
    """Compiled on the first call; later E-steps set new data, positions and step size.

    nutpie takes a step size and positions from outside, but no mass matrix: it makes one from the gradient at the
    position where it begins, and improves it in `LATER_TUNE` draws, which are not used.
    """

    def __init__(self, likelihood: HLikelihood, position: np.ndarray, tune: int):
        self.model, self.chains, self.tune = likelihood.model, len(position), tune
        self.position = position
        self.step_size: np.ndarray | None = None
        self.compilations = 0
        self._effects: EffectsModel | None = None
        self._compiled: Any = None

    def restore(self, position: np.ndarray, step_size: np.ndarray | None) -> None:
        """Go on from these positions."""
        self.position, self.step_size = position[np.arange(self.chains) % len(position)], step_size

    def _at(self, beta: np.ndarray, theta: np.ndarray) -> tuple[EffectsModel, Any]:
        import nutpie

        if self._effects is None:
            self._effects = EffectsModel(self.model, beta, theta)
            first = self._effects.model.free_RVs[0].name
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumbaPerformanceWarning)  # of the memory layout of PyTensor's products
                self._compiled = nutpie.compile_pymc_model(self._effects.model, var_names=[first])
            self.compilations += 1
        data = {k: x for k, x in self._effects.values(beta, theta).items() if k in self._compiled.shared_data}
        return self._effects, self._compiled.with_data(**data)

    def draw(self, beta: np.ndarray, theta: np.ndarray, draws: int, rng: np.random.Generator) -> Draws:
        """Draws of v; the chains begin where the last ones ended."""
        import nutpie

        effects, compiled = self._at(beta, theta)
        starts = effects.flat_of(self.position, beta, theta)
        settings = {} if self.step_size is None else {"initial_step": float(np.mean(self.step_size))}
        found = nutpie.sample(
            dataclasses.replace(compiled, initial_point_func=lambda seed: starts[seed % self.chains].copy()),
            draws=-(-draws // self.chains),
            tune=self.tune if self.step_size is None else min(self.tune, LATER_TUNE),
            chains=self.chains,
            seed=int(rng.integers(2**31)),
            save_warmup=False,
            progress_bar=False,
            store_unconstrained=True,
            **settings,
        )
        v = effects.v_of_flat(np.asarray(found.sample_stats["unconstrained_draw"]), beta, theta)
        stats = {name: np.asarray(found.sample_stats[name]) for name in STATS if name in found.sample_stats}
        stats["lp"] = np.asarray(found.sample_stats["logp"])
        self.position = v[:, -1].copy()
        self.step_size = np.asarray(found.sample_stats["step_size_bar"])[:, -1]
        return Draws(v, stats, self.step_size)
