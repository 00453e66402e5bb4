"""Walking a model's graph: from PyTensor variables to forms, each node once, nothing compiled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pymc as pm
from pytensor.graph.basic import Constant, Variable
from pytensor.compile.sharedvalue import SharedVariable

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph import rules
from hlik.graph.forms import Affine, Form, Opaque


_SHAPE_KEEPING = ("log", "logodds", "interval", "ordered", "circular", "reciprocal")


class Walker:
    """Forms of the nodes of one model.

    The variables of the forms are the model's *value variables*, named by their random variables: the form of a
    free random variable ``u`` with PyMC's log transform is ``exp(u)``, where the second ``u`` stands for
    ``u_log__``. Variables in `fixed` are data.

    Parameters
    ----------
    model
        The model; it is read, never changed.
    fixed
        Values on the natural scale of free random variables that are held fixed.
    """

    def __init__(self, model: pm.Model, fixed: Mapping[str, np.ndarray] | None = None):
        self.model = model
        self.fixed = dict(fixed or {})
        self.free = {rv: rv.name for rv in model.free_RVs}
        self.observed = {rv: model.rvs_to_values[rv] for rv in model.observed_RVs}
        self._by_name = {rv.name: rv for rv in model.free_RVs}
        self.locations: dict[str, Form] = {}  # random effects read as location + v
        self.centring: dict[Variable, Variable] = {}  # product node -> its non-centred operand
        self._memo: dict[Variable, Form] = {}
        self._backward_graphs: dict[Variable, Variable | None] = {}

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
        """Shape of a random variable, from its type, its size or its parameters; nothing is compiled."""
        static = rv.type.shape
        if all(size is not None for size in static):
            return tuple(static)
        op, node = rv.owner.op, rv.owner
        if getattr(op, "ndim_supp", None) == 0 and hasattr(op, "size_param"):
            size = op.size_param(node)
            if size.type.ndim == 1 and fm.is_constant(self.form(size)):
                return tuple(int(k) for k in self.value(size))
        return tuple(
            int(k) for k in self.model.eval_rv_shapes()[rv.name]
        )  # multivariate with unknown static shape

    def value_shape(self, rv: Variable) -> tuple[int, ...]:
        """Shape of the value variable of a free random variable."""
        transform = self.model.rvs_to_transforms.get(rv)
        if transform is None or transform.name in _SHAPE_KEEPING:
            return self.shape(rv)
        value = self.model.rvs_to_values[rv]
        return tuple(int(k) for k in np.shape(self.model.initial_point()[value.name]))

    def set_location(self, rv: Variable, location: Form) -> None:
        """Read the random effect as ``location + v``; forms that already use it are forgotten."""
        self.locations[self.free[rv]] = location
        self._memo.clear()

    def _sources(self, variable: Variable) -> list[Variable]:
        if variable in self.free:
            name = self.free[variable]
            if name in self.fixed:
                return []
            backward = self.backward(variable)
            self._memo.setdefault(self.model.rvs_to_values[variable], fm.variable(name, self.shape(variable)))
            return [] if backward is None else [backward]
        if variable in self.observed:
            return [self.observed[variable]]
        if (original := self.original(variable)) is not None:
            return [original]
        if variable in self.centring:
            return [self.centring[variable]]
        return [] if variable.owner is None or _is_random(variable) else list(variable.owner.inputs)

    def _compute(self, variable: Variable) -> Form:
        if variable in self.free:
            return self._free_form(variable)
        if variable in self.observed:
            return self._memo[self.observed[variable]]
        if (original := self.original(variable)) is not None:
            return self._memo[original]
        if variable in self.centring:
            return self._memo[self.centring[variable]]
        if isinstance(variable, Constant):
            return _as_data(variable.data)
        if _is_random(variable):
            return Opaque(frozenset(), None, f"{variable}, a source of random numbers")
        if isinstance(variable, SharedVariable):
            return _as_data(variable.get_value(borrow=True))
        if variable.owner is None:
            return Opaque(frozenset(), None, f"{variable}, an unknown input outside the model")
        return rules.form_of_node(variable.owner, [self._memo[source] for source in variable.owner.inputs])

    def original(self, variable: Variable) -> Variable | None:
        """The model's own variable of which this one is a copy: PyMC copies graphs to derive some log densities."""
        rv = self._by_name.get(variable.name) if variable.name else None
        same_kind = rv is not None and variable.owner is not None and type(variable.owner.op) is type(rv.owner.op)
        return rv if same_kind and variable is not rv else None

    def _free_form(self, rv: Variable) -> Form:
        name = self.free[rv]
        if name in self.fixed:
            return np.broadcast_to(np.asarray(self.fixed[name], float), self.shape(rv))
        backward = self.backward(rv)
        if backward is not None:
            form = self._memo[backward]
            return (
                form if not isinstance(form, Opaque) else Opaque(frozenset({name}), form.shape, form.reason)
            )
        if name in self.locations:
            location = self.locations[name]
            own = fm.variable(name, self.shape(rv))
            if isinstance(location, Affine):
                return fm.total(own, location)
            return Affine(own.rows, own.offset + np.asarray(location))
        return fm.variable(name, self.shape(rv))

    def backward(self, rv: Variable) -> Variable | None:
        """The graph of the random variable as a function of its value variable, None for the identity."""
        if rv not in self._backward_graphs:
            transform = self.model.rvs_to_transforms.get(rv)
            value = self.model.rvs_to_values[rv]
            graph = None if transform is None else transform.backward(value, *rv.owner.inputs)
            self._backward_graphs[rv] = graph
        return self._backward_graphs[rv]


def _is_random(variable: Variable) -> bool:
    return type(variable.type).__name__.startswith("Random")


def _as_data(value: object) -> Form:
    import scipy.sparse as sp

    return value if sp.issparse(value) else np.asarray(value)  # type: ignore[return-value]
