"""The priors of parameters, which likelihood fits ignore: their pull on the estimates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pymc as pm
import pytensor

from hlik.graph.numeric import Interpreter


def prior_gradient(model: pm.Model, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradient of the parameters' log prior density on the unconstrained scale, Jacobians included; not compiled.

    Parameters
    ----------
    values
        Value variables by the names of their free random variables.
    """
    variables = [model[name] for name in values]
    own = [model.rvs_to_values[rv] for rv in variables]
    density = model.logp(vars=variables, jacobian=True, sum=True)
    gradient = pytensor.grad(density, own, disconnected_inputs="ignore")
    found = Interpreter(own, gradient)(*(np.asarray(value, dtype=float) for value in values.values()))
    return {name: np.asarray(part, dtype=float) for name, part in zip(values, found, strict=True)}
