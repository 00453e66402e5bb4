"""Linear predictors: the affine form behind the mean of each response, and the link between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pytensor.graph.basic import Variable

from hlik.graph import forms as fm
from hlik.graph.families import ResponseParts, distribution_name, response_parts
from hlik.graph.forms import Affine, Form, Mapped
from hlik.graph.walk import Walker
from hlik.links import LINKS, Link, identify_inverse


@dataclass(frozen=True, eq=False)
class Predictor:
    """What was read of one response: its parts, its linear predictor and link, or why they could not be told."""

    parts: ResponseParts | None
    affine: Affine | None
    link: Link | None
    other_inputs: frozenset[str]
    obstacle: str | None = None


def read_predictor(walker: Walker, rv: Variable) -> Predictor:
    """Find link and linear predictor of an observed variable."""
    parts = response_parts(rv.owner.op, rv)
    if parts is None:
        inputs = frozenset().union(*(fm.inputs_of(walker.form(source)) for source in _parameters(rv)))
        name = distribution_name(rv)
        return Predictor(
            None, None, None, inputs, f"response {rv.name!r} is {name}, which has no closed form in hlik"
        )
    others = [part for part in (parts.dispersion, parts.trials, parts.shift) if part is not None]
    other_inputs = frozenset().union(*(fm.inputs_of(walker.form(part)) for part in others))
    mean = walker.form(parts.mean)
    found = linear_predictor(mean)
    if found is None:
        reason = getattr(mean, "reason", "") or "a function hlik knows no link for"
        inputs = sorted(fm.inputs_of(mean))
        return Predictor(
            parts,
            None,
            None,
            other_inputs | fm.inputs_of(mean),
            f"the mean of {rv.name!r} is no link of a linear predictor of {inputs}: it holds {reason}. "
            f"Every effect must enter linearly on the scale of its PyMC value variable "
            f"(transform= chooses that scale)",
        )
    affine, link = found
    return Predictor(parts, fm.broadcast(affine, walker.shape(rv)), link, other_inputs)


def _parameters(rv: Variable) -> list[Variable]:
    op = rv.owner.op
    return list(op.dist_params(rv.owner)) if hasattr(op, "dist_params") else list(rv.owner.inputs)


def linear_predictor(mean: Form) -> tuple[Affine, Link] | None:
    """The affine form a with ``mean = g^-1(a)`` and the link g, or None."""
    if fm.is_constant(mean):
        return Affine({}, np.asarray(mean, float)), LINKS["identity"]
    if isinstance(mean, Affine):
        return mean, LINKS["identity"]
    if not isinstance(mean, Mapped):
        return None
    if mean.is_exp:
        return mean.affine, LINKS["log"]
    function = mean.function
    link = identify_inverse(function)
    if link is not None:
        return mean.affine, link
    link = identify_inverse(lambda t: function(-t))
    return None if link is None else (fm.scaled(mean.affine, -1.0), link)
