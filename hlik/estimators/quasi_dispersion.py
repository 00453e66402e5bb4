"""Quasi-dispersions: a free phi for responses whose family has none (Binomial, Bernoulli, Poisson).

hglm estimates one by default. The extended model has one more parameter, ``<response>_dispersion``: phi itself,
or, where covariates are given, the coefficients of log phi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hlik.block_effects import BlockRoot
from hlik.errors import ModelError
from hlik.links import LINKS
from hlik.maps import LinkMap, ThetaMap
from hlik.model import HierarchicalModel, Parameter, Response, Variable
from hlik.precision import Precision


@dataclass(frozen=True, eq=False)
class PaddedMap:
    """A map of the first ``inner_size`` elements of a longer theta."""

    inner: ThetaMap
    inner_size: int
    n_theta: int

    @property
    def size(self) -> int:
        """Number of values m."""
        return self.inner.size

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return self.inner.value(theta[: self.inner_size])

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (m, r); zero for the padding."""
        inner = self.inner.jacobian(theta[: self.inner_size])
        return np.hstack([inner, np.zeros((inner.shape[0], self.n_theta - self.inner_size))])


def with_quasi_dispersion(model: HierarchicalModel, setting: str | Mapping[str, Any]) -> HierarchicalModel:
    """The model with the quasi-dispersions that ``EQL(dispersion=...)`` asks for; itself where there are none."""
    designs = _designs(model, setting)
    if not designs:
        return model
    n_theta = model.n_theta + sum(design.shape[1] for design in designs.values())
    start = model.n_theta
    responses, parameters = [], [_padded_parameter(p, model.n_theta, n_theta) for p in model.parameters]
    for response in model.responses:
        if response.name in designs:
            index = slice(start, start + designs[response.name].shape[1])
            start = index.stop
            response, parameter = _with_dispersion(response, designs[response.name], index, n_theta)
            parameters.append(parameter)
        elif response.dispersion is not None:
            response = replace(response, dispersion=PaddedMap(response.dispersion, model.n_theta, n_theta))
        responses.append(response)
    effects = tuple(
        replace(
            effect,
            dispersion=_padded(effect.dispersion, model.n_theta, n_theta),
            scale_map=_padded(effect.scale_map, model.n_theta, n_theta),
            precision=_padded_precision(effect.precision, model.n_theta, n_theta),
            root=_padded_root(effect.root, model.n_theta, n_theta),
        )
        for effect in model.random_effects
    )
    return replace(
        model,
        responses=tuple(responses),
        random_effects=effects,
        parameters=tuple(parameters),
        n_theta=n_theta,
    )


def _padded(inner: ThetaMap | None, size: int, n_theta: int) -> ThetaMap | None:
    return None if inner is None else PaddedMap(inner, size, n_theta)


def _padded_precision(precision: Precision | None, size: int, n_theta: int) -> Precision | None:
    if precision is None:
        return None
    variances = tuple((PaddedMap(found, size, n_theta), members) for found, members in precision.variances)
    coefficients = PaddedMap(precision.coefficients, size, n_theta)
    return replace(precision, coefficients=coefficients, variances=variances, _last=[])


def _padded_root(root: BlockRoot | None, size: int, n_theta: int) -> BlockRoot | None:
    return None if root is None else replace(root, matrix=PaddedMap(root.matrix, size, n_theta))


def _designs(model: HierarchicalModel, setting: str | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The matrix of log phi for every response that gets a quasi-dispersion."""
    if setting == "model":
        return {}
    without = {r.name: r for r in model.responses if r.family is not None and not r.family.has_dispersion}
    if setting == "estimate":
        return {name: np.ones((1, 1)) for name in without}
    assert isinstance(setting, Mapping)
    designs = {}
    for name, value in setting.items():
        if name not in {r.name for r in model.responses}:
            raise ModelError(
                f"EQL(dispersion=...) names {name!r}; the responses are {[r.name for r in model.responses]}."
            )
        if isinstance(value, str):
            if value not in ("model", "estimate"):
                raise ModelError(f"EQL(dispersion={{{name!r}: {value!r}}}): expected 'model', 'estimate' or a matrix.")
            if value == "estimate" and name in without:
                designs[name] = np.ones((1, 1))
            continue
        if name not in without:
            raise ModelError(
                f"EQL(dispersion=...): {name!r} has a dispersion of its own; state its model in the graph."
            )
        design = np.asarray(value, dtype=float)
        n = without[name].size
        if design.ndim != 2 or design.shape[0] != n or not np.all(np.isfinite(design)):
            raise ModelError(
                f"EQL(dispersion={{{name!r}: ...}}) must be a finite ({n}, k) array, a row an observation; "
                f"got shape {design.shape}."
            )
        designs[name] = design
    return designs


def _with_dispersion(response: Response, design: np.ndarray, index: slice, n_theta: int) -> tuple[Response, Parameter]:
    matrix = np.zeros((design.shape[0], n_theta))
    matrix[:, index] = design
    name = f"{response.name}_dispersion"
    scalar = design.shape == (1, 1)
    shape = () if scalar else (design.shape[1],)
    dims = () if scalar else (f"{name}_dim_0",)
    variable = Variable(name, f"{name}_log__" if scalar else name, shape, dims, shape)
    selector = np.eye(n_theta)[index]
    link = LINKS["log"] if scalar else LINKS["identity"]
    natural = LinkMap(selector, np.zeros(selector.shape[0]), link)
    parameter = Parameter(variable, "dispersion parameter", index, natural)
    return replace(response, dispersion=LinkMap(matrix, np.zeros(design.shape[0]), LINKS["log"])), parameter


def _padded_parameter(parameter: Parameter, inner: int, n_theta: int) -> Parameter:
    if parameter.natural is None:
        return parameter
    return replace(parameter, natural=PaddedMap(parameter.natural, inner, n_theta))
