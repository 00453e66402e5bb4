"""From a `pm.Model` to a `HierarchicalModel`: the one place where a graph becomes numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hlik.graph import forms as fm
from hlik.graph.arguments import as_pymc, check_fixed, check_model, checked_values
from hlik.graph.describe import constant_data_of, coords_of, describe, element_labels
from hlik.graph.families import is_zero, random_parts
from hlik.graph.forms import Affine
from hlik.graph.matrices import check_finite, fixed_matrix, random_matrix, stacked_offset
from hlik.graph.obstacles import check_entries, fixed_effect_names, obstacles_of
from hlik.graph.predictors import Predictor, read_predictor
from hlik.graph.random_effects import read_random_effect
from hlik.graph.reported import reported_forms
from hlik.graph.responses import read_response
from hlik.graph.roles import Roles, assign_roles
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.model import HierarchicalModel, Parameter, RandomEffect, Response


def read_model(
    model: Any,
    *,
    random: Sequence[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
) -> HierarchicalModel:
    """Read a PyMC model: roles, linear predictors, links, families, dispersions.

    Nothing is compiled, Z is never dense, and the model is not changed.

    Parameters
    ----------
    model
        A PyMC model with at least one observed variable, or a Bambi model.
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
    fixed_values, weight_values = checked_values("fixed", fixed), checked_values("weights", weights)
    check_model(model, fixed_values, weight_values)
    walker = Walker(model, fixed_values)
    check_fixed(walker)
    roles = assign_roles(model, walker, random)
    set_locations(walker, roles)
    predictors = {rv.name: read_predictor(walker, rv, roles.random_effects) for rv in model.observed_RVs}
    fixed_names = fixed_effect_names(walker, roles, predictors)
    layout = ThetaLayout.of(walker, [name for name in roles.parameters if name not in fixed_names])
    return _assemble(walker, roles, predictors, fixed_names, layout, weight_values)


def set_locations(walker: Walker, roles: Roles) -> None:
    """Give every normal random effect with a mean its location, so that v is its deviation from it."""
    for name in roles.random_effects:
        rv = walker.model[name]
        parts = random_parts(rv.owner.op, rv)
        if name in roles.scale_of or parts is None or parts.location is None:
            continue
        location = walker.form(parts.location)
        if isinstance(location, Affine) or (fm.is_constant(location) and not is_zero(location)):
            walker.set_location(rv, location)


def _assemble(
    walker: Walker,
    roles: Roles,
    predictors: Mapping[str, Predictor],
    fixed_names: set[str],
    layout: ThetaLayout,
    weights: Mapping[str, np.ndarray],
) -> HierarchicalModel:
    parameters = _parameters(walker, roles, fixed_names, layout)
    effects = _random_effects(walker, roles, layout)
    responses = _responses(walker, predictors, layout, weights)
    fixed_effects = [parameter for parameter in parameters if parameter.role == "fixed effect"]
    X_names = tuple(label for p in fixed_effects for label in element_labels(walker.model, p.variable))
    X = fixed_matrix(responses, predictors, fixed_effects)
    Z = random_matrix(responses, predictors, effects)
    offset = stacked_offset(responses, predictors)
    check_finite(responses, X, Z, offset, X_names)
    check_entries(walker, roles, predictors)
    deterministics, forms, graph_maps = reported_forms(walker, roles)
    return HierarchicalModel(
        responses=tuple(responses),
        random_effects=tuple(effects),
        parameters=tuple(parameters),
        X=X,
        Z=Z,
        offset=offset,
        X_names=X_names,
        n_theta=layout.size,
        deterministics=deterministics,
        forms=forms,
        coords=coords_of(walker.model),
        obstacles=tuple(obstacles_of(walker, roles, responses, effects, predictors, fixed_names)),
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
            natural = layout.map_of(walker, rv, variable.shape)
            parameters.append(Parameter(variable, "dispersion parameter", layout.index[name], natural))
    return parameters


def _random_effects(walker: Walker, roles: Roles, layout: ThetaLayout) -> list[RandomEffect]:
    effects, start = [], 0
    for name in roles.random_effects:
        rv = walker.model[name]
        index = slice(start, start + int(np.prod(walker.value_shape(rv), dtype=int)))
        effects.append(read_random_effect(walker, rv, index, layout, roles))
        start = index.stop
    return effects


def _responses(
    walker: Walker,
    predictors: Mapping[str, Predictor],
    layout: ThetaLayout,
    weights: Mapping[str, np.ndarray],
) -> list[Response]:
    responses, row = [], 0
    for rv in walker.model.observed_RVs:
        response = read_response(walker, rv, predictors[rv.name], row, layout, weights.get(rv.name))
        responses.append(response)
        row = response.rows.stop
    return responses
