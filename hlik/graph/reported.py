"""What a result reports beside the estimates themselves: every variable and Deterministic as a form or a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pymc as pm
from pytensor.graph.basic import Variable as GraphVariable

from hlik.graph import forms as fm
from hlik.graph.ancestry import free_ancestors
from hlik.graph.describe import describe
from hlik.graph.forms import Form, Opaque, Product
from hlik.graph.graph_map import GraphMap, graph_map
from hlik.graph.roles import Roles
from hlik.graph.walk import Walker
from hlik.model import Variable

GraphMaps = dict[str, Callable[[Sequence[str]], GraphMap]]


def reported_forms(walker: Walker, roles: Roles) -> tuple[tuple[Variable, ...], dict[str, Form], GraphMaps]:
    """Deterministics, forms of all that is reported, and for opaque Deterministics how to build their graphs."""
    names = [*roles.parameters, *roles.random_effects]
    forms = {name: _plain(walker, walker.model[name], frozenset()) for name in names}
    deterministics: list[Variable] = []
    graph_maps: GraphMaps = {}
    for variable in walker.model.deterministics:
        form = plain_form(walker, variable, roles)
        inputs = fm.inputs_of(form)
        if not inputs or not inputs <= set(names) or fm.shape_of(form) is None:
            continue  # data, made of missing responses, or of unknown shape
        deterministics.append(describe(walker, variable))
        forms[variable.name] = form
        if isinstance(form, Opaque):
            graph_maps[variable.name] = partial(_graph_map, walker.model, walker, variable.name)
    return tuple(deterministics), forms, graph_maps


def plain_form(walker: Walker, variable: GraphVariable, roles: Roles) -> Form:
    """The form of a quantity that is reported, in the names of value variables."""
    return _plain(walker, variable, [*roles.scale_of, *roles.rooted])


def _plain(walker: Walker, variable: GraphVariable, non_centred: Sequence[str] | frozenset[str]) -> Form:
    """The form of a variable as readers of results know it: data, affine, mapped, or opaque with all its inputs.

    In forms the name of a non-centred effect stands for its centred self. What uses the effect itself is opaque,
    and so are products.
    """
    form = walker.form(variable)
    if isinstance(form, Opaque | Product) or _uses_itself(walker, variable, set(non_centred)):
        inputs = [name for name in free_ancestors([variable], walker) if name not in walker.fixed]
        return Opaque(frozenset(inputs), fm.shape_of(form), "a graph")
    return form


def _uses_itself(walker: Walker, variable: GraphVariable, non_centred: set[str]) -> bool:
    """Whether a node depends on a non-centred effect other than through its centring places."""
    stack, seen = [variable] if non_centred else [], set()
    while stack:
        node = stack.pop()
        if node in seen or node in walker.centring:
            continue
        seen.add(node)
        if walker.free.get(node) in non_centred:
            return True
        if node not in walker.free and node.owner is not None:
            stack.extend(node.owner.inputs)
    return False


def _graph_map(model: pm.Model, walker: Walker, target: str, names: Sequence[str]) -> GraphMap:
    """A Deterministic without closed form as a function of the value variables `names`."""
    shapes = [walker.value_shape(model[name]) for name in names]
    return graph_map(model, model[target], names, shapes, walker.fixed)
