"""Normal vectors given by a sparse precision: what the distributions of this package share.

PyMC finds the log density and the first guess of a distribution by the type of its Op (`_logprob` and
`_support_point`, PyMC's way to teach it one whose Op holds data).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor.sparse as ps
import pytensor.tensor as pt
import scipy.sparse as sp
from pymc.distributions.dist_math import check_parameters
from pymc.distributions.distribution import _support_point
from pymc.logprob.abstract import _logprob
from pytensor.graph.basic import Variable
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.variable import TensorVariable

from hlik.distributions.operators import LogDeterminant
from hlik.distributions.structure import PrecisionStructure
from hlik.errors import ModelError

LOG_2PI = float(np.log(2 * np.pi))
DENSE_SHARE = 0.3  # part of a matrix's entries above which it is multiplied as a dense one


class PrecisionNormalRV(RandomVariable):
    """``N(mu, Q(c)^-1)``; parameters mu, shape (n,), and c, shape (K,); ``Q(c) = sum_k c_k M_k``.

    Attributes
    ----------
    structure
        The matrices M_k.
    """

    name = "precision_normal"
    signature = "(n),(k)->(n)"
    dtype = "floatX"
    __props__ = (*RandomVariable.__props__, "structure")  # type: ignore[assignment]
    _print_name = ("PrecisionNormal", "\\operatorname{PrecisionNormal}")

    def __init__(self, structure: PrecisionStructure, **kwargs: Any):
        self.structure = structure
        super().__init__(**kwargs)

    def rng_fn(self, rng: np.random.Generator, *args: Any) -> np.ndarray:
        """Draws of shape size + (n,)."""
        mu, coefficients, size = args
        shape = mu.shape[:-1] if size is None else tuple(size)
        n = self.structure.size
        count = int(np.prod(shape, dtype=int))
        draws = self.structure.sample(np.ravel(coefficients)[: self.structure.n_coefficients], rng, count)
        return draws.reshape((*shape, n)) + mu


@_logprob.register(PrecisionNormalRV)
def _(op: PrecisionNormalRV, values: Sequence[Variable], rng: Any, size: Any, mu: Any, c: Any, **kwargs: Any) -> Any:
    """``1/2 log|Q| - n/2 log 2 pi - 1/2 (x - mu)' Q (x - mu)``."""
    (value,) = values
    structure = op.structure
    c = pt.squeeze(c, axis=tuple(range(c.ndim - 1)))
    delta = value - mu
    forms = pt.stack([pt.sum(delta * _product(matrix, delta), axis=-1) for matrix in structure.matrices], axis=-1)
    logdet = logdet_graph(structure, c)
    density = 0.5 * (logdet - structure.size * LOG_2PI - pt.sum(forms * c, axis=-1))
    return check_parameters(density, pt.gt(logdet, -np.inf), msg=structure.domain)


@_support_point.register(PrecisionNormalRV)
def _(op: PrecisionNormalRV, rv: TensorVariable, rng: Any, size: Any, mu: Any, c: Any) -> TensorVariable:
    return pt.full_like(rv, mu)


def _product(matrix: Any, delta: TensorVariable) -> TensorVariable:
    """``M delta`` along the last axis."""
    if matrix.nnz == matrix.shape[0] and not np.any(matrix.diagonal() == 0):
        return delta * matrix.diagonal()
    if matrix.nnz > DENSE_SHARE * matrix.shape[0] ** 2:
        return pt.dot(delta, matrix.toarray())
    columns = delta[:, None] if delta.ndim == 1 else delta.reshape((-1, matrix.shape[0])).T
    return ps.structured_dot(ps.as_sparse_variable(sp.csc_matrix(matrix)), columns).T.reshape(delta.shape)


def logdet_graph(structure: PrecisionStructure, c: TensorVariable) -> TensorVariable:
    """``log|Q(c)|``, -inf where Q(c) is not positive definite."""
    if structure.n_coefficients == 1:
        return pt.switch(c[0] > 0, structure.size * pt.log(pt.abs(c[0])) + structure.single_logdet, -np.inf)
    eigenvalues = structure.eigenvalues
    if eigenvalues is None:
        return LogDeterminant(structure)(c)  # type: ignore[return-value]
    found = pt.dot(c, np.hstack([eigenvalues, structure.positive]))
    n = structure.size
    return pt.switch(pt.all(found > 0), pt.sum(pt.log(pt.abs(found[:n]))), -np.inf)


def random_variable(op: PrecisionNormalRV, mu: Any, coefficients: Any, **kwargs: Any) -> TensorVariable:
    """A random variable of the given Op: what PyMC calls, where its own distributions name their Op."""
    return op(mu, coefficients, **kwargs)


class PrecisionNormal(pm.Continuous):
    """Base of the distributions with a sparse precision: their names are the arguments' only difference."""

    rv_type = PrecisionNormalRV

    rv_op = staticmethod(random_variable)

    @classmethod
    def of(cls, op: PrecisionNormalRV, mu: Any, coefficients: Sequence[Any], **kwargs: Any) -> TensorVariable:
        """A random variable with these coefficients; mu is a scalar or a vector."""
        n = op.structure.size
        mean = pt.as_tensor(mu)
        if mean.ndim > 1:
            raise ModelError(f"{cls.__name__}: mu must be a scalar or a vector of {n} elements.")
        mean = pt.as_tensor(np.zeros(n)) if _is_zero(mu) else mean + np.zeros(n)
        scalars = [pt.as_tensor(c) for c in coefficients]
        if any(c.ndim for c in scalars):
            raise ModelError(f"{cls.__name__}: parameters other than mu must be scalars.")
        return super().dist([op, mean, pt.stack([c.astype("float64") for c in scalars])], **kwargs)


def _is_zero(mu: Any) -> bool:
    return isinstance(mu, int | float) and mu == 0
