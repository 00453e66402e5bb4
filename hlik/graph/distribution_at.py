"""Mean and distribution function of a response at its data, as far as PyMC knows them; nothing is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pymc as pm
from pymc.distributions.moments import mean
from pymc.exceptions import UndefinedMomentException
from pytensor.graph.basic import Variable as GraphVariable
from pytensor.graph.replace import clone_replace

from hlik.graph.graph_map import graph_map
from hlik.graph.numeric import known_value

LARGEST_SUM = 200  # counts up to which a distribution function that PyMC lacks is summed from probabilities
LARGEST_TABLE = 20_000_000  # ... and numbers that may be held for it


def distribution_at(
    model: pm.Model, name: str, values: Mapping[str, np.ndarray], fixed: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Mean and distribution function of a response at its data, as far as PyMC knows them; nothing is compiled.

    Parameters
    ----------
    values
        Value variables by the names of their free random variables.
    fixed
        Natural-scale values of the others.

    Returns
    -------
    dict
        ``fitted``, the mean; ``cdf``, P(Y <= y); ``cdf_below``, P(Y < y).
    """
    rv, y = model[name], model.rvs_to_values[model[name]]
    stand_ins = {free: free.type(name=free.name) for free in model.free_RVs}
    alone = clone_replace(rv, stand_ins, rebuild_strict=False)
    # just below y: the whole mass at y for counts and at the bounds of censored responses, none for others
    below = y - 1 if rv.dtype.startswith(("int", "uint", "bool")) else y - 1e-10 * (1 + abs(y))
    expressions = {
        "fitted": lambda: mean(alone),
        "cdf": lambda: pm.math.exp(pm.logcdf(alone, y)),
        "cdf_below": lambda: pm.math.exp(pm.logcdf(alone, below)),
    }
    names, shapes = list(values), [np.shape(value) for value in values.values()]
    x = np.concatenate([np.ravel(value) for value in values.values()]) if names else np.zeros(0)
    held = {key: np.asarray(value, float) for key, value in fixed.items()}
    originals = {copy: free for free, copy in stand_ins.items()}

    def value_of(expression: Callable[[], GraphVariable]) -> np.ndarray | None:
        try:
            value = graph_map(model, expression(), names, shapes, held, originals).value(x)
        except (NotImplementedError, UndefinedMomentException, ValueError, TypeError, RuntimeError):
            return None
        return value if np.all(np.isfinite(value)) else None

    found = {key: value_of(expression) for key, expression in expressions.items()}
    is_scalar = getattr(rv.owner.op, "ndim_supp", 0) == 0  # vectors of counts have no order
    if is_scalar and found["cdf"] is None and below.type.dtype.startswith("int"):
        found |= _summed(np.asarray(known_value(y)), lambda k: value_of(lambda: pm.math.exp(pm.logp(alone, k))))
    return {key: value for key, value in found.items() if value is not None}


def _summed(y: np.ndarray, probability: Callable[[np.ndarray], np.ndarray | None]) -> dict[str, np.ndarray | None]:
    """The distribution function of a count on 0, 1, ... by summing probabilities up to the largest observed one."""
    top = int(y.max(initial=0))
    if top > LARGEST_SUM or y.size * top > LARGEST_TABLE or y.min(initial=0) < 0:
        return {}
    terms = []
    for k in range(top + 1):
        term = probability(np.full(y.shape, k))
        if term is None:
            return {}
        terms.append(term)
    cdf = np.vstack([np.zeros(y.size), np.minimum(np.cumsum(terms, axis=0), 1.0)])
    rows, counts = np.arange(y.size), np.ravel(y).astype(int)
    return {"cdf": cdf[counts + 1, rows], "cdf_below": cdf[counts, rows]}
