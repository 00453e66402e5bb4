"""Joint normal densities of random effects, read from the distributions of a graph.

`structure_of` states a distribution in one of two ways, both functions of PyTensor expressions of its parameters:

* `BlockStructure`: a covariance matrix shared by blocks of effects (`pm.MvNormal`, `pm.MvStudentT`);
* `MatrixStructure`: a precision ``Q = sum_k c_k M_k`` of known sparse matrices with coefficients c, an expression, and
  an object for log|Q| (`pm.CAR`, `pm.GaussianRandomWalk`, all of `hlik.distributions`).

To teach hlik another one, register a reader for the Op of its random variable::

    @structure_of.register(MyRV)
    def _(op, rv, walker):
        mean, scale = op.dist_params(rv.owner)
        return MatrixStructure(PrecisionStructure([M]), pt.stack([scale**-2]), mean)

It may look up data with ``walker.value(parameter)``, and returns None where it cannot read the variable.
`hlik.graph.series` has those of areas and series. A subclass of
`hlik.distributions.random_variable.PrecisionNormalRV` needs nothing: its matrices and coefficients are known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
import pytensor.tensor as pt
import scipy.sparse as sp
from pymc.distributions.multivariate import MvStudentTRV
from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.tensor.random.basic import MvNormalRV, StudentTRV

from hlik.block_effects import block_precision
from hlik.determinants import Determinant
from hlik.distributions.random_variable import PrecisionNormalRV
from hlik.distributions.structure import PrecisionStructure
from hlik.graph import forms as fm
from hlik.graph.walk import Walker
from hlik.linalg import LowerPattern
from hlik.precision import Precision, PriorPattern, matrix_precision


@dataclass(frozen=True, eq=False)
class BlockStructure:
    """Blocks of effects, each normal with the same covariance matrix.

    Attributes
    ----------
    covariance
        Expression of shape (k, k).
    blocks
        Numbers of the effects of every block, shape (G, k).
    location
        Mean, broadcast to the variable; None for zero.
    root
        For non-centred effects: the expression L with ``covariance = L L'``.
    scale
        For non-centred effects: the scalar that the variable is multiplied by.
    degrees
        For multivariate t densities: their degrees of freedom; `covariance` then is their scale matrix.
    """

    covariance: Variable
    blocks: np.ndarray
    location: Variable | None = None
    root: Variable | None = None
    scale: Variable | None = None
    degrees: Variable | None = None

    def scaled(self, scale: Variable) -> BlockStructure:
        """The density of ``scale * u``."""
        return replace(self, covariance=scale**2 * self.covariance, scale=scale)

    @property
    def expressions(self) -> tuple[tuple[Variable, int], ...]:
        """What depends on the dispersion parameters, and its number of elements."""
        covariance = (self.covariance, self.blocks.shape[1] ** 2)
        return (covariance,) if self.degrees is None else (covariance, (self.degrees, 1))

    def precision(self, maps: Any) -> Precision:
        """The precision, where `maps` are the expressions as functions of theta."""
        k = self.blocks.shape[1]
        what = "normal with a covariance matrix" if self.degrees is None else "t with a scale matrix"
        return block_precision(maps[0], self.blocks, f"{what}, {self.blocks.shape[0]} blocks of {k}")


@dataclass(frozen=True, eq=False)
class MatrixStructure:
    """One normal vector, or several of the same law, by precision matrices.

    Attributes
    ----------
    matrices
        The M_k, and log|Q| as a function of the coefficients: see `hlik.determinants.Determinant`.
    coefficients
        Expression of shape (K,).
    location
        Mean, broadcast to the variable; None for zero.
    count
        Number of vectors.
    scale
        For non-centred effects: the scalar that the variable is multiplied by.
    determinant
        log|Q|, where it is not that of `matrices`.
    """

    matrices: PrecisionStructure
    coefficients: Variable
    location: Variable | None = None
    count: int = 1
    scale: Variable | None = None
    determinant: Determinant | None = None

    def scaled(self, scale: Variable) -> MatrixStructure:
        """The density of ``scale * u``."""
        return replace(self, coefficients=self.coefficients / scale**2, scale=scale)

    @property
    def expressions(self) -> tuple[tuple[Variable, int], ...]:
        """What depends on the dispersion parameters, and its number of elements."""
        return ((self.coefficients, self.matrices.n_coefficients),)

    def precision(self, maps: Any) -> Precision:
        """The precision, where `maps` are the expressions as functions of theta."""
        pattern, values = self.matrices.pattern, np.asarray(self.matrices.values)
        columns = sp.csc_array(values.T)
        determinant = self.determinant or self.matrices
        what = "normal with a sparse precision matrix"
        if self.count == 1:
            return matrix_precision(pattern, columns, maps[0], determinant, what)
        several = PriorPattern.of([pattern.size] * self.count, [pattern] * self.count).matrix
        assert several is not None
        whole = LowerPattern(several.indptr.astype(np.int64), several.indices.astype(np.int32))
        tiled = sp.csc_array(sp.vstack([columns] * self.count))
        return matrix_precision(whole, tiled, maps[0], _Several(determinant, self.count), what)


@dataclass(frozen=True, eq=False)
class _Several:
    """log|Q| of `count` equal blocks."""

    inner: Determinant
    count: int

    def logdet(self, coefficients: np.ndarray) -> float:
        return self.count * self.inner.logdet(coefficients)

    def logdet_gradient(self, coefficients: np.ndarray) -> np.ndarray:
        return self.count * self.inner.logdet_gradient(coefficients)


MAX_STUDENT = 2000  # effects of one multivariate t density, whose curvature is dense

Structure = BlockStructure | MatrixStructure


def structure(walker: Walker, rv: Variable) -> Structure | None:
    """The joint normal density of a free variable, None where it has none; read once."""
    name = walker.free[rv]
    if name not in walker.structures:
        walker.structures[name] = structure_of(rv.owner.op, rv, walker)
    return walker.structures[name]


@singledispatch
def structure_of(op: Op, rv: Variable, walker: Walker) -> Structure | None:
    """How `op` reads as a joint normal density; None for one that is not."""
    return None


@structure_of.register(MvNormalRV)
def _(op: Op, rv: Variable, walker: Walker) -> Structure | None:
    mean, covariance = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    shape = walker.shape(rv)
    own = fm.shape_of(walker.form(covariance))
    k = shape[-1]
    if own is not None and int(np.prod(own, dtype=int)) != k * k:
        return None  # one covariance matrix for every block
    blocks = np.arange(int(np.prod(shape, dtype=int))).reshape(-1, k)
    return BlockStructure(pt.reshape(covariance, (k, k)), blocks, mean)


@structure_of.register(MvStudentTRV)
def _(op: Op, rv: Variable, walker: Walker) -> Structure | None:
    degrees, mean, scale = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    shape = walker.shape(rv)
    k, own, single = shape[-1], fm.shape_of(walker.form(scale)), fm.shape_of(walker.form(degrees))
    if k > MAX_STUDENT or (own is not None and int(np.prod(own, dtype=int)) != k * k):
        return None
    if single is None or int(np.prod(single, dtype=int)) != 1:
        return None
    blocks = np.arange(int(np.prod(shape, dtype=int))).reshape(-1, k)
    return BlockStructure(pt.reshape(scale, (k, k)), blocks, mean, degrees=pt.reshape(degrees, ()))


@structure_of.register(StudentTRV)
def _(op: Op, rv: Variable, walker: Walker) -> Structure | None:
    """Blocks of one effect: the densities of `pm.MvStudentT` have a closed form, and those of one effect with them."""
    degrees, mean, scale = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    for parameter in (degrees, scale):
        own = fm.shape_of(walker.form(parameter))
        if own is None or int(np.prod(own, dtype=int)) != 1:
            return None  # one density for every level
    blocks = np.arange(int(np.prod(walker.shape(rv), dtype=int)))[:, None]
    return BlockStructure(pt.reshape(scale**2, (1, 1)), blocks, mean, degrees=pt.reshape(degrees, ()))


@structure_of.register(PrecisionNormalRV)
def _(op: PrecisionNormalRV, rv: Variable, walker: Walker) -> Structure:
    mean, coefficients = op.dist_params(rv.owner)
    count = int(np.prod(walker.shape(rv)[:-1], dtype=int))
    return MatrixStructure(op.structure, pt.reshape(coefficients, (op.structure.n_coefficients,)), mean, count)
