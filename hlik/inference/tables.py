"""What all tables of a result share: what it says of its model, and the labels of its elements."""

from __future__ import annotations

import json
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.errors import ModelError


def model_of(idata: az.InferenceData) -> dict[str, Any]:
    """What a result says of its model: responses, random effects, parameters."""
    if not hasattr(idata, "fit") or "model" not in idata["fit"].attrs:
        raise ModelError("This InferenceData is not a result of hlik.fit: it has no group 'fit' with a model.")
    return json.loads(idata["fit"].attrs["model"])


def response_label(described: dict[str, Any]) -> str:
    """A response by the name that the user gave it: ``y`` for the observed part ``y_observed`` of a masked one."""
    return described.get("label", described["name"])


def labels(values: xr.DataArray) -> list[str]:
    """``name[label, ...]`` for every element, in C order."""
    if not values.dims:
        return [str(values.name)]
    positions = np.indices(values.shape).reshape(values.ndim, -1).T
    coords = [values.coords[d].values if d in values.coords else np.arange(values.sizes[d]) for d in values.dims]
    return [f"{values.name}[{', '.join(str(coords[k][i]) for k, i in enumerate(p))}]" for p in positions]
