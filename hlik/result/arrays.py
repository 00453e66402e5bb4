"""Arrays with the dims and coords of a model's variables, for the groups of a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from hlik._version import __version__
from hlik.model import HierarchicalModel, Variable
from hlik.result.report import Reported


def attributes() -> dict[str, Any]:
    """What every group says of its maker."""
    return {"inference_library": "hlik", "inference_library_version": __version__}


class Packer:
    """Arrays with the dims and coords of a model's variables."""

    def __init__(self, model: HierarchicalModel):
        self.model = model

    def array(self, variable: Variable, values: np.ndarray, leading: tuple[str, ...] = ()) -> xr.DataArray:
        head = values.shape[: len(leading)]
        shape = (
            variable.shape
            if int(np.prod(variable.shape, dtype=int)) == values[..., :].size // max(int(np.prod(head, dtype=int)), 1)
            else variable.unconstrained_shape
        )
        dims = (
            variable.dims
            if len(shape) == len(variable.dims) and shape == variable.shape
            else tuple(f"{variable.value_name}_dim_{k}" for k in range(len(shape)))
        )
        coords = {d: self._coordinate(d, n) for d, n in zip(dims, shape, strict=True)}
        return xr.DataArray(values.reshape(head + shape), dims=leading + dims, coords=coords)

    def _coordinate(self, dim: str, size: int) -> np.ndarray:
        labels = self.model.coords.get(dim)
        return labels if labels is not None and len(labels) == size else np.arange(size)

    def dataset(self, items: dict[str, tuple[Variable, np.ndarray]], leading: tuple[str, ...] = ()) -> xr.Dataset:
        arrays = {name: self.array(variable, values, leading) for name, (variable, values) in items.items()}
        return xr.Dataset(arrays, attrs=attributes())

    def unconstrained(self, reported: list[Reported], field: str) -> xr.Dataset:
        items = {
            r.variable.value_name: (r.variable, getattr(r, field)) for r in reported if r.unconstrained is not None
        }
        return self.dataset(items)

    def constant(self, data: dict[str, tuple[tuple[str, ...], np.ndarray]]) -> xr.Dataset:
        arrays = {
            name: xr.DataArray(
                values, dims=dims, coords={d: self._coordinate(d, n) for d, n in zip(dims, values.shape, strict=True)}
            )
            for name, (dims, values) in data.items()
        }
        return xr.Dataset(arrays, attrs=attributes())
