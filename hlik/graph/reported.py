"""What a result reports beside the estimates themselves: every variable and Deterministic as a form or a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hlik.graph import forms as fm
from hlik.graph.describe import describe
from hlik.graph.forms import Form, Opaque, Product
from hlik.graph.graph_map import GraphMap, graph_map
from hlik.graph.roles import Roles
from hlik.graph.walk import Walker
from hlik.model import Variable

GraphMaps = dict[str, Callable[[Sequence[str]], GraphMap]]


def reported_forms(walker: Walker, roles: Roles) -> tuple[tuple[Variable, ...], dict[str, Form], GraphMaps]:
    """Deterministics, forms of all that is reported, and for opaque Deterministics how to build their graphs."""
    forms = {name: _plain(walker.form(walker.model[name])) for name in (*roles.parameters, *roles.random_effects)}
    deterministics, graph_maps = [], {}
    for variable in walker.model.deterministics:
        form = _plain(walker.form(variable))
        if not fm.inputs_of(form) or not fm.inputs_of(form) <= set(forms):
            continue  # data, or made of missing responses
        if isinstance(form, Opaque) and form.shape is None:
            continue
        deterministics.append(describe(walker, variable))
        if isinstance(form, Opaque):
            graph_maps[variable.name] = partial(_graph_map, walker, variable.name)
        forms[variable.name] = form
    return tuple(deterministics), forms, graph_maps


def _plain(form: Form) -> Form:
    """The form, products made opaque: what reads results knows data, affine, mapped and opaque forms."""
    return Opaque(form.inputs, form.shape, "a product") if isinstance(form, Product) else form


def _graph_map(walker: Walker, target: str, names: Sequence[str]) -> GraphMap:
    """A Deterministic without closed form as a function of the value variables `names`."""
    shapes = [walker.value_shape(walker.model[name]) for name in names]
    return graph_map(walker.model, walker.model[target], names, shapes, walker.fixed)
