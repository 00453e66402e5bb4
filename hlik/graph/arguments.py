"""Checks of what `read_model` is given, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.variational.minibatch_rv import MinibatchRandomVariable

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.walk import Walker


def as_pymc(model: object) -> pm.Model:
    """The PyMC model of a Bambi model, or the model itself."""
    if isinstance(model, pm.Model):
        return model
    if type(model).__module__.split(".")[0] == "bambi" and hasattr(model, "build"):
        if not getattr(model, "built", False):
            model.build()
        return model.backend.model  # type: ignore[attr-defined]
    raise ModelError(
        f"model must be a pymc.Model or a bambi.Model; got {type(model).__name__}"
        + (": pass the model, not the class." if isinstance(model, type) else ".")
    )


def checked_values(argument: str, given: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """The arrays of a ``{name: values}`` argument."""
    if given is not None and not isinstance(given, Mapping):
        raise ModelError(
            f"{argument}= takes a dictionary, name -> values; got {type(given).__name__}. Write {argument}={{...}}."
        )
    arrays = {}
    for name, value in (given or {}).items():
        try:
            arrays[name] = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            raise ModelError(f"{argument}[{name!r}] must be numbers; got {value!r}.") from None
    return arrays


def check_model(model: pm.Model, fixed: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Refuse models without observed or free variables, and names they do not have."""
    if not model.observed_RVs:
        raise ModelError("The model has no observed variable: give one distribution observed=data.")
    if not model.free_RVs:
        raise ModelError("The model has no free variable: there is nothing to estimate.")
    for rv in model.observed_RVs:
        if isinstance(rv.owner.op, MinibatchRandomVariable):
            raise ModelError(f"Response {rv.name!r} stands for more data (total_size=): give all data instead.")
    free = {rv.name for rv in model.free_RVs}
    if wrong := sorted(set(fixed) - free):
        raise ModelError(f"fixed= names {wrong}, which the model does not have as free variables: {sorted(free)}.")
    observed = {rv.name for rv in model.observed_RVs}
    if wrong := sorted(set(weights) - observed):
        raise ModelError(f"weights= names {wrong}, which are not observed variables; these are: {sorted(observed)}.")


def check_fixed(walker: Walker) -> None:
    """Refuse fixed values of the wrong shape, or outside the support of their variable."""
    for name, value in walker.fixed.items():
        rv = walker.model[name]
        shape = walker.shape(rv)
        if value.shape not in ((), shape):
            raise ModelError(f"fixed[{name!r}] has shape {value.shape}; {name} has shape {shape}.")
        if not (np.all(np.isfinite(value)) and _is_inside(walker, name, value)):
            raise ModelError(f"fixed[{name!r}] = {value} is outside the support of {name!r}.")


def _is_inside(walker: Walker, name: str, value: np.ndarray) -> bool:
    """Whether the transform of the value is finite; True where that depends on other free variables."""
    rv = walker.model[name]
    transform = walker.model.rvs_to_transforms.get(rv)
    if transform is None:
        return True
    constant = pt.constant(np.array(np.broadcast_to(value, walker.shape(rv))))
    form = walker.form(transform.forward(constant, *rv.owner.inputs))
    return not fm.is_constant(form) or bool(np.all(np.isfinite(np.asarray(form))))
