"""What is predicted, as rows over (beta, v, theta) and a function of the linear predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.graph import rows as lin
from hlik.graph.at_data import Target
from hlik.graph.forms import Affine
from hlik.inference.averages import Entries, average
from hlik.inference.prediction_terms import Block, Term
from hlik.inference.restore import Restored

LARGEST_GRAPH = 4_000_000  # entries of the Jacobian of a mean without closed form


class At(NamedTuple):
    """The predictor and its Jacobian at one (beta, v, theta); a block for every term of random effects."""

    eta: np.ndarray
    TX: np.ndarray
    T_theta: np.ndarray
    blocks: list[Block]


@dataclass(frozen=True, eq=False)
class Predictor:
    """What is predicted at some data.

    Attributes
    ----------
    terms
        The random effects there; v has their columns one after the other.
    inverse, slope, link
        mu(eta), d mu/d eta and eta(mu).
    """

    name: str
    target: Target
    labels: list[str]
    terms: tuple[Term, ...]
    affine: Affine | None
    inverse: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    link: Callable[[np.ndarray], np.ndarray]

    @property
    def is_graph(self) -> bool:
        """Whether it is no function of one linear predictor."""
        return self.affine is None

    def predicted(self, fitted: Restored) -> np.ndarray:
        """v_hat at the levels of the fit, and what is predicted of others."""
        return _joined(term.predicted(fitted, fitted.theta) for term in self.terms)

    def drawn(self, fitted: Restored) -> np.ndarray:
        """What stands for v of levels that are drawn anew."""
        return _joined(term.drawn(fitted.theta) for term in self.terms)

    def typical(self) -> np.ndarray:
        """The values of v that change nothing."""
        return _joined(term.typical() for term in self.terms)

    def at(self, fitted: Restored, v: np.ndarray) -> At:
        """Value and Jacobian with the random effects at `v`, shape (columns,)."""
        return self._affine(fitted, v) if self.affine is not None else self._graph(fitted, v)

    def _affine(self, fitted: Restored, v: np.ndarray) -> At:
        assert self.affine is not None
        m = self.affine.offset.size
        TX, T_theta = np.zeros((m, fitted.beta.size)), np.zeros((m, fitted.theta.size))
        for parameter in fitted.model.parameters:
            if parameter.name in self.affine.rows:
                block = TX if parameter.natural is None else T_theta
                block[:, parameter.index] = lin.to_dense(self.affine.rows[parameter.name])
        blocks = [term.block(self.affine.rows.get(term.effect.name), m) for term in self.terms]
        eta = self.affine.offset.ravel() + TX @ fitted.beta + T_theta @ fitted.theta
        for term, own in zip(self.terms, blocks, strict=True):
            eta = eta + own.Z @ v[term.columns]
        return At(eta, TX, T_theta, blocks)

    def _graph(self, fitted: Restored, v: np.ndarray) -> At:
        """A mean without closed form: PyTensor's value and Jacobian over the value variables."""
        graph = self.target.graph
        assert graph is not None
        pieces = [_value_of(fitted, name) for name in self.target.labels]
        parts = [term.values(fitted, v[term.columns]) for term in self.terms]
        x = np.concatenate([*pieces, *(value for value, _, _ in parts)])
        if graph.size * x.size > LARGEST_GRAPH:
            raise ModelError(
                f"The mean of {self.name!r} has no closed form here, and {graph.size} predictions with {x.size} "
                f"unknowns are too many for its Jacobian: predict fewer rows at a time."
            )
        jacobian = graph.jacobian(x)
        TX, T_theta = np.zeros((graph.size, fitted.beta.size)), np.zeros((graph.size, fitted.theta.size))
        place = 0
        for name, piece in zip(self.target.labels, pieces, strict=True):
            parameter = next(p for p in fitted.model.parameters if p.name == name)
            block = TX if parameter.natural is None else T_theta
            block[:, parameter.index] = jacobian[:, place : place + piece.size]
            place += piece.size
        blocks = []
        for term, (value, by_v, by_theta) in zip(self.terms, parts, strict=True):
            own = jacobian[:, place : place + value.size]
            blocks.append(term.block(lin.Dense(own @ by_v), graph.size))
            T_theta += own @ by_theta
            place += value.size
        return At(graph.value(x), TX, T_theta, blocks)

    def variance_given_fit(self, fitted: Restored, at: At) -> np.ndarray:
        """With the levels of the fit as the fit knows them, the others drawn given these."""
        joint = [term.joint(fitted, block) for term, block in zip(self.terms, at.blocks, strict=True)]
        none = sp.csr_array((at.eta.size, fitted.v.size))
        TZ = sum((part.Z for part in joint), none)
        T_theta = at.T_theta + sum(part.by_theta for part in joint)
        return fitted.variance(at.TX, sp.csr_array(TZ), T_theta) + sum(part.variance for part in joint)

    def variance_typical(self, fitted: Restored, at: At) -> np.ndarray:
        """Of beta and theta alone."""
        return fitted.variance(at.TX, sp.csr_array((at.eta.size, fitted.v.size)), at.T_theta)

    def variance_drawn(self, fitted: Restored, at: At) -> np.ndarray:
        """With all levels drawn anew."""
        own = [term.variance(fitted.theta, block) for term, block in zip(self.terms, at.blocks, strict=True)]
        return self.variance_typical(fitted, at) + sum(own)

    def average(self, at: At, theta: np.ndarray, slope: bool = False) -> np.ndarray:
        """``E mu(eta + z'v)``, or of d mu/d eta, over the random effects; `at` is the predictor with v = 0."""
        variance = np.zeros(at.eta.size)
        others: list[Entries] = []
        for term, block in zip(self.terms, at.blocks, strict=True):
            if block.Z.nnz or np.any(block.prior):
                own, entries = term.spread(theta, block)
                variance, others = variance + own, others + entries
        return average(self.slope if slope else self.inverse, at.eta, variance, others)


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])


def _value_of(fitted: Restored, name: str) -> np.ndarray:
    parameter = next(p for p in fitted.model.parameters if p.name == name)
    return (fitted.beta if parameter.natural is None else fitted.theta)[parameter.index]
