"""Random effects as numbers: family on the scale of v, dispersion, and why a term has no closed form."""

from __future__ import annotations

import numpy as np
from pytensor.graph.basic import Variable as GraphVariable

from hlik import random_families
from hlik.block_effects import BlockRoot, Degrees
from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.algebra import as_function
from hlik.graph.describe import describe, distribution_name, listed
from hlik.graph.families import RandomParts, is_zero, random_parts
from hlik.graph.graph_map import graph_map
from hlik.graph.roles import Roles
from hlik.graph.structures import BlockStructure, Structure, structure
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.links import LINKS
from hlik.maps import RepeatedMap, ThetaMap
from hlik.model import RandomEffect

KNOWN = "Normal, LogNormal, Gamma, Beta and InverseGamma"
WANTED = {
    "identity": "default_transform=None",
    "log": "PyMC's default transform (log)",
    "logit": "PyMC's default transform (log-odds)",
    "inverse": "default_transform=None, transform=hlik.reciprocal",
}


def read_random_effect(
    walker: Walker, rv: GraphVariable, index: slice, layout: ThetaLayout, roles: Roles
) -> RandomEffect:
    """One term of random effects, whose elements of v are ``v[index]``."""
    if index.stop - index.start < 2:
        raise ModelError(
            f"Random effect {rv.name!r} has a single level: its variance cannot be estimated. Make it a parameter "
            f"(a prior without free variables), or leave it out of random=[...]."
        )
    return random_effect_at(walker, rv, index, layout, roles)


def random_effect_at(
    walker: Walker, rv: GraphVariable, index: slice, layout: ThetaLayout, roles: Roles
) -> RandomEffect:
    """The same of any number of levels."""
    if rv.name in roles.scale_of:
        return _non_centred(walker, rv, index, layout, roles.scale_of[rv.name])
    found = structure(walker, rv)
    if found is not None:
        return _structured(walker, rv, index, layout, found)
    variable, name, parts = describe(walker, rv), distribution_name(rv), random_parts(rv.owner.op, rv)
    own = closed_form_obstacle(walker, rv)
    obstacle = own or roles.loading_obstacle(rv.name)
    dispersion = None if parts is None else layout.map_of(walker, parts.dispersion, variable.shape)
    if parts is not None and dispersion is None and obstacle is None:
        others = sorted(fm.inputs_of(walker.form(parts.dispersion)) - set(layout.names))
        obstacle = (
            f"the variance of random effect {rv.name!r} depends on {listed(others)}: EQL needs it to be a "
            f"function of dispersion parameters only"
        )
    family = None if parts is None or dispersion is None or own else parts.family
    location = walker.locations.get(rv.name)
    return RandomEffect(variable, index, family, dispersion, name, location=location, obstacle=obstacle)


def _structured(walker: Walker, rv: GraphVariable, index: slice, layout: ThetaLayout, found: Structure) -> RandomEffect:
    """Effects with a joint normal density."""
    variable, name = describe(walker, rv), distribution_name(rv)
    maps = [_whole_map(walker, expression, layout, size) for expression, size in found.expressions]
    missing = set().union(*(fm.inputs_of(walker.form(e)) for e, _ in found.expressions)) - set(layout.names)
    obstacle = None
    if None in maps:
        obstacle = (
            f"the covariance of random effect {rv.name!r} depends on {listed(sorted(missing))}, which are no "
            f"dispersion parameters"
        )
    elif found.location is not None and rv.name not in walker.locations and not _is_zero(walker, found.location):
        obstacle = f"the mean of random effect {rv.name!r} is not linear in the other variables"
    precision = found.precision(maps) if obstacle is None else None  # type: ignore[arg-type]
    root, degrees = None, None
    if isinstance(found, BlockStructure) and found.degrees is not None and maps[1] is not None:
        degrees = Degrees(maps[1], found.blocks)
        obstacle = obstacle or f"random effect {rv.name!r} is {name}: EQL knows joint densities that are normal"
    scale_map = None if found.scale is None else layout.map_of(walker, found.scale)
    if scale_map is not None or getattr(found, "root", None) is not None:
        name = f"{name} (non-centred)"
    if isinstance(found, BlockStructure) and found.root is not None:
        matrix = _whole_map(walker, found.root, layout, found.blocks.shape[1] ** 2)
        root = None if matrix is None else BlockRoot(matrix, found.blocks)
    location = walker.locations.get(rv.name)
    return RandomEffect(
        variable,
        index,
        None,
        None,
        name,
        scale_map=scale_map,
        location=location,
        obstacle=obstacle,
        precision=precision,
        degrees=degrees,
        root=root,
    )


