"""Areas and series: PyMC's CAR, ICAR, random walks and autoregressions as precision matrices."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
import scipy.sparse as sp
from pymc.distributions.multivariate import CARRV, ICARRV
from pymc.distributions.timeseries import AutoRegressiveRV, RandomWalkRV
from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.tensor.random.basic import NormalRV

from hlik.determinants import IntrinsicDeterminant
from hlik.distributions.structure import PrecisionStructure
from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.numeric import known_value
from hlik.graph.structures import MatrixStructure, structure_of
from hlik.graph.walk import Walker

MAX_INTRINSIC = 3000  # areas of an ICAR: its sum-to-zero constraint makes the precision dense


@structure_of.register(CARRV)
def _(op: Op, rv: Variable, walker: Walker) -> MatrixStructure:
    """``Q = tau (diag(W 1) - alpha W)``."""
    mean, W, alpha, tau, *_ = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    borders = _borders(walker, W)
    tau, alpha = _scalar(tau), _scalar(alpha)
    matrices = PrecisionStructure(
        [sp.diags_array(np.asarray(borders.sum(axis=0)).ravel()), borders],
        domain="tau must be positive and alpha between -1 and 1",
    )
    count = int(np.prod(walker.shape(rv)[:-1], dtype=int))
    return MatrixStructure(matrices, pt.stack([tau, -alpha * tau]), mean, count)


@structure_of.register(ICARRV)
def _(op: Op, rv: Variable, walker: Walker) -> MatrixStructure:
    """``Q = L / sigma^2 + 11' / (s n)^2``, L the Laplacian: the second part holds the sum near zero.

    PyMC's log density leaves ``-(n - C) log sigma`` out, C the number of components of the graph. Here it is in, as in
    any density: without it no sigma could be estimated.
    """
    W, sigma, deviation = op.dist_params(rv.owner)  # type: ignore[attr-defined]
    borders = _borders(walker, W)
    n = borders.shape[0]
    if n > MAX_INTRINSIC:
        raise ModelError(
            f"pm.ICAR {rv.name!r} has {n} areas; hlik takes up to {MAX_INTRINSIC}, as its sum-to-zero constraint makes "
            f"the precision dense. Use hlik.distributions.CAR or pm.CAR, which stay sparse."
        )
    laplacian = sp.csc_array(sp.diags_array(np.asarray(borders.sum(axis=0)).ravel()) - borders)
    matrices = PrecisionStructure([laplacian, np.ones((n, n))])
    coefficients = pt.stack([_scalar(sigma) ** -2.0, (_scalar(deviation) * float(n)) ** -2.0])
    count = int(np.prod(walker.shape(rv)[:-1], dtype=int))
    return MatrixStructure(matrices, coefficients, None, count, determinant=IntrinsicDeterminant(laplacian))


def _borders(walker: Walker, W: Variable) -> sp.csc_array:
    """A neighbour matrix, which is data, dense or sparse."""
    found = known_value(W)
    return sp.csc_array(walker.value(W) if found is None else found, dtype=float)


def _scalar(expression: Variable) -> Variable:
    return pt.reshape(expression, ())


@structure_of.register(RandomWalkRV)
def _(op: Op, rv: Variable, walker: Walker) -> MatrixStructure | None:
    """``Q = e_0 e_0' / sigma_0^2 + D'D / sigma^2`` with normal steps; without the first part for a flat start."""
    first, steps, *_ = rv.owner.inputs
    shape = walker.shape(rv)
    drift, start = _normal(walker, steps), _normal(walker, first)
    if drift is None or len(shape) == 0:
        return None
    n = shape[-1]
    difference = sp.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    walk = sp.csc_array(difference.T @ difference)
    mean, deviation = drift
    location = mean * pt.arange(n).astype("float64")
    count = int(np.prod(shape[:-1], dtype=int))
    if type(first.owner.op).__name__ == "FlatRV":
        coefficients = pt.stack([deviation**-2.0])
        determinant = IntrinsicDeterminant(walk)
        return MatrixStructure(PrecisionStructure([walk]), coefficients, location, count, determinant=determinant)
    if start is None:
        return None
    coefficients = pt.stack([start[1] ** -2.0, deviation**-2.0])
    return MatrixStructure(PrecisionStructure([_corner(n, 1), walk]), coefficients, start[0] + location, count)


@structure_of.register(AutoRegressiveRV)
def _(op: AutoRegressiveRV, rv: Variable, walker: Walker) -> MatrixStructure | None:
    """``Q = E_0 / sigma_0^2 + sum_t a_t a_t' / sigma^2``, ``a_t' v = v_t - sum_i rho_i v_{t-i}``."""
    rho, sigma, first, *_ = rv.owner.inputs
    p, shape, start = op.ar_order, walker.shape(rv), _normal(walker, first)
    own = fm.shape_of(walker.form(rho))
    single = own is not None and int(np.prod(own, dtype=int)) == p and _size(walker, sigma) == 1
    if op.constant_term or not single or start is None or not _vanishes(walker, start[0]):
        return None
    n = shape[-1]
    rho = pt.reshape(rho, (p,))
    weights = [pt.as_tensor(1.0), *(-rho[i] for i in range(p))]
    matrices, coefficients = [_corner(n, p)], [start[1] ** -2.0]
    for i in range(p + 1):
        for j in range(i + 1):
            matrices.append(_lagged(n, p, i, j))
            coefficients.append(weights[i] * weights[j] * _scalar(sigma) ** -2.0)
    count = int(np.prod(shape[:-1], dtype=int))
    return MatrixStructure(PrecisionStructure(matrices), pt.stack(coefficients), None, count)


def _normal(walker: Walker, rv: Variable) -> tuple[Variable, Variable] | None:
    """Mean and standard deviation of an unnamed normal variable that is the same everywhere; None for others."""
    if rv.owner is None or not isinstance(rv.owner.op, NormalRV):
        return None
    parameters = rv.owner.op.dist_params(rv.owner)
    if any(_size(walker, parameter) != 1 for parameter in parameters):
        return None
    mean, deviation = parameters
    return _scalar(mean), _scalar(deviation)


def _size(walker: Walker, expression: Variable) -> int | None:
    shape = fm.shape_of(walker.form(expression))
    return None if shape is None else int(np.prod(shape, dtype=int))


def _vanishes(walker: Walker, expression: Variable) -> bool:
    form = walker.form(expression)
    return fm.is_constant(form) and not np.any(np.asarray(form))


def _corner(n: int, p: int) -> sp.csc_array:
    """The diagonal matrix of the first p of n elements."""
    return sp.csc_array(sp.diags_array((np.arange(n) < p).astype(float)))


def _lagged(n: int, p: int, i: int, j: int) -> sp.csc_array:
    """``sum_t e_{t-i} e_{t-j}'`` over t = p ... n - 1, and its transpose where i and j differ."""
    t = np.arange(p, n)
    one = sp.csc_array(sp.coo_array((np.ones(t.size), (t - i, t - j)), shape=(n, n)))
    return one if i == j else sp.csc_array(one + one.T)
