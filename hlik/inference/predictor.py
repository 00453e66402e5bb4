"""What is predicted, as rows over (beta, v, theta) and a function of the linear predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.graph import rows as lin
from hlik.graph.at_data import Target
from hlik.graph.forms import Affine
from hlik.inference.averages import Entries, average
from hlik.inference.prior_variance import row_variance
from hlik.inference.restore import Restored
from hlik.model import RandomEffect

PARTS = ("observed", "unobserved")  # of a masked response, as PyMC calls them
LARGEST_GRAPH = 4_000_000  # entries of the Jacobian of a mean without closed form


class At(NamedTuple):
    """The predictor and its Jacobian at one (beta, v, theta); `TZ` has a column for every level there."""

    eta: np.ndarray
    TX: np.ndarray
    TZ: sp.csr_array
    T_theta: np.ndarray


@dataclass(frozen=True, eq=False)
class Predictor:
    """What is predicted at some data.

    Attributes
    ----------
    known, position, centre
        For each level there: whether the fit had it, where in v, and the value of v that changes nothing.
    inverse, slope, link
        mu(eta), d mu/d eta and eta(mu).
    """

    name: str
    target: Target
    labels: list[str]
    known: np.ndarray
    position: np.ndarray
    centre: np.ndarray
    start: dict[str, slice]
    affine: Affine | None
    inverse: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    link: Callable[[np.ndarray], np.ndarray]

    @property
    def is_graph(self) -> bool:
        """Whether it is no function of one linear predictor."""
        return self.affine is None

    def at(self, fitted: Restored, v: np.ndarray) -> At:
        """Value and Jacobian with the random effects at `v`, shape (levels there,)."""
        return self._affine(fitted, v) if self.affine is not None else self._graph(fitted, v)

    def _affine(self, fitted: Restored, v: np.ndarray) -> At:
        assert self.affine is not None
        m = self.affine.offset.size
        TX, T_theta = np.zeros((m, fitted.beta.size)), np.zeros((m, fitted.theta.size))
        blocks: dict[str, sp.csr_array] = {}
        for parameter in fitted.model.parameters:
            if parameter.name in self.affine.rows:
                block = TX if parameter.natural is None else T_theta
                block[:, parameter.index] = lin.to_dense(self.affine.rows[parameter.name])
        for effect in self.target.effects:
            rows = self.affine.rows.get(effect.name)
            blocks[effect.name] = sp.csr_array((m, len(effect.labels))) if rows is None else lin.to_csr(rows)
        TZ = sp.csr_array(sp.hstack(list(blocks.values()), format="csr")) if blocks else sp.csr_array((m, 0))
        eta = self.affine.offset.ravel() + TX @ fitted.beta + T_theta @ fitted.theta + TZ @ v
        return At(eta, TX, TZ, T_theta)

    def _graph(self, fitted: Restored, v: np.ndarray) -> At:
        """A mean without closed form: PyTensor's value and Jacobian over the value variables."""
        graph = self.target.graph
        assert graph is not None
        pieces = [_value_of(fitted, name) for name in self.target.labels]
        sizes = [piece.size for piece in pieces] + [len(effect.labels) for effect in self.target.effects]
        if graph.size * sum(sizes) > LARGEST_GRAPH:
            raise ModelError(
                f"The mean of {self.name!r} has no closed form here, and {graph.size} predictions with {sum(sizes)} "
                f"unknowns are too many for its Jacobian: predict fewer rows at a time."
            )
        parts = [_Scaled.of(fitted, effect.name, v[self.start[effect.name]]) for effect in self.target.effects]
        x = np.concatenate([*pieces, *(part.value for part in parts)])
        jacobian = graph.jacobian(x)
        TX, T_theta = np.zeros((graph.size, fitted.beta.size)), np.zeros((graph.size, fitted.theta.size))
        place = 0
        for name, size in zip(self.target.labels, sizes, strict=False):
            parameter = next(p for p in fitted.model.parameters if p.name == name)
            block = TX if parameter.natural is None else T_theta
            block[:, parameter.index] = jacobian[:, place : place + size]
            place += size
        columns = []
        for part in parts:
            own = jacobian[:, place : place + part.value.size]
            columns.append(own / part.scale)
            T_theta += own @ part.by_theta
            place += part.value.size
        TZ = sp.csr_array(np.hstack(columns)) if columns else sp.csr_array((graph.size, 0))
        return At(graph.value(x), TX, TZ, T_theta)

    def new_variance(self, fitted: Restored, TZ: sp.csr_array, which: np.ndarray) -> np.ndarray:
        """``Var(z'v)`` of every row over the levels `which` (bool), as levels that are drawn anew."""
        total = np.zeros(TZ.shape[0])
        for effect in fitted.model.random_effects:
            index = self.start[effect.name]
            Z = sp.csr_array(TZ[:, index] @ sp.diags_array(which[index].astype(float)))
            if Z.count_nonzero():
                total += self._row_variance(fitted, effect, Z, fitted.theta)
        return total

    def _row_variance(self, fitted: Restored, effect: RandomEffect, Z: sp.csr_array, theta: np.ndarray) -> np.ndarray:
        index = self.start[effect.name]
        same = bool(self.known[index].all()) and np.array_equal(
            self.position[index], np.arange(effect.index.start, effect.index.stop)
        )
        lam = None if effect.precision is not None else self._dispersion(fitted, effect.name, theta)
        return row_variance(effect, Z, lam, theta, same)

    def _dispersion(self, fitted: Restored, name: str, theta: np.ndarray) -> np.ndarray | None:
        levels = next(effect for effect in self.target.effects if effect.name == name)
        if levels.dispersion is None:
            return None
        size = sum(p.index.stop - p.index.start for p in fitted.model.dispersion_parameters if p.name in self._in_graph)
        return np.broadcast_to(levels.dispersion.value(theta[:size]), (len(levels.labels),))

    @property
    def _in_graph(self) -> set[str]:
        """Parameters of the graph, without the quasi-dispersions that EQL adds after them."""
        return set(self.target.labels)

    def average(self, fitted: Restored, at: At, theta: np.ndarray, slope: bool = False) -> np.ndarray:
        """``E mu(eta + z'v)``, or of d mu/d eta, over the random effects; `at` is the predictor with v = 0."""
        variance, others = np.zeros(at.eta.size), []
        for effect in fitted.model.random_effects:
            block = sp.csr_array(at.TZ[:, self.start[effect.name]])
            if not block.nnz:
                continue
            if effect.family is None or effect.family.name == "normal":
                variance += self._row_variance(fitted, effect, block, theta)
                continue
            lam = self._dispersion(fitted, effect.name, theta)
            if lam is None:
                raise ModelError(f"The dispersion of random effect {effect.name!r} at these data is not known.")
            others += [Entries(effect.family, z, lam[level]) for z, level in _one_a_row(block)]
        return average(self.slope if slope else self.inverse, at.eta, variance, others)


