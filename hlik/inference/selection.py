"""Which parameters a table is asked for: names, or labels of single elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np

from hlik.errors import ModelError
from hlik.inference.tables import labels, model_of


@dataclass(frozen=True, eq=False)
class Selected:
    """A parameter and its chosen elements.

    Attributes
    ----------
    parameter
        What the result says of it: name, role, value_name, scale.
    elements
        Positions in the value variable, flattened.
    labels
        Of all elements, on the scale named `scale`: ``sigma``, or ``sigma_log__`` where there is no natural one.
    elementwise
        Whether its natural scale is an elementwise function of the unconstrained one.
    """

    parameter: dict[str, Any]
    elements: np.ndarray
    labels: list[str]
    elementwise: bool

    @property
    def name(self) -> str:
        """Name of the random variable."""
        return str(self.parameter["name"])


def select(idata: az.InferenceData, parm: Sequence[str] | str | None) -> list[Selected]:
    """The chosen parameters, in the order of the model.

    Raises
    ------
    ModelError
        Where a name is neither a parameter nor the label of an element.
    """
    wanted = None if parm is None else [parm] if isinstance(parm, str) else [str(name) for name in parm]
    chosen, known = [], set()
    for parameter in model_of(idata)["parameters"]:
        own = _all_of(idata, parameter)
        known |= {own.name, *own.labels}
        if wanted is None or own.name in wanted:
            chosen.append(own)
            continue
        elements = np.array([k for k, label in enumerate(own.labels) if label in wanted], dtype=int)
        if elements.size:
            chosen.append(Selected(parameter, elements, own.labels, own.elementwise))
    if wrong := sorted(set(wanted or ()) - known):
        raise ModelError(f"parm names {wrong}, which are no parameters of this result; it has {sorted(known)}.")
    return chosen


def _all_of(idata: az.InferenceData, parameter: dict[str, Any]) -> Selected:
    natural = idata["estimates"][parameter["name"]]
    own = idata["unconstrained_estimates"][parameter["value_name"]]
    is_affine = parameter["role"] == "fixed effect" and parameter["name"] == parameter["value_name"]
    elementwise = own.shape == natural.shape and (parameter["scale"] != "identity" or is_affine or _same(own, natural))
    found = labels(natural if elementwise else own)
    return Selected(parameter, np.arange(own.size), found, elementwise)


def _same(own: Any, natural: Any) -> bool:
    return bool(np.array_equal(own.values, natural.values))
