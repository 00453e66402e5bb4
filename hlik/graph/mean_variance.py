"""Mean and variance of a response as functions of one linear predictor, the other parameters being given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pymc as pm
from pymc.distributions.moments import mean
from pymc.exceptions import UndefinedMomentException

from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.algebra import as_function
from hlik.graph.find_link import find_link
from hlik.graph.forms import Affine, Form, Function
from hlik.graph.unobserved import base_of
from hlik.graph.variances import variance
from hlik.graph.walk import Walker
from hlik.links import Link


@dataclass(frozen=True, eq=False)
class MeanAndVariance:
    """``mean = g^-1(slope * t + shift)`` and ``variance(mean)``, for ``t`` the linear predictor of the graph."""

    affine: Affine
    link: Link
    slope: float
    shift: float
    by_t: Function

    def variance(self, mean: np.ndarray) -> np.ndarray:
        """Variance of observations with this mean, shape (n,)."""
        t = (self.link.link(mean) - self.shift) / self.slope
        with np.errstate(all="ignore"):
            return np.broadcast_to(self.by_t(t.reshape(self.affine.shape)), self.affine.shape).ravel()

    def agrees(self, eta: np.ndarray, values: Mapping[str, np.ndarray]) -> bool:
        """Whether `eta` is the predictor at values of the graph's variables."""
        t = self.affine.offset.ravel().astype(float)
        for name, rows in self.affine.rows.items():
            if name not in values or rows.size != values[name].size:
                return False
            t = t + lin.multiply(rows, values[name])
        return t.size == eta.size and np.allclose(self.slope * t + self.shift, eta, rtol=1e-8, atol=1e-10)


def mean_and_variance(model: pm.Model, name: str, fixed: Mapping[str, np.ndarray]) -> MeanAndVariance | None:
    """Of the response `name` with parameters held at natural-scale values; None where they have no such form."""
    rv = model[name]
    if base_of(model, name) is not None:
        return None
    try:
        mean_graph, variance_graph = mean(rv), variance(rv)
    except (NotImplementedError, UndefinedMomentException, ValueError):
        return None
    if variance_graph is None:
        return None
    walker = Walker(model, fixed)
    try:
        found, spread = as_function(walker.form(mean_graph)), walker.form(variance_graph)
    except (ValueError, IndexError):
        return None
    link = None if found is None else find_link(found[1])
    if found is None or link is None:
        return None
    by_t = _of_the_same(spread, found[0])
    return None if by_t is None else MeanAndVariance(fm.broadcast(found[0], walker.shape(rv)), *link, by_t)


def _of_the_same(form: Form, affine: Affine) -> Function | None:
    """The form as a function of that affine form; None where it is none."""
    if fm.is_constant(form):
        values = np.asarray(form, dtype=float)
        return lambda t: np.broadcast_to(values, t.shape)
    found = as_function(form)
    if found is None or found[0].offset.shape != affine.offset.shape or set(found[0].rows) != set(affine.rows):
        return None
    same = np.allclose(found[0].offset, affine.offset, rtol=1e-12, atol=1e-14)
    same = same and all(lin.same(found[0].rows[name], rows) for name, rows in affine.rows.items())
    return found[1] if same else None