class _Scaled(NamedTuple):
    """Value variables of a random effect at v: ``v / scale(theta)`` for a non-centred one; and d value/d theta."""

    value: np.ndarray
    scale: np.ndarray
    by_theta: np.ndarray

    @classmethod
    def of(cls, fitted: Restored, name: str, v: np.ndarray) -> _Scaled:
        effect = next(e for e in fitted.model.random_effects if e.name == name)
        r = fitted.theta.size
        if effect.location is not None:
            raise ModelError(f"Random effect {name!r} has a mean: this response cannot be predicted with it.")
        if effect.scale_map is None:
            return cls(v, np.ones(v.size), np.zeros((v.size, r)))
        if effect.scale_map.size not in (1, v.size):
            raise ModelError(f"Random effect {name!r} has scales of its own for each level: new ones are not known.")
        scale = np.broadcast_to(effect.scale_map.value(fitted.theta), v.shape)
        by_theta = -(v / scale**2)[:, None] * np.broadcast_to(effect.scale_map.jacobian(fitted.theta), (v.size, r))
        return cls(v / scale, scale, by_theta)


def _value_of(fitted: Restored, name: str) -> np.ndarray:
    parameter = next(p for p in fitted.model.parameters if p.name == name)
    return (fitted.beta if parameter.natural is None else fitted.theta)[parameter.index]


def _one_a_row(block: sp.csr_array) -> list[tuple[np.ndarray, np.ndarray]]:
    """The entries of each row one after the other: (coefficients, levels), zero where a row has no more."""
    count = np.diff(block.indptr)
    found = []
    for k in range(int(count.max(initial=0))):
        has = count > k
        z, level = np.zeros(count.size), np.zeros(count.size, dtype=int)
        z[has], level[has] = block.data[block.indptr[:-1][has] + k], block.indices[block.indptr[:-1][has] + k]
        found.append((z, level))
    return found
