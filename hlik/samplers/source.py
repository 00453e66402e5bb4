"""The posterior of the random effects as a PyMC model: `pm.do` with the parameters as shared data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.model import HierarchicalModel, RandomEffect


class Source:
    """The PyMC model that a `HierarchicalModel` was read from; dropped where that is sent to another process.

    Parameters
    ----------
    model
        The `pm.Model`.
    fixed
        Natural-scale values of parameters that are held fixed.
    weighted
        Whether prior weights were given: PyMC's graph does not know them.
    """

    def __init__(self, model: Any = None, fixed: Mapping[str, Any] | None = None, weighted: bool = False):
        self.model = model
        self.fixed = dict(fixed or {})
        self.weighted = weighted

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Source, ()


class EffectsModel:
    """``pm.do(model, parameters)``: its free variables are the random effects, its parameters shared data.

    Attributes
    ----------
    model
        The intervened `pm.Model`.
    """

    def __init__(self, model: HierarchicalModel, beta: np.ndarray, theta: np.ndarray):
        import pymc as pm

        assert model.source is not None
        self.read = model
        source = model.source
        values = self.values(beta, theta)
        held = {name: np.asarray(value, float) for name, value in source.fixed.items()}
        unused = {}
        for name in model.left_out:
            rv = source.model[name]
            unused[name] = np.zeros(tuple(int(n) for n in rv.shape.eval()), dtype=rv.dtype)
        self.model = pm.do(source.model, {**values, **held, **unused})
        names = {rv.name for rv in self.model.free_RVs}
        expected = {effect.name for effect in model.random_effects}
        if names != expected:
            raise ModelError(
                f"MCEM: with all parameters given, PyMC's model has the free variables {sorted(names)} where hlik "
                f"reads the random effects {sorted(expected)}; use sampler='importance'."
            )

    def values(self, beta: np.ndarray, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters on the natural scale, by name."""
        found = {}
        for p in self.read.parameters:
            form = self.read.forms.get(p.name)
            if p.natural is not None:
                own = p.natural.value(theta)
            else:
                own = beta[p.index] if form is None else fm.evaluate(form, {p.name: beta[p.index]})  # type: ignore[arg-type]
            found[p.name] = np.asarray(own, float).reshape(p.variable.shape)
        return found

    def v_of(self, effect: RandomEffect, value: np.ndarray, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """v of draws of an effect's value variable, shape (..., size)."""
        if effect.root is not None:
            return _rooted(effect, value, effect.root.matrix.value(theta))
        if effect.scale_map is not None:
            return value * effect.scale_map.value(theta)
        return value - self._location(effect, beta, theta)

    def value_of(self, effect: RandomEffect, v: np.ndarray, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The reverse of `v_of`."""
        if effect.root is not None:
            size = effect.root.blocks.shape[1]
            inverse = np.linalg.inv(effect.root.matrix.value(theta).reshape(size, size))
            return _rooted(effect, v, inverse)
        if effect.scale_map is not None:
            return v / effect.scale_map.value(theta)
        return v + self._location(effect, beta, theta)

    def flat_of(self, v: np.ndarray, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Value variables side by side in PyMC's order, (..., q), of positions v (..., q)."""
        return np.concatenate(
            [self.value_of(effect, v[..., effect.index], beta, theta) for effect in self.ordered()], axis=-1
        )

    def v_of_flat(self, values: np.ndarray, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The reverse of `flat_of`."""
        v, at = np.empty((*values.shape[:-1], self.read.n_random)), 0
        for effect in self.ordered():
            v[..., effect.index] = self.v_of(effect, values[..., at : at + effect.size], beta, theta)
            at += effect.size
        return v

    def ordered(self) -> list[RandomEffect]:
        """The random effects in the order of PyMC's free variables, which need not be hlik's."""
        own = {effect.name: effect for effect in self.read.random_effects}
        return [own[rv.name] for rv in self.model.free_RVs]

    def _location(self, effect: RandomEffect, beta: np.ndarray, theta: np.ndarray) -> np.ndarray | float:
        if effect.location is None:
            return 0.0
        x = {p.name: (beta if p.natural is None else theta)[p.index] for p in self.read.parameters}
        x |= {e.name: np.zeros(e.size) for e in self.read.random_effects}
        return fm.evaluate(self.read.forms[effect.name], x).ravel()  # type: ignore[arg-type]


def _rooted(effect: RandomEffect, values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``matrix @ x_g`` for every block g of the elements x of values (..., size)."""
    assert effect.root is not None
    blocks = effect.root.blocks
    result = np.empty(values.shape)
    result[..., blocks] = values[..., blocks] @ matrix.reshape(blocks.shape[1], -1).T
    return result
