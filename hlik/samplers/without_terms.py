"""E-steps of a model in which some random effects have a variance of zero: the others are drawn with these at zero.

Effects of a vanishing variance beside others of a usual one make a density a thousand times longer than wide, in which
Markov chains move slowly. Given y they are what their density says, so that they are drawn from that (as normal or
t), and the chains are those of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hlik.graph import forms as fm
from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel, RandomEffect
from hlik.samplers.base import Draws, Sampler
from hlik.samplers.choose import resolved, sampler_for
from hlik.samplers.source import Source


def without_terms(
    sampler: Sampler, name: str, likelihood: HLikelihood, gone: frozenset[str], position: np.ndarray, tune: int
) -> Sampler:
    """A sampler that goes on from `position` (chains, q) where the terms `gone` have no variance.

    Importance sampling goes on as it is: it takes every block by itself. So do effects with a mean of their own, whose
    place moves with the parameters.
    """
    whole = sampler.whole if isinstance(sampler, WithoutTerms) else sampler
    held = frozenset(e.name for e in likelihood.model.random_effects if e.name in gone and e.location is None)
    if resolved(name) == "importance" or not held:
        whole.restore(position, None)
        return whole
    if isinstance(sampler, WithoutTerms) and sampler.gone == held:
        sampler.restore(position, None)
        return sampler
    return WithoutTerms(whole, name, likelihood, held, position, tune)


class WithoutTerms:
    """Draws of a model with some terms at the modes of their densities, and of these from their densities.

    Attributes
    ----------
    whole
        The sampler of all terms.
    gone
        Names of those that are held.
    compilations
        Those of the sampler of all terms included.
    """

    def __init__(
        self,
        whole: Sampler,
        name: str,
        likelihood: HLikelihood,
        gone: frozenset[str],
        position: np.ndarray,
        tune: int,
    ):
        self.whole, self.gone, self.likelihood = whole, gone, likelihood
        self.position = position.copy()
        reduced = _reduced(likelihood.model, gone)
        self._rest = sampler_for(name, HLikelihood(reduced), position, tune) if reduced.random_effects else None
        self.compilations = whole.compilations

    def restore(self, position: np.ndarray, step_size: np.ndarray | None) -> None:
        """Go on from these positions."""
        self.position = position.copy()
        if self._rest is not None:
            self._rest.restore(position, step_size)

    def draw(self, beta: np.ndarray, theta: np.ndarray, draws: int, rng: np.random.Generator) -> Draws:
        """Draws of v."""
        chains, q = self.position.shape
        if self._rest is None:
            found = Draws(np.empty((chains, -(-draws // chains), q)))
        else:
            found = self._rest.draw(beta, theta, draws, rng)
            self.compilations = self.whole.compilations + self._rest.compilations
        v = found.v.copy()
        for effect, term in zip(self.likelihood.model.random_effects, self.likelihood.random_terms, strict=True):
            if effect.name in self.gone:
                shape = (*v.shape[:2], effect.size)
                v[..., effect.index] = term.mode + _from_density(effect, term.mode, term.local, theta, shape, rng)
        return replace(found, v=v)


def _from_density(
    effect: RandomEffect,
    mode: float,
    local: Callable[[np.ndarray, np.ndarray], Any],
    theta: np.ndarray,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws about the mode of a density of a small dispersion, (chains, draws, size): normal, or t."""
    normal = rng.normal(size=shape)
    if effect.precision is None:
        return normal / np.sqrt(local(np.full(effect.size, mode), theta)[2])
    point = effect.precision.at(theta)
    assert point is not None
    rows, columns = effect.precision.pattern.indices, effect.precision.pattern.columns()
    Q = np.zeros((effect.size, effect.size))
    Q[rows, columns] = Q[columns, rows] = point.values
    found = np.linalg.solve(np.linalg.cholesky(Q).T, normal.reshape(-1, effect.size).T).T.reshape(shape)
    if effect.degrees is not None:
        nu, blocks = float(effect.degrees.map.value(theta)[0]), effect.degrees.blocks
        found[..., blocks] /= np.sqrt(rng.chisquare(nu, (*shape[:2], len(blocks))) / nu)[..., None]
    return found


def _reduced(model: HierarchicalModel, gone: frozenset[str]) -> HierarchicalModel:
    """The model with the terms `gone` known; v keeps its length."""
    assert model.source is not None
    zeros = {effect.name: np.zeros(effect.size) for effect in model.random_effects}
    fixed = dict(model.source.fixed)
    for effect in model.random_effects:
        if effect.name in gone:
            mode = 0.0 if effect.family is None else effect.family.mode
            form = model.forms[effect.name]
            value = np.zeros(effect.variable.shape)
            if fm.inputs_of(form) <= set(zeros):
                value = fm.evaluate(form, zeros | {effect.name: np.full(effect.size, mode)})  # type: ignore[arg-type]
            fixed[effect.name] = np.reshape(value, effect.variable.shape)
    source = Source(model.source.model, fixed, model.source.weighted)
    rest = tuple(effect for effect in model.random_effects if effect.name not in gone)
    return replace(model, random_effects=rest, source=source)