def _whole_map(walker: Walker, expression: GraphVariable, layout: ThetaLayout, size: int) -> ThetaMap | None:
    """An expression as a map of `size` values, equal or not."""
    found = layout.map_of(walker, expression)
    return RepeatedMap(found, size) if found is not None and found.size < size else found


def _is_zero(walker: Walker, expression: GraphVariable) -> bool:
    form = walker.form(expression)
    return fm.is_constant(form) and is_zero(form)


def closed_form_obstacle(walker: Walker, rv: GraphVariable) -> str | None:
    """Why the density of a random effect on the scale of v has no closed form here; None where it has one."""
    parts = random_parts(rv.owner.op, rv)
    if parts is None:
        return f"random effect {rv.name!r} is {distribution_name(rv)}: EQL knows {KNOWN}"
    return _scale_obstacle(walker, rv, parts) or _location_obstacle(walker, rv, parts)


def _non_centred(
    walker: Walker, rv: GraphVariable, index: slice, layout: ThetaLayout, scale: GraphVariable
) -> RandomEffect:
    variable = describe(walker, rv)
    deviation = scale * rv.owner.op.dist_params(rv.owner)[1]
    dispersion = layout.map_of(walker, deviation**2, variable.shape)
    scale_map = layout.map_of(walker, scale, variable.shape)
    obstacle = None
    if dispersion is None:
        others = sorted(fm.inputs_of(walker.form(scale)) - set(layout.names))
        obstacle = f"the scale of random effect {rv.name!r} depends on {listed(others)}, which are no dispersions"
    return RandomEffect(
        variable,
        index,
        random_families.Normal(),
        dispersion,
        "Normal (non-centred)",
        scale_map=scale_map,
        obstacle=obstacle,
    )


def _scale_obstacle(walker: Walker, rv: GraphVariable, parts: RandomParts) -> str | None:
    """Whether the value variable is on the family's weak canonical scale."""
    scale = parts.scale or parts.family.scale
    found = as_function(walker.form(rv))
    link = LINKS[scale]
    points = fm.TEST_POINTS[link.valid_eta(fm.TEST_POINTS)]
    if found is not None and np.allclose(found[1](points), link.inverse(points), rtol=1e-10):
        return None
    return (
        f"random effect {rv.name!r} ({distribution_name(rv)}) has the value variable "
        f"{walker.model.rvs_to_values[rv].name!r}; EQL needs it on the scale {scale}: give it "
        f"{WANTED[scale]}"
    )


def _location_obstacle(walker: Walker, rv: GraphVariable, parts: RandomParts) -> str | None:
    if parts.must_vanish is not None and not _vanishes(walker, parts.must_vanish):
        return f"random effect {rv.name!r} is {distribution_name(rv)}: EQL needs it as {parts.condition}"
    if parts.location is not None and rv.name not in walker.locations:
        form = walker.form(parts.location)
        if not (fm.is_constant(form) and is_zero(form)):
            return f"the mean of random effect {rv.name!r} is not linear in the other variables"
    return None


def _vanishes(walker: Walker, expression: GraphVariable) -> bool:
    """Whether an expression is zero: by its form, or where no form tells at nine points."""
    form = walker.form(expression)
    if fm.is_constant(form):
        return is_zero(form)
    names = sorted(fm.inputs_of(form))
    shapes = [walker.value_shape(walker.model[name]) for name in names]
    found = graph_map(walker.model, expression, names, shapes, walker.fixed)
    points = np.random.default_rng(0).normal(size=(9, sum(int(np.prod(s, dtype=int)) for s in shapes)))
    values = np.array([found.value(point) for point in points])
    values = values[np.all(np.isfinite(values), axis=1)]
    return values.size > 0 and is_zero(values, 1e-8)
