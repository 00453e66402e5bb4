"""From a `pm.Model` to a `HierarchicalModel`: the one place where a graph becomes numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from functools import partial

import numpy as np
import pymc as pm
from pytensor.graph.basic import Variable as GraphVariable

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.compile import GraphMap, graph_map
from hlik.graph.describe import constant_data_of, coords_of, describe, element_labels
from hlik.graph.families import is_zero, random_parts
from hlik.graph.forms import Affine, Form, Opaque
from hlik.graph.matrices import check_finite, fixed_matrix, random_matrix, stacked_offset
from hlik.graph.predictors import Predictor, read_predictor
from hlik.graph.random_effects import read_random_effect
from hlik.graph.responses import read_response
from hlik.graph.roles import Roles, assign_roles
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.model import HierarchicalModel, Parameter, RandomEffect, Response, Variable


def read_model(
    model: pm.Model,
    *,
    random: Sequence[str] | None = None,
    fixed: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> HierarchicalModel:
    """Read a PyMC model: roles, linear predictors, links, families, dispersions.

    Nothing is compiled for known families, Z is never dense, and the model is not changed.

    Parameters
    ----------
    model
        A PyMC model with at least one observed variable, or a built Bambi model.
    random
        Names of the random effects, where they cannot be told from the graph.
    fixed
        Natural-scale values of parameters that are held fixed.
    weights
        Prior weights by response name, shape of the response: the variance of observation i is divided by w_i.

    Returns
    -------
    HierarchicalModel

    Raises
    ------
    ModelError
        Where the model cannot be read, with the name of the variable and the way out.
    """
    model = as_pymc(model)
    fixed = {name: np.asarray(value, float) for name, value in (fixed or {}).items()}
    _check_model(model, fixed, weights or {})
    walker = Walker(model, fixed)
    _check_fixed(walker, fixed)
    roles = assign_roles(model, walker, random)
    set_locations(walker, roles)
    predictors = {rv.name: read_predictor(walker, rv) for rv in model.observed_RVs}
    fixed_names = fixed_effect_names(walker, roles, predictors)
    layout = ThetaLayout.of(walker, [name for name in roles.parameters if name not in fixed_names])
    return _assemble(walker, roles, predictors, fixed_names, layout, weights or {})


def as_pymc(model: object) -> pm.Model:
    """The PyMC model of a Bambi model, or the model itself."""
    if isinstance(model, pm.Model):
        return model
    if type(model).__module__.split(".")[0] == "bambi":
        if not getattr(model, "built", False):
            model.build()  # type: ignore[attr-defined]
        return model.backend.model  # type: ignore[attr-defined]
    raise ModelError(f"model must be a pymc.Model or a bambi.Model; got {type(model).__name__}.")


def _check_model(model: pm.Model, fixed: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> None:
    if not model.observed_RVs:
        raise ModelError("The model has no observed variable: give one distribution observed=data.")
    if not model.free_RVs:
        raise ModelError("The model has no free variable: there is nothing to estimate.")
    free = {rv.name for rv in model.free_RVs}
    if wrong := sorted(set(fixed) - free):
        raise ModelError(
            f"fixed= names {wrong}, which the model does not have as free variables: {sorted(free)}."
        )
    observed = {rv.name for rv in model.observed_RVs}
    if wrong := sorted(set(weights) - observed):
        raise ModelError(
            f"weights= names {wrong}, which are not observed variables; these are: {sorted(observed)}."
        )


def _check_fixed(walker: Walker, fixed: Mapping[str, np.ndarray]) -> None:
    for name, value in fixed.items():
        rv = walker.model[name]
        shape = walker.shape(rv)
        if np.broadcast_shapes(value.shape, shape) != shape:
            raise ModelError(f"fixed={{{name!r}: ...}} has shape {value.shape}; {name} has shape {shape}.")
        transform = walker.model.rvs_to_transforms.get(rv)
        if transform is not None and transform.name == "log" and not np.all(value > 0):
            raise ModelError(f"fixed={{{name!r}: {value}}} is outside its support: {name} is positive.")


def set_locations(walker: Walker, roles: Roles) -> None:
    """Give every normal random effect with a mean its location, so that v is its deviation from it."""
    names = {rv.name: rv for rv in walker.model.free_RVs}
    pending = [name for name in roles.random_effects if name not in roles.scale_of]
    for name in pending:
        rv = names[name]
        parts = random_parts(rv.owner.op, rv)
        if parts is None or parts.location is None:
            continue
        location = walker.form(parts.location)
        if fm.is_constant(location) and is_zero(location):
            continue
        if fm.is_constant(location) or isinstance(location, Affine):
            walker.set_location(rv, location)


def fixed_effect_names(walker: Walker, roles: Roles, predictors: Mapping[str, Predictor]) -> set[str]:
    """Parameters that enter the mean predictors linearly and nothing else."""
    linear = set().union(*(p.affine.inputs for p in predictors.values() if p.affine is not None))
    elsewhere: set[str] = set()
    for rv in walker.model.observed_RVs:
        elsewhere |= predictors[rv.name].other_inputs
    names = {rv.name: rv for rv in walker.model.free_RVs}
    for name in roles.random_effects:
        elsewhere |= _density_inputs(walker, names[name], roles)
    for potential in walker.model.potentials:
        elsewhere |= fm.inputs_of(walker.form(potential))
    return {name for name in roles.parameters if name in linear and name not in elsewhere}


def _density_inputs(walker: Walker, rv: GraphVariable, roles: Roles) -> set[str]:
    """Parameters in the density of a random effect, other than through the location taken out of it."""
    if rv.name in roles.scale_of:
        return set(fm.inputs_of(walker.form(roles.scale_of[rv.name])))
    parameters = rv.owner.op.dist_params(rv.owner) if hasattr(rv.owner.op, "dist_params") else rv.owner.inputs
    if rv.name in walker.locations:
        parameters = parameters[1:]
    return set().union(*(fm.inputs_of(walker.form(parameter)) for parameter in parameters))


def _assemble(
    walker: Walker,
    roles: Roles,
    predictors: Mapping[str, Predictor],
    fixed_names: set[str],
    layout: ThetaLayout,
    weights: Mapping[str, np.ndarray],
) -> HierarchicalModel:
    names = {rv.name: rv for rv in walker.model.free_RVs}
    parameters = _parameters(walker, roles, fixed_names, layout)
    random_effects, start = [], 0
    for name in roles.random_effects:
        size = int(np.prod(walker.shape(names[name]), dtype=int))
        index = slice(start, start + size)
        random_effects.append(
            read_random_effect(walker, names[name], index, layout, roles.scale_of.get(name))
        )
        start += size
    responses, row = [], 0
    for rv in walker.model.observed_RVs:
        response = read_response(walker, rv, predictors[rv.name], row, layout, weights.get(rv.name))
        responses.append(response)
        row += response.size
    fixed_effects = [parameter for parameter in parameters if parameter.role == "fixed effect"]
    X_names = tuple(label for p in fixed_effects for label in element_labels(walker.model, p.variable))
    X = fixed_matrix(responses, predictors, fixed_effects)
    Z = random_matrix(responses, predictors, random_effects)
    offset = stacked_offset(responses, predictors)
    check_finite(responses, X, Z, offset, X_names)
    obstacles = _obstacles(walker, roles, responses, random_effects, predictors, fixed_names)
    reported = [*roles.parameters, *roles.random_effects]
    forms = {name: walker.form(names[name]) for name in reported}
    deterministics = _deterministics(walker, forms)
    graph_maps = {
        d.name: partial(_graph_map, walker, d.name)
        for d in deterministics
        if isinstance(forms[d.name], Opaque)
    }
    return HierarchicalModel(
        responses=tuple(responses),
        random_effects=tuple(random_effects),
        parameters=tuple(parameters),
        X=X,
        Z=Z,
        offset=offset,
        X_names=X_names,
        n_theta=layout.size,
        deterministics=deterministics,
        forms=forms,
        coords=coords_of(walker.model),
        obstacles=tuple(obstacles),
        graph_maps=graph_maps,
        constant_data=constant_data_of(walker.model),
    )


def _parameters(walker: Walker, roles: Roles, fixed_names: set[str], layout: ThetaLayout) -> list[Parameter]:
    parameters, start = [], 0
    for name in roles.parameters:
        rv = walker.model[name]
        variable = describe(walker, rv)
        if name in fixed_names:
            index = slice(start, start + variable.size)
            start = index.stop
            parameters.append(Parameter(variable, "fixed effect", index))
        else:
            natural = layout.map_of(walker, rv)
            parameters.append(Parameter(variable, "dispersion parameter", layout.index[name], natural))
    return parameters


def _obstacles(
    walker: Walker,
    roles: Roles,
    responses: Sequence[Response],
    effects: Sequence[RandomEffect],
    predictors: Mapping[str, Predictor],
    fixed_names: set[str],
) -> list[str]:
    """Why the closed-form estimators cannot serve this model."""
    found = [item.obstacle for item in (*responses, *effects) if item.obstacle]
    for potential in walker.model.potentials:
        found.append(
            f"the potential {potential.name!r} is a free term of h: EQL knows only responses and random effects"
        )
    linear = set().union(*(p.affine.inputs for p in predictors.values() if p.affine is not None))
    for name in roles.parameters:
        if name in linear and name not in fixed_names:
            found.append(
                f"{name!r} is a coefficient of a linear predictor and a dispersion parameter at once"
            )
    if all(p.affine is not None for p in predictors.values()):
        for effect in effects:
            if effect.name not in linear and not effect.obstacle:
                raise ModelError(
                    f"Cannot tell whether {effect.name!r} is a random effect or a parameter: its distribution depends on "
                    f"other free variables, but it enters no linear predictor. Pass random=[...] with the names of the "
                    f"random effects (all others are then parameters)."
                )
    return found


def _graph_map(walker: Walker, target: str, names: Sequence[str]) -> GraphMap:
    """A Deterministic without closed form as a function of the value variables `names`; built when asked for."""
    shapes = [walker.value_shape(walker.model[name]) for name in names]
    return graph_map(walker.model, walker.model[target], names, shapes, walker.fixed)


def _deterministics(walker: Walker, forms: dict[str, Form]) -> tuple[Variable, ...]:
    """Deterministics that depend on free variables; their forms are added to `forms`."""
    kept = []
    for variable in walker.model.deterministics:
        form = walker.form(variable)
        if fm.is_constant(form) or (isinstance(form, Opaque) and form.shape is None):
            continue
        forms[variable.name] = form
        kept.append(describe(walker, variable))
    return tuple(kept)
