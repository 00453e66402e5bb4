"""A fitted model's graph at other data: what to predict as a form, and the levels that its random effects have there.

The user's model is never touched: other data are set in a clone. The clone is walked as `hlik.graph.read` walks the
model, so that predictions at the data of the fit are those of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.moments import mean
from pymc.exceptions import UndefinedMomentException
from pymc.model.fgraph import clone_model
from pytensor.graph.basic import Variable as GraphVariable
from pytensor.tensor.random.op import RandomVariable

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.describe import coords_of, describe, element_labels, listed
from hlik.graph.families import response_parts
from hlik.graph.forms import Form
from hlik.graph.graph_map import GraphMap, graph_map
from hlik.graph.levels import Levels, check_levels
from hlik.graph.numeric import dim_length
from hlik.graph.read import set_locations
from hlik.graph.roles import Roles, assign_roles
from hlik.graph.theta import ThetaLayout
from hlik.graph.unobserved import masked_response, row_labels, whole_response
from hlik.graph.walk import Walker


def model_at(model: pm.Model, data: Mapping[str, Any], coords: Mapping[str, Any]) -> pm.Model:
    """A clone of the model with other values in its `pm.Data` containers and other labels of its dims.

    Raises
    ------
    ModelError
        Where a name is no container or dim of the model, or a value does not fit its container.
    """
    clone = clone_model(model)
    containers = {variable.name: variable for variable in clone.data_vars}
    if wrong := sorted(set(data) - set(containers)):
        there = f"its containers are {listed(sorted(containers))}" if containers else "it has none"
        raise ModelError(
            f"data names {listed(wrong)}, which the model does not have as pm.Data; {there}. Only what the model "
            f'holds in a container, x = pm.Data("x", x), can be given new values.'
        )
    if wrong := sorted(set(coords) - set(clone.dim_lengths)):
        raise ModelError(f"coords names {listed(wrong)}; the model's dims are {listed(sorted(clone.dim_lengths))}.")
    for dim, labels in coords.items():
        clone.set_dim(dim, len(labels), tuple(np.asarray(labels).tolist()))
    for name, value in data.items():
        _set(clone, containers[name], np.asarray(value), coords)
    return clone


def _set(clone: pm.Model, container: GraphVariable, value: np.ndarray, coords: Mapping[str, Any]) -> None:
    name, old = container.name, container.get_value(borrow=True)
    if value.ndim != old.ndim:
        raise ModelError(f"data[{name!r}] has {value.ndim} axes; the container has {old.ndim}: shape {old.shape}.")
    if not np.all(np.isfinite(value.astype(float))):
        raise ModelError(f"data[{name!r}] has missing or infinite values: leave these rows out.")
    for dim, size in zip(clone.named_vars_to_dims.get(name) or (), value.shape, strict=False):
        if dim is None or dim_length(clone, dim) == size:
            continue
        if dim in coords:
            raise ModelError(f"data[{name!r}] has {size} elements along {dim!r}, coords[{dim!r}] {len(coords[dim])}.")
        clone.set_dim(dim, size, tuple(range(size)) if clone.coords.get(dim) is not None else None)
    clone.set_data(name, value.astype(old.dtype))


@dataclass(frozen=True, eq=False)
class Target:
    """What is predicted, as a form in the value variables (non-centred effects as their centred selves).

    Attributes
    ----------
    form
        Affine, mapped, data, or opaque; then `graph` has it as a function of value variables.
    shape, dims, coords
        Of the prediction.
    effects
        The levels of every random effect at these data.
    labels
        Labels of the elements of every parameter, to be compared with those of the fit.
    n_theta
        Number of dispersion parameters of the graph; the quasi-dispersions that EQL adds come after them.
    """

    form: Form
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    coords: dict[str, np.ndarray]
    effects: tuple[Levels, ...]
    labels: dict[str, tuple[str, ...]]
    n_theta: int
    graph: GraphMap | None = None


def read_target(
    model: pm.Model,
    name: str,
    *,
    random: Sequence[str],
    theta: Sequence[str],
    fixed: Mapping[str, Any],
    resized: bool = False,
) -> Target:
    """Read the mean of a response, or a Deterministic, at the data that the model holds.

    Parameters
    ----------
    model
        The model or a clone of it.
    name
        An observed variable or a Deterministic. Of a masked response ``y``: ``y`` for all of its rows,
        ``y_observed`` and ``y_unobserved`` for some, at the data of the fit.
    random
        Names of the random effects of the fit.
    theta
        Names of its dispersion parameters, in order.
    fixed
        Natural-scale values of the parameters that it held fixed.
    resized
        Whether the data are others than those of the fit: the response's number of elements then follows from its
        parameters, not from its observations.
    """
    walker = Walker(model, {key: np.asarray(value, float) for key, value in fixed.items()})
    roles = assign_roles(model, walker, list(random))
    set_locations(walker, roles)
    check_levels(walker, roles)
    variable, masked = model[name], masked_response(model, name)
    if masked is not None:
        expression = _masked_mean(model, name, *masked, resized)
    else:
        expression = _mean(variable, resized) if variable in walker.observed else variable
    try:
        form = walker.form(expression)
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{name!r} cannot be computed at these data: {error}. What does not follow from containers follows from "
            f"the model built with these data: data=build(...)."
        ) from error
    shape = _shape(walker, variable, form, resized)
    if masked is not None and not resized:
        shape = _masked_shape(name, *masked)
    graph = _graph(walker, expression, form, roles)
    if graph is not None and graph.size != np.prod(shape, dtype=int):  # a shape that the graph alone does not tell
        shape = (graph.size,)
    layout = ThetaLayout.of(walker, theta)
    effects = tuple(Levels.of(walker, roles, effect, layout) for effect in roles.random_effects)
    labels = {key: tuple(element_labels(model, describe(walker, model[key]))) for key in roles.parameters}
    dims = model.named_vars_to_dims.get(name) or (None,) * len(shape)
    named = tuple(d if d is not None and len(dims) == len(shape) else f"{name}_dim_{k}" for k, d in enumerate(dims))
    coords = coords_of(model) | ({} if masked is None else row_labels(model, *masked))
    return Target(form, shape, named, coords, effects, labels, layout.size, graph)


def _mean(rv: GraphVariable, resized: bool, name: str | None = None) -> GraphVariable:
    """The mean of a response; of a Binomial the probability. A size that the observations gave is taken off."""
    parts = response_parts(rv.owner.op, rv)
    if parts is not None:
        return parts.mean
    op, node = rv.owner.op, rv.owner
    if resized and isinstance(op, RandomVariable):
        rng = next(source for source in node.inputs if source.type.__class__.__name__ == "RandomGeneratorType")
        rv = op.make_node(rng, None, *op.dist_params(node)).default_output()
    try:
        return mean(rv)
    except (NotImplementedError, UndefinedMomentException) as error:
        raise ModelError(
            f"PyMC does not know the mean of response {(name or rv.name)!r}: write it as a pm.Deterministic, and "
            f"predict that."
        ) from error


def _masked_mean(model: pm.Model, name: str, base: str, missing: np.ndarray, resized: bool) -> GraphVariable:
    """The mean of a masked response, or, at the data of the fit, of its observed or missing part."""
    part = model[f"{base}_observed" if name == base else name]
    if resized or name == base:
        return _mean(whole_response(part), resized=False, name=base)
    if hasattr(part.owner.op, "dist_params"):
        return _mean(part, resized=False)
    rows = missing if name.endswith("_unobserved") else ~missing
    return pt.as_tensor_variable(_mean(whole_response(part), resized=False, name=base))[rows]


def _masked_shape(name: str, base: str, missing: np.ndarray) -> tuple[int, ...]:
    if name == base:
        return missing.shape
    return (int(np.sum(missing if name.endswith("_unobserved") else ~missing)),)


def _shape(walker: Walker, variable: GraphVariable, form: Form, resized: bool) -> tuple[int, ...]:
    found = fm.shape_of(form)
    if variable in walker.observed and not resized:
        return walker.shape(variable)
    return () if found is None else tuple(int(size) for size in found)


def _graph(walker: Walker, expression: GraphVariable, form: Form, roles: Roles) -> GraphMap | None:
    """The expression as a function of the value variables, for forms that are neither affine nor one function of it."""
    if not isinstance(form, fm.Opaque | fm.Product):
        return None
    names = [*roles.parameters, *roles.random_effects]
    shapes = [walker.value_shape(walker.model[name]) for name in names]
    return graph_map(walker.model, expression, names, shapes, walker.fixed)
