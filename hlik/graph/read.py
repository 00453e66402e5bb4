"""From a `pm.Model` to a `HierarchicalModel`: the one place where a graph becomes numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import hlik.graph.series  # noqa: F401  (registers its readers)
from hlik.graph import forms as fm
from hlik.graph.arguments import as_pymc, check_fixed, check_model, checked_values
from hlik.graph.choose import Choice, choose_terms
from hlik.graph.describe import constant_data_of, coords_of, describe, element_labels
from hlik.graph.double import with_double
from hlik.graph.elements import CannotLift
from hlik.graph.families import is_zero, random_parts
from hlik.graph.forms import Affine
from hlik.graph.matrices import check_finite, fixed_matrix, random_matrix, stacked_offset, theta_matrix
from hlik.graph.obstacles import check_entries, fixed_effect_names, obstacles_of
from hlik.graph.predictors import Predictor, read_predictor
from hlik.graph.random_effects import read_random_effect
from hlik.graph.reported import reported_forms
from hlik.graph.responses import read_response
from hlik.graph.roles import Roles, assign_roles
from hlik.graph.structures import structure
from hlik.graph.tapes import LiftedTerm
from hlik.graph.theta import ThetaLayout
from hlik.graph.unobserved import read_unobserved
from hlik.graph.walk import Walker
from hlik.graph.wide_terms import through_scores
from hlik.model import HierarchicalModel, Parameter, RandomEffect, Response
from hlik.tape import TapeTerm


def read_model(
    model: Any,
    *,
    random: Sequence[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    relative_variances: Mapping[str, np.ndarray] | None = None,
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
    relative_variances
        Known factors of the variances of a wide term's elements (`hlik.wide`), by the name of the random effect.

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
    predictors = {rv.name: read_predictor(walker, rv, roles) for rv in model.observed_RVs}
    choice = choose_terms(walker, roles, predictors)
    fixed_names = fixed_effect_names(walker, roles, predictors, choice)
    layout = ThetaLayout.of(walker, [name for name in roles.parameters if name not in fixed_names])
    return _assemble(walker, roles, predictors, choice, fixed_names, layout, weight_values, relative_variances or {})


def set_locations(walker: Walker, roles: Roles) -> None:
    """Give every normal random effect with a mean its location, so that v is its deviation from it."""
    for name in roles.random_effects:
        rv = walker.model[name]
        parts = structure(walker, rv) or random_parts(rv.owner.op, rv)
        if name in roles.scale_of or parts is None or parts.location is None:
            continue
        location = walker.form(parts.location)
        if isinstance(location, Affine) or (fm.is_constant(location) and not is_zero(location)):
            walker.set_location(rv, location)


def _assemble(
    walker: Walker,
    roles: Roles,
    predictors: Mapping[str, Predictor],
    choice: Choice,
    fixed_names: set[str],
    layout: ThetaLayout,
    weights: Mapping[str, np.ndarray],
    relative_variances: Mapping[str, np.ndarray],
) -> HierarchicalModel:
    parameters = _parameters(walker, roles, fixed_names, layout)
    effects = _random_effects(walker, roles, layout)
    stack: list[tuple[slice, Affine]] = []
    responses = _responses(walker, predictors, choice, layout, weights, stack)
    extra_terms, unread = _extra_terms(walker, choice, layout, stack)
    stack, effects = through_scores(stack, effects, relative_variances)
    n_rows = stack[-1][0].stop if stack else 0
    fixed_effects = [parameter for parameter in parameters if parameter.role == "fixed effect"]
    X_names = tuple(label for p in fixed_effects for label in element_labels(walker.model, p.variable))
    X = fixed_matrix(stack, n_rows, fixed_effects)
    Z = random_matrix(stack, effects)
    offset = stacked_offset(stack)
    check_finite(responses, X, Z, offset, X_names)
    check_entries(walker, roles, predictors)
    deterministics, forms, graph_maps = reported_forms(walker, roles)
    unobserved, more_forms, more_maps, row_labels = read_unobserved(walker, roles)
    found = HierarchicalModel(
        responses=tuple(responses),
        random_effects=tuple(effects),
        parameters=tuple(parameters),
        X=X,
        Z=Z,
        offset=offset,
        X_names=X_names,
        n_theta=layout.size,
        deterministics=deterministics,
        forms=forms | more_forms,
        coords=coords_of(walker.model) | row_labels,
        obstacles=tuple(obstacles_of(walker, roles, responses, effects, predictors, fixed_names)),
        laplace_obstacles=(
            *choice.obstacles,
            *unread,
            *_without_density(effects, choice),
            *_kinked(effects),
            *_kinked_responses(responses),
        ),
        kinks=tuple(_kinked(effects)),
        theta_design=theta_matrix(stack, n_rows, layout),
        extra_terms=tuple(extra_terms),
        left_out=tuple(roles.unused),
        unobserved=unobserved,
        graph_maps=graph_maps | more_maps,
        constant_data=constant_data_of(walker.model),
    )
    return with_double(found, walker, roles, predictors, layout)


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
    choice: Choice,
    layout: ThetaLayout,
    weights: Mapping[str, np.ndarray],
    stack: list[tuple[slice, Affine]],
) -> list[Response]:
    """All responses; their predictors are put onto the stack."""
    responses = []
    for rv in walker.model.observed_RVs:
        predictor, lifted = predictors[rv.name], choice.responses.get(rv.name)
        start = stack[-1][0].stop if stack else 0
        response = read_response(walker, rv, predictor, start, layout, weights.get(rv.name))
        if lifted is not None:
            try:
                term = lifted.term(walker, layout, start)
                response = replace(response, rows=term.rows, term=term, family=None, dispersion=None)
                _push(stack, lifted)
            except CannotLift as reason:
                choice.obstacles.append(f"the log density of {rv.name!r} cannot be read: {reason}")
                stack.append((response.rows, Affine({}, np.zeros(response.size))))
        else:
            known = predictor.affine if predictor.affine is not None else Affine({}, np.zeros(response.size))
            stack.append((response.rows, known))
        responses.append(response)
    return responses


def _without_density(effects: Sequence[RandomEffect], choice: Choice) -> list[str]:
    """Random effects whose density is neither known nor lifted, for a reason not told elsewhere."""
    told = " ".join(choice.obstacles)
    return [
        f"the density of random effect {effect.name!r} ({effect.distribution}) is no function of v and the parameters "
        f"that hlik can differentiate"
        for effect in effects
        if effect.name not in choice.effects
        and (effect.family is None or effect.dispersion is None)
        and effect.precision is None
        and repr(effect.name) not in told
    ]


def _kinked(effects: Sequence[RandomEffect]) -> list[str]:
    """Random effects whose density has a kink at its centre: the mode of h has no second derivative there."""
    return [
        f"the density of random effect {effect.name!r} ({effect.distribution}) has a kink at its centre, where h has "
        f"no second derivative; use hlik.AGQ(), where every observation has one such effect, or a smooth distribution, "
        f"such as Normal or StudentT"
        for effect in effects
        if effect.distribution in ("Laplace", "AsymmetricLaplace")
    ]


def _kinked_responses(responses: Sequence[Response]) -> list[str]:
    """Responses of which h has no second derivative at the observations; no average over effects smooths that here."""
    return [
        f"the density of response {response.name!r} ({response.distribution}) has a kink at its centre, where h has "
        f"no second derivative; use a smooth distribution with long tails, such as StudentT"
        for response in responses
        if response.distribution in ("Laplace", "AsymmetricLaplace")
    ]


def _push(stack: list[tuple[slice, Affine]], lifted: LiftedTerm) -> None:
    for affine in lifted.lifted.predictors:
        start = stack[-1][0].stop if stack else 0
        stack.append((slice(start, start + lifted.n), affine))


def _extra_terms(
    walker: Walker, choice: Choice, layout: ThetaLayout, stack: list[tuple[slice, Affine]]
) -> tuple[list[TapeTerm], list[str]]:
    """Densities of random effects and potentials without closed form; their predictors are put onto the stack."""
    terms, unread = [], []
    for lifted in (*choice.effects.values(), *choice.potentials.values()):
        start = stack[-1][0].stop if stack else 0
        try:
            terms.append(lifted.term(walker, layout, start))
            _push(stack, lifted)
        except CannotLift as reason:
            unread.append(f"the log density of {lifted.name!r} cannot be read: {reason}")
    return terms, unread
