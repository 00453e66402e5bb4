"""Dispersions with random effects: the second linear predictor of a double HGLM, from the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from pytensor.graph.basic import Variable as GraphVariable

from hlik.double import DispersionPredictor, DoubleStructure
from hlik.graph import forms as fm
from hlik.graph.families import random_parts
from hlik.graph.find_link import linked
from hlik.graph.forms import Affine
from hlik.graph.matrices import fixed_matrix, random_matrix, stacked_offset
from hlik.graph.predictors import Predictor
from hlik.graph.products import without_signs
from hlik.graph.random_effects import closed_form_obstacle
from hlik.graph.roles import Roles
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.links import Link
from hlik.model import HierarchicalModel, Response
from hlik.random_families import RandomFamily

Found = tuple[GraphVariable, Affine, Link, RandomFamily | None]


def with_double(
    model: HierarchicalModel,
    walker: Walker,
    roles: Roles,
    predictors: Mapping[str, Predictor],
    layout: ThetaLayout,
) -> HierarchicalModel:
    """The model with the second predictors of its dispersions, and without the obstacles that these resolve.

    Unchanged where no dispersion has random effects, or not by a link of a linear predictor, or where a variable stands
    in means and dispersions at once.
    """
    doubled = _doubled_responses(walker, predictors) + _doubled_effects(walker, roles)
    if not doubled or any(p.parts is None or p.affine is None for p in predictors.values()):
        return model
    names = {str(rv.name) for rv, *_ in doubled}
    below = set().union(*(affine.inputs for _, affine, *_ in doubled))
    below |= set().union(*(_own_inputs(walker, roles, name) for name in below & set(roles.random_effects)))
    incomplete = [e for e in model.random_effects if e.dispersion is None and e.name not in names]
    if below & (_inputs_above(walker, roles, predictors, names) | names) or incomplete:
        return model
    responses = _mean_responses(walker, predictors, model.responses, names, layout)
    structure = None if responses is None else _structure(model, predictors, responses, doubled, below)
    if structure is None:
        return model
    resolved = {item.obstacle for item in (*model.responses, *model.random_effects) if item.name in names}
    remaining = tuple(sentence for sentence in model.obstacles if sentence not in resolved)
    return replace(model, double=structure, obstacles=remaining)


def _mean_responses(
    walker: Walker,
    predictors: Mapping[str, Predictor],
    responses: Sequence[Response],
    doubled: set[str],
    layout: ThetaLayout,
) -> list[Response] | None:
    """The responses with rows for their means only; None where a dispersion is no function of parameters."""
    found: list[Response] = []
    for response in responses:
        parts = predictors[response.name].parts
        assert parts is not None
        dispersion = None
        if parts.dispersion is not None and response.name not in doubled:
            dispersion = layout.map_of(walker, parts.dispersion, response.variable.shape, positive=True)
            if dispersion is None:
                return None
        start = found[-1].rows.stop if found else 0
        rows = slice(start, start + response.size)
        found.append(replace(response, rows=rows, family=parts.family, dispersion=dispersion, term=None))
    return found


def _structure(
    model: HierarchicalModel,
    predictors: Mapping[str, Predictor],
    responses: Sequence[Response],
    doubled: Sequence[Found],
    below: set[str],
) -> DoubleStructure | None:
    """The design; None where a parameter of a linear predictor is no fixed effect of the model."""
    stack: list[tuple[slice, Affine]] = []
    for response in responses:
        affine = predictors[response.name].affine
        assert affine is not None
        stack.append((response.rows, affine))
    found, n_means = [], stack[-1][0].stop
    for rv, affine, link, family in doubled:
        start = stack[-1][0].stop
        stack.append((slice(start, start + affine.offset.size), affine))
        found.append(DispersionPredictor(str(rv.name), link, stack[-1][0], family))
    used = set().union(*(affine.inputs for _, affine in stack))
    known = {p.name for p in model.fixed_effects} | {e.name for e in model.random_effects}
    if not used <= known or not {p.name for p in model.fixed_effects} <= used:
        return None
    n_rows = stack[-1][0].stop
    return DoubleStructure(
        responses=tuple(responses),
        predictors=tuple(found),
        X=fixed_matrix(stack, n_rows, model.fixed_effects),
        Z=random_matrix(stack, model.random_effects),
        offset=stacked_offset(stack),
        n_means=n_means,
        below=frozenset(below),
    )


def _doubled_responses(walker: Walker, predictors: Mapping[str, Predictor]) -> list[Found]:
    found: list[Found] = []
    for rv in walker.model.observed_RVs:
        predictor = predictors[rv.name]
        if predictor.parts is None or predictor.parts.dispersion is None or not predictor.other_effects:
            continue
        link = _positive_link(walker, predictor.parts.dispersion, walker.shape(rv))
        if link is not None:
            found.append((rv, *link, None))
    return found


def _doubled_effects(walker: Walker, roles: Roles) -> list[Found]:
    found: list[Found] = []
    for name in roles.random_effects:
        rv = walker.model[name]
        parts = random_parts(rv.owner.op, rv)
        if parts is None or name in roles.scale_of:
            continue
        if not fm.inputs_of(walker.form(parts.dispersion)) & set(roles.random_effects):
            continue
        link = _positive_link(walker, parts.dispersion, walker.shape(rv))
        if link is not None and closed_form_obstacle(walker, rv) is None:
            found.append((rv, *link, parts.family))
    return found


def _positive_link(walker: Walker, expression: GraphVariable, shape: tuple[int, ...]) -> tuple[Affine, Link] | None:
    found = linked(without_signs(walker.form(expression)), positive=True)
    if found is None or not np.all(found[1].inverse(np.array([-1.0, 0.5])) > 0):
        return None
    return fm.broadcast(found[0], shape), found[1]


def _inputs_above(walker: Walker, roles: Roles, predictors: Mapping[str, Predictor], doubled: set[str]) -> set[str]:
    """Every variable of the means, of the other dispersions, and of the densities of the effects in the means."""
    above = set().union(*(p.affine.inputs for p in predictors.values() if p.affine is not None))
    above |= set().union(*(p.other_inputs for name, p in predictors.items() if name not in doubled))
    for name in roles.random_effects:
        if name in above and name not in doubled:
            above |= _own_inputs(walker, roles, name)
    return above


def _own_inputs(walker: Walker, roles: Roles, name: str) -> set[str]:
    """Variables in the dispersion of a random effect."""
    if name in roles.scale_of:
        return set(fm.inputs_of(walker.form(roles.scale_of[name])))
    parts = random_parts(walker.model[name].owner.op, walker.model[name])
    return set() if parts is None else set(fm.inputs_of(walker.form(parts.dispersion)))
