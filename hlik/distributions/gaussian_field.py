"""Gaussian Markov random fields: a normal vector by its sparse precision matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytensor.tensor as pt
import scipy.sparse as sp
from pytensor.tensor.variable import TensorVariable

from hlik.distributions.random_variable import PrecisionNormal, PrecisionNormalRV, random_variable
from hlik.distributions.structure import PrecisionStructure
from hlik.errors import ModelError


class GMRFRV(PrecisionNormalRV):
    """The random-variable Op of `GMRF`."""

    name = "gmrf"
    _print_name = ("GMRF", "\\operatorname{GMRF}")


class GMRF(PrecisionNormal):
    r"""A Gaussian Markov random field, ``v ~ N(mu, Q^-1)`` with ``Q = sum_k c_k M_k``.

    Parameters
    ----------
    matrices
        Known symmetric matrices M_k of shape (n, n), SciPy sparse or dense: a sequence, or one matrix.
    coefficients
        As many scalars c_k, numbers or functions of parameters; a scalar for one matrix. Q must be positive definite.
    mu
        Mean, a scalar or a vector.

    Raises
    ------
    ModelError
        Where a matrix is not square, symmetric and finite, shapes differ, or there are not as many coefficients.

    Notes
    -----
    The log density costs K multiplications by sparse matrices and log|Q|, by a sparse Cholesky factor whose
    ordering is found once; its gradient ``tr(Q^-1 M_k)`` comes from the inverse on the pattern of Q.

    References
    ----------
    Rue, H. & Held, L. (2005). Gaussian Markov Random Fields: Theory and Applications. Chapman & Hall.

    Examples
    --------
    A Matern field by finite elements has ``Q = kappa^4 C + 2 kappa^2 G + G C^-1 G``; here ``Q = c_0 I + c_1 L`` with
    L the Laplacian of three areas in a row:

    >>> import numpy as np, pymc as pm, scipy.sparse as sp
    >>> from hlik.distributions import GMRF
    >>> L = sp.diags_array([[-1.0, -1.0], [1.0, 2.0, 1.0], [-1.0, -1.0]], offsets=[-1, 0, 1])
    >>> with pm.Model() as model:
    ...     c = pm.HalfNormal("c", 1, shape=2)
    ...     v = GMRF("v", matrices=[sp.eye_array(3), L], coefficients=[c[0], c[1]])
    >>> float(pm.logp(GMRF.dist([np.eye(3), L], [1.0, 2.0]), np.ones(3)).eval().round(6))  # |I + 2 L| = 21
    -2.734554
    """

    rv_type = GMRFRV
    rv_op = staticmethod(random_variable)

    @classmethod
    def dist(cls, matrices: Any, coefficients: Any, mu: Any = 0.0, **kwargs: Any) -> TensorVariable:
        """An unnamed random variable; see the class."""
        single = sp.issparse(matrices) or getattr(matrices, "ndim", 0) == 2
        several = [matrices] if single else list(matrices)
        scalars = _scalars(coefficients, len(several))
        structure = PrecisionStructure(several, domain="Q = sum_k c_k M_k must be positive definite")
        return cls.of(GMRFRV(structure), mu, scalars, **kwargs)


def _scalars(coefficients: Any, count: int) -> Sequence[Any]:
    """As many scalars as there are matrices, from a sequence, a vector or a single scalar."""
    if isinstance(coefficients, list | tuple):
        found = list(coefficients)
    else:
        vector = pt.atleast_1d(pt.as_tensor(coefficients))
        if vector.type.shape[0] is None:
            raise ModelError("GMRF: pass coefficients as a list of scalars.")
        found = [vector[k] for k in range(vector.type.shape[0])]
    if len(found) != count:
        raise ModelError(f"GMRF: {count} matrices need as many coefficients; got {len(found)}.")
    return found
