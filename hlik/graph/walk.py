"""Walking a model's graph: from PyTensor variables to forms, each node once, nothing compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.distribution import PartialObservedRV
from pytensor.graph.basic import Variable
from pytensor.tensor.random.type import RandomType

import hlik.graph.linear_rules
import hlik.graph.moving_rules  # noqa: F401  (both register their rules)
from hlik.errors import ModelError
from hlik.graph import algebra, rules
from hlik.graph import forms as fm
from hlik.graph.forms import Form, Opaque, Product
from hlik.graph.numeric import dim_length, is_known, known_value


class Walker:
    """Forms of the nodes of one model.

    The variables of the forms are the model's *value variables*, named by their random variables: the form of
    a free random variable ``u`` with PyMC's log transform is ``exp(u)``, where the second ``u`` stands for
    ``u_log__``. Variables in `fixed` are data.

    Parameters
    ----------
    model
        The model; it is read, never changed.
    fixed
        Values on the natural scale of free random variables that are held fixed.

    Attributes
    ----------
    locations
        Random effects read as ``location + v``, by name: see `set_location`.
    centring
        For nodes through which a non-centred effect is read as its centred self, what stands in their place.
    aliases
        Stand-ins in copies of the graph, and the model's own nodes.
    structures
        Random effects with a joint normal density, by name (`hlik.graph.structures`); None for others.
    """

    def __init__(self, model: pm.Model, fixed: Mapping[str, np.ndarray] | None = None):
        self.model = model
        self.fixed = dict(fixed or {})
        self.free: dict[Variable, str] = {rv: rv.name for rv in model.free_RVs}
        self.observed = {rv: model.rvs_to_values[rv] for rv in model.observed_RVs}
        self.locations: dict[str, Form] = {}
        self.centring: dict[Variable, Variable] = {}
        self.aliases: dict[Variable, Variable] = {}
        self.structures: dict[str, Any] = {}
        self._memo: dict[Variable, Form] = {}
        self._backward_graphs: dict[Variable, Variable | None] = {}
        self._value_shapes: dict[Variable, tuple[int, ...]] = {}

    def form(self, target: Variable) -> Form:
        """The form of a variable of the graph."""
        stack = [target]
        while stack:
            variable = stack[-1]
            if variable in self._memo:
                stack.pop()
                continue
            waiting = [source for source in self._sources(variable) if source not in self._memo]
            if waiting:
                stack.extend(waiting)
            else:
                self._memo[variable] = self._compute(variable)
                stack.pop()
        return self._memo[target]

    def value(self, target: Variable) -> np.ndarray:
        """The value of a variable that depends on data only."""
        form = self.form(target)
        if not fm.is_constant(form):
            raise ModelError(f"{target} depends on {sorted(fm.inputs_of(form))}; data were expected.")
        return np.asarray(form)

    def shape(self, rv: Variable) -> tuple[int, ...]:
        """Shape of a random variable, from its type, its size or its parameters."""
        static = rv.type.shape
        if all(size is not None for size in static):
            return tuple(static)
        if rv in self.observed:
            return np.shape(self.value(rv))
        if isinstance(rv.owner.op, PartialObservedRV):  # the missing part of a masked mixture or the like
            return (int(self.value(rv.owner.inputs[1]).sum()),)
        for found in (self._univariate_shape(rv), self._multivariate_shape(rv)):
            if found is not None:
                return found
        dims = self.model.named_vars_to_dims.get(rv.name) or (None,)
        if all(dim is not None for dim in dims):
            return tuple(dim_length(self.model, dim) for dim in dims)
        return tuple(int(k) for k in self.model.eval_rv_shapes()[rv.name])  # compiles; multivariates only

    def _univariate_shape(self, rv: Variable) -> tuple[int, ...] | None:
        """Shape of a univariate random variable by its size, or by its parameters where it has none."""
        op, node = rv.owner.op, rv.owner
        if getattr(op, "ndim_supp", None) != 0 or not hasattr(op, "size_param"):
            return None
        size = op.size_param(node)
        if getattr(getattr(size, "type", None), "ndim", 0) == 1:
            return tuple(int(k) for k in self.value(size)) if fm.is_constant(self.form(size)) else None
        shapes = [fm.shape_of(self.form(parameter)) for parameter in op.dist_params(node)]
        return None if None in shapes else np.broadcast_shapes(*shapes)  # type: ignore[arg-type]

    def _multivariate_shape(self, rv: Variable) -> tuple[int, ...] | None:
        """Shape of a vector-valued random variable of known length by its size."""
        op, node = rv.owner.op, rv.owner
        if getattr(op, "ndim_supp", None) != 1 or not hasattr(op, "size_param") or rv.type.shape[-1] is None:
            return None
        size = op.size_param(node)
        if getattr(getattr(size, "type", None), "ndim", 0) != 1 or not fm.is_constant(self.form(size)):
            return None
        return (*(int(k) for k in self.value(size)), rv.type.shape[-1])

    def value_shape(self, rv: Variable) -> tuple[int, ...]:
        """Shape of the value variable of a free random variable: that of its transform of an array of ones."""
        if rv not in self._value_shapes:
            shape, transform = self.shape(rv), self.model.rvs_to_transforms.get(rv)
            if transform is not None:
                ones = pt.constant(np.ones(shape, dtype=rv.type.dtype))
                shape = fm.shape_of(self.form(transform.forward(ones, *rv.owner.inputs)))
            if shape is None:
                value = self.model.rvs_to_values[rv]
                shape = tuple(int(k) for k in np.shape(self.model.initial_point()[value.name]))
            self._value_shapes[rv] = shape
        return self._value_shapes[rv]

    def set_location(self, rv: Variable, location: Form) -> None:
        """Read the random effect as ``location + v``; forms that already use it are forgotten."""
        self.locations[self.free[rv]] = location
        self._memo.clear()

    def centre(self, places: Mapping[Variable, Variable]) -> None:
        """Read the given nodes as what stands in their place; forms that already use them are forgotten."""
        self.centring.update(places)
        self._memo.clear()

    def centred_sources(self, variable: Variable) -> list[Variable]:
        """What a node that is no free variable is made of."""
        return [self.centring[variable]] if variable in self.centring else list(variable.owner.inputs)

    def _sources(self, variable: Variable) -> list[Variable]:
        if variable in self.free:
            if self.free[variable] in self.fixed:
                return []
            backward = self.backward(variable)
            return [] if backward is None else [backward]
        if variable in self.observed:
            return [self.observed[variable]]
        if variable in self.aliases:
            return [self.aliases[variable]]
        if variable in self.centring:
            return [self.centring[variable]]
        random = isinstance(variable.type, RandomType)
        return [] if variable.owner is None or random else list(variable.owner.inputs)

    def _compute(self, variable: Variable) -> Form:
        if variable in self.free:
            return self._free_form(variable)
        if variable in self.observed:
            return self._memo[self.observed[variable]]
        if variable in self.aliases:
            return self._memo[self.aliases[variable]]
        if variable in self.centring:
            return self._memo[self.centring[variable]]
        rv = self.model.values_to_rvs.get(variable)
        if rv in self.free:
            return fm.variable(self.free[rv], self.value_shape(rv))
        if is_known(variable):
            return known_value(variable)
        if variable.owner is None or isinstance(variable.type, RandomType):
            return Opaque(frozenset(), None, f"{variable}, an input outside the model")
        forms = [self._memo[source] for source in variable.owner.inputs]
        return rules.form_of_node(variable.owner, forms, variable.index)

    def _free_form(self, rv: Variable) -> Form:
        name, shape = self.free[rv], self.shape(rv)
        if name in self.fixed:
            return np.broadcast_to(np.asarray(self.fixed[name], float), shape)
        backward = self.backward(rv)
        if backward is not None:
            form = self._memo[backward]
            several = isinstance(form, Opaque | Product)
            names = frozenset({name})
            return Opaque(names, shape, f"the transform of {name!r}", names) if several else form
        own = fm.variable(name, shape)
        return algebra.add([own, self.locations[name]]) if name in self.locations else own

    def backward(self, rv: Variable) -> Variable | None:
        """The graph of the random variable as a function of its value variable, None for the identity."""
        if rv not in self._backward_graphs:
            transform = self.model.rvs_to_transforms.get(rv)
            value = self.model.rvs_to_values[rv]
            graph = None if transform is None else transform.backward(value, *rv.owner.inputs)
            self._backward_graphs[rv] = None if graph is value else graph
        return self._backward_graphs[rv]
