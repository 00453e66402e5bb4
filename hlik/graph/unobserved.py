"""Masked responses: which rows are missing, and their means and variances as functions of the parameters.

PyMC splits a masked response ``y`` into the observed variable ``y_observed`` and the free variable ``y_unobserved``,
and joins both in the Deterministic ``y``. hlik leaves ``y_unobserved`` out of the likelihood and predicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.distribution import PartialObservedRV
from pymc.distributions.moments import mean
from pymc.exceptions import UndefinedMomentException
from pytensor.graph.basic import Constant
from pytensor.graph.basic import Variable as GraphVariable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.subtensor import AdvancedIncSubtensor, AdvancedSubtensor

from hlik.graph import forms as fm
from hlik.graph.ancestry import free_ancestors
from hlik.graph.describe import coords_of
from hlik.graph.forms import Affine, Form, Mapped, Opaque
from hlik.graph.graph_map import GraphMap, graph_map
from hlik.graph.reported import plain_form
from hlik.graph.roles import Roles
from hlik.graph.variances import variance
from hlik.graph.walk import Walker
from hlik.model import Unobserved, Variable


def base_of(model: pm.Model, name: str) -> str | None:
    """``y`` for ``y_observed``, ``y_unobserved`` and ``y`` itself where ``y`` is masked; else None."""
    base = name.removesuffix("_unobserved").removesuffix("_observed")
    parts = {f"{base}_observed", f"{base}_unobserved", base}
    return base if parts <= set(model.named_vars) and model[f"{base}_observed"] in model.observed_RVs else None


def missing_rows(model: pm.Model, base: str) -> np.ndarray | None:
    """Which elements of the masked response `base` are missing, in its shape; None where the graph does not say."""
    unobserved = model[f"{base}_unobserved"]
    for variable in ancestors([model[base]]):
        node = variable.owner
        if node is None or not isinstance(node.op, AdvancedIncSubtensor) or node.inputs[1] is not unobserved:
            continue
        places = node.inputs[2:]
        if len(places) == 1 and isinstance(places[0], Constant) and places[0].type.dtype == "bool":
            return np.asarray(places[0].data)
    return None


def masked_response(model: pm.Model, name: str) -> tuple[str, np.ndarray] | None:
    """The masked response that `name` is or is a part of, and its missing rows; None for other variables."""
    base = base_of(model, name)
    missing = None if base is None else missing_rows(model, base)
    return None if base is None or missing is None else (base, missing)


def whole_response(rv: GraphVariable) -> GraphVariable:
    """The response of which `rv` is the observed or the missing part, without any size that its data gave it."""
    node = rv.owner
    if isinstance(node.op, PartialObservedRV):
        return node.inputs[0]
    generator = next(source for source in node.inputs if type(source.type).__name__ == "RandomGeneratorType")
    parameters = [_unmasked(parameter) for parameter in node.op.dist_params(node)]
    return node.op.make_node(generator, None, *parameters).outputs[1]


def _unmasked(parameter: GraphVariable) -> GraphVariable:
    """A parameter before PyMC took the rows of a mask out of it."""
    node = parameter.owner
    if node is None or not isinstance(node.op, AdvancedSubtensor) or len(node.inputs) != 2:
        return parameter
    return node.inputs[0] if node.inputs[1].type.dtype == "bool" else parameter


def row_labels(model: pm.Model, name: str, missing: np.ndarray) -> dict[str, np.ndarray]:
    """Coordinates of the observed and of the missing rows: the labels of the response's dims, or positions."""
    known, dims = coords_of(model), model.named_vars_to_dims.get(name) or (None,) * missing.ndim
    labels = [known.get(d, np.arange(n)) for d, n in zip(dims, missing.shape, strict=True)]
    found = {}
    for part, rows in ((f"{name}_observed_dim_0", ~missing), (f"{name}_unobserved_dim_0", missing)):
        places = np.nonzero(rows)
        own = [np.asarray(label)[place] for label, place in zip(labels, places, strict=True)]
        found[part] = (
            own[0] if len(own) == 1 else np.array([", ".join(map(str, row)) for row in zip(*own, strict=True)])
        )
    return found


def read_unobserved(
    walker: Walker, roles: Roles
) -> tuple[tuple[Unobserved, ...], dict[str, Form], dict[str, partial[GraphMap]], dict[str, np.ndarray]]:
    """The missing values that hlik predicts, the forms of their means, and the labels of their rows.

    Left out are responses whose mean PyMC does not know, or whose rows the graph does not tell.
    """
    found: list[Unobserved] = []
    forms: dict[str, Form] = {}
    maps: dict[str, partial[GraphMap]] = {}
    coords: dict[str, np.ndarray] = {}
    for name in roles.missing:
        base = name.removesuffix("_unobserved")
        missing = missing_rows(walker.model, base) if base_of(walker.model, name) else None
        if missing is None:
            continue
        coords |= row_labels(walker.model, base, missing)
        size = int(missing.sum())
        variable = Variable(name, name, (size,), (f"{name}_dim_0",), (size,))
        mean_graph, variance_graph = _moments(walker.model[name], missing)
        form = None if mean_graph is None else _sized(plain_form(walker, mean_graph, roles), (size,))
        inputs = set() if form is None else fm.inputs_of(form)
        if form is None or not inputs <= {*roles.parameters, *roles.random_effects}:
            found.append(Unobserved(variable, base, missing))
            continue
        forms[name] = form
        if isinstance(form, Opaque):
            maps[name] = partial(_graph, walker, pt.broadcast_to(mean_graph, (size,)))
        spread, names = None, ()
        if variance_graph is not None:
            names = tuple(n for n in free_ancestors([variance_graph], walker) if n not in walker.fixed)
            spread = partial(_graph, walker, variance_graph)
        found.append(Unobserved(variable, base, missing, spread, names))
    return tuple(found), forms, maps, coords


def _moments(rv: GraphVariable, missing: np.ndarray) -> tuple[GraphVariable | None, GraphVariable | None]:
    """Mean and variance of the missing part of a response given its parameters; None where they are not known."""
    is_part = isinstance(rv.owner.op, PartialObservedRV)
    own = whole_response(rv) if is_part else rv
    try:
        found = [mean(own), variance(own)]
    except (NotImplementedError, UndefinedMomentException):
        return None, None
    if is_part:
        found = [None if part is None else pt.broadcast_to(part, missing.shape)[missing] for part in found]
    return found[0], found[1]


def _sized(form: Form, shape: tuple[int, ...]) -> Form:
    """The form with one element a missing value."""
    if isinstance(form, Affine):
        return fm.broadcast(form, shape)
    if isinstance(form, Mapped):
        return Mapped(form.function, fm.broadcast(form.affine, shape), form.is_exp)
    if isinstance(form, Opaque):
        return Opaque(form.inputs, shape, form.reason)
    return fm.broadcast(Affine({}, np.asarray(form, dtype=float)), shape)


def _graph(walker: Walker, expression: GraphVariable, names: Sequence[str]) -> GraphMap:
    shapes = [walker.value_shape(walker.model[name]) for name in names]
    return graph_map(walker.model, expression, names, shapes, walker.fixed)
