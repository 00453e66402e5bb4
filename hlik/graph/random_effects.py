"""Random effects as numbers: family on the scale of v, dispersion, and why a term has no closed form."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable as GraphVariable

from hlik import random_families
from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.describe import describe
from hlik.graph.families import RandomParts, distribution_name, is_zero, random_parts
from hlik.graph.forms import Affine, Mapped
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.model import RandomEffect


def read_random_effect(
    walker: Walker, rv: GraphVariable, index: slice, layout: ThetaLayout, scale: GraphVariable | None
) -> RandomEffect:
    """One term; `scale` is given for a non-centred effect."""
    variable = describe(walker, rv)
    if index.stop - index.start < 2:
        raise ModelError(
            f"Random effect {rv.name!r} has a single level: its variance cannot be estimated. Make it a parameter "
            f"with a constant prior, or pass random=[...] without it."
        )
    if scale is not None:
        dispersion = layout.map_of(walker, scale**2)
        scale_map = layout.map_of(walker, scale + pt.zeros(()))
        return RandomEffect(
            variable, index, random_families.Normal(), dispersion, "Normal (non-centred)", scale_map=scale_map
        )
    name = distribution_name(rv)
    parts = random_parts(rv.owner.op, rv)
    if parts is None:
        reason = f"random effect {rv.name!r} is {name}, which has no closed form in hlik"
        return RandomEffect(variable, index, None, None, name, obstacle=reason)
    obstacle = _scale_obstacle(walker, rv, parts) or _location_obstacle(walker, rv, parts)
    dispersion = layout.map_of(walker, parts.dispersion)
    if dispersion is None and obstacle is None:
        others = sorted(fm.inputs_of(walker.form(parts.dispersion)) - set(layout.names))
        obstacle = (
            f"the dispersion of random effect {rv.name!r} depends on {others}, which are effects themselves"
        )
    return RandomEffect(
        variable,
        index,
        None if obstacle else parts.family,
        dispersion,
        name,
        location=walker.locations.get(rv.name),
        obstacle=obstacle,
    )


def _scale_obstacle(walker: Walker, rv: GraphVariable, parts: RandomParts) -> str | None:
    """Whether the value variable is on the family's weak canonical scale."""
    family = parts.family
    form = walker.form(rv)
    points = np.abs(fm.TEST_POINTS) if family.scale == "inverse" else fm.TEST_POINTS
    if isinstance(form, Affine):
        values = points if rv.name in form.inputs else None
    else:
        values = form.function(points) if isinstance(form, Mapped) else None
    if values is not None and np.allclose(values, family.u(points), rtol=1e-10):
        return None
    wanted = {
        "identity": "default_transform=None",
        "log": "PyMC's default log transform",
        "logit": "PyMC's default log-odds transform",
        "inverse": "default_transform=None, transform=hlik.reciprocal",
    }[family.scale]
    return (
        f"random effect {rv.name!r} ({distribution_name(rv)}) is on the scale of {walker.model.rvs_to_values[rv].name!r}; "
        f"EQL needs its weak canonical scale, {family.scale}: give it {wanted}"
    )


def _location_obstacle(walker: Walker, rv: GraphVariable, parts: RandomParts) -> str | None:
    if parts.must_vanish is not None:
        form = walker.form(parts.must_vanish)
        if not (fm.is_constant(form) and is_zero(form)):
            return (
                f"random effect {rv.name!r} needs {parts.condition} for EQL; move its mean into the predictor"
            )
    if parts.location is not None and rv.name not in walker.locations:
        form = walker.form(parts.location)
        if not (fm.is_constant(form) and is_zero(form)):
            return f"the mean of random effect {rv.name!r} is not linear in the other variables"
    return None
