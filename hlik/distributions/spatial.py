"""Spatial distributions of areas with neighbours: CAR and SAR, with the range of their correlation parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
import scipy.sparse as sp
from pytensor.tensor.variable import TensorVariable

from hlik.distributions.random_variable import PrecisionNormal, PrecisionNormalRV, random_variable
from hlik.distributions.structure import SPECTRAL_SIZE, PrecisionStructure, outer_eigenvalues, symmetric
from hlik.errors import ModelError


def rho_range(D: Any) -> tuple[float, float]:
    """The interval of rho in which ``I - rho D`` is positive definite.

    Parameters
    ----------
    D
        Symmetric neighbour matrix, shape (n, n), dense or SciPy sparse.

    Returns
    -------
    tuple of float
        ``(1 / lambda_min, 1 / lambda_max)`` of D's eigenvalues; infinite where D has none of that sign.

    Raises
    ------
    ModelError
        Where D is not square, symmetric and finite.

    Notes
    -----
    Cost: all eigenvalues up to 500 areas, beyond that two sparse factors and Lanczos' method.

    Examples
    --------
    >>> import numpy as np
    >>> from hlik.distributions import rho_range
    >>> path = np.diag(np.ones(2), 1) + np.diag(np.ones(2), -1)  # three areas in a row
    >>> tuple(round(limit, 4) for limit in rho_range(path))
    (-0.7071, 0.7071)
    """
    smallest, largest = outer_eigenvalues(symmetric(D, "D"))
    return (1 / smallest if smallest < 0 else -np.inf), (1 / largest if largest > 0 else np.inf)


def _neighbours(D: Any) -> sp.csc_array:
    matrix = symmetric(D, "D")
    if np.any(matrix.diagonal() != 0):
        raise ModelError("D must have zeros on its diagonal: no area is its own neighbour.")
    return matrix


def _domain(D: sp.csc_array) -> str:
    text = "tau must be positive and I - rho D positive definite"
    if D.shape[0] > SPECTRAL_SIZE:
        return text + ": rho within hlik.distributions.rho_range(D)"
    low, high = rho_range(D)
    return f"{text}: rho between {low:.6g} and {high:.6g}"


class CARRV(PrecisionNormalRV):
    """The random-variable Op of `CAR`."""

    name = "hlik_car"
    _print_name = ("CAR", "\\operatorname{CAR}")


class SARRV(PrecisionNormalRV):
    """The random-variable Op of `SAR`."""

    name = "hlik_sar"
    _print_name = ("SAR", "\\operatorname{SAR}")


class CAR(PrecisionNormal):
    r"""Conditional autoregression, ``v ~ N(mu, tau (I - rho D)^-1)``, as R's hglm defines it.

    Given its neighbours an area has mean ``mu_i + rho sum_j D_ij (v_j - mu_j)`` and variance tau.

    Parameters
    ----------
    D
        Symmetric neighbour matrix with a zero diagonal, shape (n, n): dense or SciPy sparse, of 0 and 1 or any
        weights. It is data.
    rho
        Correlation parameter, a scalar in `rho_range`, ``(1 / lambda_min, 1 / lambda_max)`` of D's eigenvalues:
        give it a prior there, as ``pm.Uniform("rho", *hlik.distributions.rho_range(D))``.
    tau
        Conditional variance, a positive scalar.
    mu
        Mean, a scalar or a vector.

    Raises
    ------
    ModelError
        Where D is not square, symmetric and finite, or its diagonal is not zero.

    Notes
    -----
    PyMC's `pm.CAR` has another precision, ``tau (diag(D 1) - alpha D)``, which gives areas with many neighbours less
    variance and has no other range of alpha than (-1, 1).

    The log density costs a multiplication by D and log|I - rho D|, by D's eigenvalues up to 500 areas and by a
    sparse Cholesky factor (with the inverse on its pattern for the gradient) beyond. Draws cost one factor.

    References
    ----------
    Besag, J. (1974). Spatial interaction and the statistical analysis of lattice systems. JRSS B 36, 192-236.
    Alam, M., Ronnegard, L. & Shen, X. (2015). Fitting conditional and simultaneous autoregressive spatial models
    in hglm. The R Journal 7/2, 5-18.

    Examples
    --------
    >>> import numpy as np, pymc as pm
    >>> from hlik.distributions import CAR, rho_range
    >>> D = np.diag(np.ones(2), 1) + np.diag(np.ones(2), -1)
    >>> with pm.Model() as model:
    ...     rho, tau = pm.Uniform("rho", *rho_range(D)), pm.HalfNormal("tau", 1)
    ...     v = CAR("v", D=D, rho=rho, tau=tau)
    >>> float(pm.logp(CAR.dist(D=D, rho=0.5, tau=2.0), np.zeros(3)).eval().round(6))
    -4.14311
    """

    rv_type = CARRV
    rv_op = staticmethod(random_variable)

    @classmethod
    def dist(cls, D: Any, rho: Any, tau: Any, mu: Any = 0.0, **kwargs: Any) -> TensorVariable:
        """An unnamed random variable; see the class."""
        D, rho, tau = _neighbours(D), pt.as_tensor(rho), pt.as_tensor(tau)
        structure = PrecisionStructure([sp.eye_array(D.shape[0]), D], polynomial_of=D, domain=_domain(D))
        return cls.of(CARRV(structure), mu, [1.0 / tau, -rho / tau], **kwargs)


class SAR(PrecisionNormal):
    r"""Simultaneous autoregression, ``v ~ N(mu, tau (I - rho D)^-1 (I - rho D)^-T)``.

    It solves ``v - mu = rho D (v - mu) + e`` with independent ``e ~ N(0, tau)``.

    Parameters
    ----------
    D
        Symmetric neighbour matrix with a zero diagonal, shape (n, n): dense or SciPy sparse. It is data.
    rho
        Correlation parameter, a scalar in `rho_range`: beyond it ``I - rho D`` is singular somewhere on the way.
    tau
        Variance of e, a positive scalar.
    mu
        Mean, a scalar or a vector.

    Raises
    ------
    ModelError
        As `CAR`.

    Notes
    -----
    The precision is ``(I - 2 rho D + rho^2 D^2) / tau``; D^2 joins areas with a common neighbour. Costs as `CAR`.

    References
    ----------
    Whittle, P. (1954). On stationary processes in the plane. Biometrika 41, 434-449.

    Examples
    --------
    >>> import numpy as np, pymc as pm
    >>> from hlik.distributions import SAR
    >>> D = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> draws = pm.draw(SAR.dist(D=D, rho=0.5, tau=1.0), 20_000, random_seed=1)
    >>> np.cov(draws.T).round(1)  # (I - D/2)^-2 = [20, 16; 16, 20] / 9
    array([[2.2, 1.8],
           [1.8, 2.2]])
    """

    rv_type = SARRV
    rv_op = staticmethod(random_variable)

    @classmethod
    def dist(cls, D: Any, rho: Any, tau: Any, mu: Any = 0.0, **kwargs: Any) -> TensorVariable:
        """An unnamed random variable; see the class."""
        D, rho, tau = _neighbours(D), pt.as_tensor(rho), pt.as_tensor(tau)
        matrices = [sp.eye_array(D.shape[0]), D, D @ D]
        structure = PrecisionStructure(matrices, polynomial_of=D, within_range_of=D, domain=_domain(D))
        return cls.of(SARRV(structure), mu, [1.0 / tau, -2.0 * rho / tau, rho**2 / tau], **kwargs)
