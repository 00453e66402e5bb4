"""Names, shapes, dims and labels of the variables of a PyMC model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pymc as pm
from pymc.distributions.distribution import PartialObservedRV
from pytensor.graph.basic import Variable as GraphVariable

from hlik.graph import forms as fm
from hlik.graph.walk import Walker
from hlik.model import Variable


def describe(walker: Walker, rv: GraphVariable) -> Variable:
    """Names, shape and dims of a random variable or Deterministic."""
    model = walker.model
    value = model.rvs_to_values.get(rv)
    is_free = rv in walker.free
    shape = walker.shape(rv) if is_free else _form_shape(walker, rv)
    dims = model.named_vars_to_dims.get(rv.name) or (None,) * len(shape)
    labels = tuple(d if d is not None else f"{rv.name}_dim_{k}" for k, d in enumerate(dims))
    unconstrained = walker.value_shape(rv) if is_free else shape
    return Variable(rv.name, rv.name if value is None or not is_free else value.name, shape, labels, unconstrained)


def _form_shape(walker: Walker, rv: GraphVariable) -> tuple[int, ...]:
    shape = fm.shape_of(walker.form(rv))
    return () if shape is None else tuple(int(k) for k in shape)


def element_labels(model: pm.Model, variable: Variable) -> list[str]:
    """``beta[x]`` and the like for every element, in C order."""
    return labels_of(coords_of(model), variable, variable.name)


def labels_of(
    coords: Mapping[str, np.ndarray], variable: Variable, name: str, elements: np.ndarray | None = None
) -> list[str]:
    """``name[label, ...]`` for every element of the value variable in C order, or for some `elements`."""
    shape = variable.unconstrained_shape
    if not shape:
        return [name]
    keeps = shape == variable.shape
    labels = [
        coords[d] if keeps and d in coords and len(coords[d]) == size else range(size)
        for d, size in zip(variable.dims if keeps else ("",) * len(shape), shape, strict=True)
    ]
    wanted = np.arange(variable.size) if elements is None else elements
    positions = np.transpose(np.unravel_index(wanted, shape))
    return [f"{name}[{', '.join(str(labels[k][i]) for k, i in enumerate(p))}]" for p in positions]


def coords_of(model: pm.Model) -> dict[str, np.ndarray]:
    """Coordinates with values, by dimension."""
    return {name: np.asarray(values) for name, values in model.coords.items() if values is not None}


def constant_data_of(model: pm.Model) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Every `pm.Data` container: its dims and value."""
    data = {}
    for variable in model.data_vars:
        value = np.asarray(variable.get_value(borrow=True))
        dims = model.named_vars_to_dims.get(variable.name) or (None,) * value.ndim
        data[variable.name] = (
            tuple(d if d is not None else f"{variable.name}_dim_{k}" for k, d in enumerate(dims)),
            value,
        )
    return data


def distribution_name(rv: GraphVariable) -> str:
    """The distribution's name for people: Normal, NegativeBinomial ..."""
    op = rv.owner.op
    if isinstance(op, PartialObservedRV):  # a masked mixture or the like
        return distribution_name(rv.owner.inputs[0])
    label = str(getattr(op, "_print_name", (None,))[0] or type(op).__name__.removesuffix("RV"))
    return {"_lkjcholeskycov": "LKJCholeskyCov", "MultivariateNormal": "MvNormal"}.get(label, label).strip("_")


def distribution_parameters(rv: GraphVariable) -> list[GraphVariable]:
    """The parameters of a random variable's distribution, without sizes and generators."""
    op = rv.owner.op
    if isinstance(op, PartialObservedRV):
        return distribution_parameters(rv.owner.inputs[0])
    return list(op.dist_params(rv.owner)) if hasattr(op, "dist_params") else list(rv.owner.inputs)


def listed(names: Sequence[str]) -> str:
    """``'a', 'b' and 'c'``."""
    quoted = [repr(name) for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
