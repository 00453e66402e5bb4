r"""Double HGLMs as numbers: random effects in the dispersions as well as in the means (Lee & Nelder 2006).

A dispersion phi_i of a response, or lam_j of a random effect, with ``g(phi) = Xd gamma + Zd w`` makes a second linear
predictor. Its rows stand below those of the means in one design, so that (beta, gamma) are the columns of X and (v, w)
those of Z. EQL fits the two halves as two generalised linear mixed models that feed each other
(`hlik.estimators.double_eql`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from hlik.families import Gamma
from hlik.links import Link
from hlik.maps import ConstantMap, ThetaMap
from hlik.model import HierarchicalModel, Parameter, RandomEffect, Response, Variable
from hlik.random_families import RandomFamily


@dataclass(frozen=True, eq=False)
class DispersionPredictor:
    """``g(phi) = eta`` at `rows` of the stacked design, for the response or random effect `name`.

    `family` is that of a random effect, None for a response.
    """

    name: str
    link: Link
    rows: slice
    family: RandomFamily | None = None


@dataclass(frozen=True, eq=False)
class DoubleStructure:
    """The design of means and dispersions.

    Attributes
    ----------
    responses
        The responses with their rows of the means; no dispersion where it has a predictor.
    predictors
        The dispersions with random effects.
    X, Z, offset
        Means of all responses first, then the dispersions in the order of `predictors`.
    n_means
        Rows of the means.
    below
        Names of the parameters and random effects that belong to the dispersions.
    """

    responses: tuple[Response, ...]
    predictors: tuple[DispersionPredictor, ...]
    X: np.ndarray
    Z: sp.csr_array
    offset: np.ndarray
    n_means: int
    below: frozenset[str]


@dataclass(frozen=True, eq=False)
class SelectedMap:
    """A map of theta as a function of some of its elements, the others being of no consequence to it."""

    inner: ThetaMap
    index: np.ndarray
    n_theta: int

    @property
    def size(self) -> int:
        """Number of values m."""
        return self.inner.size

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return self.inner.value(self._full(theta))

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (m, number of elements)."""
        return self.inner.jacobian(self._full(theta))[:, self.index]

    def _full(self, theta: np.ndarray) -> np.ndarray:
        full = np.zeros(self.n_theta)
        full[self.index] = theta
        return full


@dataclass(frozen=True, eq=False)
class Half:
    """One of the two generalised linear mixed models; `beta`, `v`, `theta`: places of its unknowns in the whole."""

    model: HierarchicalModel
    beta: np.ndarray
    v: np.ndarray
    theta: np.ndarray


def halves(model: HierarchicalModel, structure: DoubleStructure) -> tuple[Half, Half]:
    """The model of the means and that of the dispersions.

    Where a dispersion has a predictor the means have none yet (a response), or a constant one (a random effect), and
    the responses of the dispersions are ones: `hlik.estimators.double_eql` puts the numbers in.
    """
    families = {p.name: p.family for p in structure.predictors}
    above = [e for e in model.random_effects if e.name not in structure.below]
    above = [
        replace(e, family=families[e.name], dispersion=ConstantMap(np.ones(1), model.n_theta))
        if e.name in families
        else e
        for e in above
    ]
    below = [e for e in model.random_effects if e.name in structure.below]
    top, bottom = slice(0, structure.n_means), slice(structure.n_means, structure.offset.size)
    return (
        _half(model, structure, False, above, structure.responses, top),
        _half(model, structure, True, below, _dispersion_responses(model, structure), bottom),
    )


def _half(
    model: HierarchicalModel,
    structure: DoubleStructure,
    is_below: bool,
    effects: Sequence[RandomEffect],
    responses: Sequence[Response],
    rows: slice,
) -> Half:
    parameters = [p for p in model.parameters if (p.name in structure.below) == is_below]
    beta = _places(p.index for p in parameters if p.role == "fixed effect")
    theta = _places(p.index for p in parameters if p.role != "fixed effect")
    v = _places(e.index for e in effects)

    def selected(inner: ThetaMap | None) -> ThetaMap | None:
        return None if inner is None else SelectedMap(inner, theta, model.n_theta)

    own, start = [], 0
    for e in effects:
        own.append(replace(e, index=slice(start, start + e.size), dispersion=selected(e.dispersion), location=None))
        start += e.size
    half = replace(
        model,
        responses=tuple(replace(r, dispersion=selected(r.dispersion)) for r in responses),
        random_effects=tuple(own),
        parameters=_moved(parameters, selected),
        X=np.ascontiguousarray(structure.X[rows][:, beta]),
        Z=sp.csr_array(sp.csc_array(structure.Z[rows])[:, v]),
        offset=structure.offset[rows],
        X_names=tuple(model.X_names[k] for k in beta),
        n_theta=theta.size,
        theta_design=None,
        extra_terms=(),
        double=None,
    )
    return Half(half, beta, v, theta)


def _places(slices: Iterable[slice]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=int), *(np.arange(s.start, s.stop) for s in slices)])


def _moved(parameters: Sequence[Parameter], selected) -> tuple[Parameter, ...]:  # type: ignore[no-untyped-def]
    """The parameters at their places in the half."""
    found, start = [], {True: 0, False: 0}
    for p in parameters:
        is_fixed, size = p.role == "fixed effect", p.index.stop - p.index.start
        index = slice(start[is_fixed], start[is_fixed] + size)
        start[is_fixed] = index.stop
        found.append(replace(p, index=index, natural=selected(p.natural)))
    return tuple(found)


def _dispersion_responses(model: HierarchicalModel, structure: DoubleStructure) -> list[Response]:
    """Gamma responses for the dispersions."""
    found = []
    for predictor in structure.predictors:
        size = predictor.rows.stop - predictor.rows.start
        rows = slice(predictor.rows.start - structure.n_means, predictor.rows.stop - structure.n_means)
        name = f"{predictor.name}_dispersion"
        variable = Variable(name, name, (size,), (f"{name}_dim_0",), (size,))
        one = ConstantMap(np.ones(1), model.n_theta)
        found.append(
            Response(
                variable,
                rows,
                "Gamma",
                np.ones(size),
                np.full(size, 0.5),
                family=Gamma(),
                link=predictor.link,
                dispersion=one,
            )
        )
    return found
