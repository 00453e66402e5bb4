"""The maximum of an importance-sampled likelihood, by SciPy's trust region, and its Monte Carlo error."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from hlik.importance import Derivatives, ImportanceLikelihood

FAILED = 1e100  # stands for minus l where a block has no weight left
ENOUGH = 4096  # draws that make the Hessians of the search
FLAT = 1e-8  # of the largest curvature: what is smaller is called flat
PLENTY = 32_768  # draws that make the last one: standard errors need not have the precision of the estimates


@dataclass(frozen=True, eq=False)
class Maximum:
    """Where the search ended.

    Attributes
    ----------
    psi
        (beta, theta).
    value
        l there.
    derivatives
        Of l there.
    hessian
        Second derivatives of l.
    covariance
        Inverse of minus the Hessian, NaN for parameters that are not active and where it is not positive definite.
    value_mcse
        Monte Carlo standard error of l.
    mcse
        Monte Carlo covariance of psi, ``J^-1 var(l') J^-1``.
    bias
        Of psi, by the second-order term of the ratios of means: it falls with the number of draws, mcse with its root.
    decrement
        Length of the next Newton step in standard errors.
    moved
        Length of the way from the start, in standard errors.
    """

    psi: np.ndarray
    value: float
    value_mcse: float
    derivatives: Derivatives
    hessian: np.ndarray
    covariance: np.ndarray
    mcse: np.ndarray
    bias: np.ndarray
    decrement: float
    moved: float

    def share(self) -> np.ndarray:
        """Monte Carlo error of every parameter, bias included, as a part of its standard error; NaN without one."""
        error = np.sqrt(np.diag(self.mcse) + self.bias**2)
        return error / np.sqrt(np.diag(self.covariance))

    def without_error(self) -> Maximum:
        """The same where the weights have no mean, and the estimate no Monte Carlo error that could be stated."""
        return replace(self, mcse=np.full_like(self.mcse, np.nan), value_mcse=np.nan)


def maximise(
    likelihood: ImportanceLikelihood,
    psi: np.ndarray,
    covariance: np.ndarray,
    active: np.ndarray,
    *,
    tol: float,
    radius: float = 1.0,
    max_radius: float = 10.0,
    reach: float = np.inf,
    max_iterations: int = 100,
) -> Maximum:
    """Maximum of l over the active elements of psi.

    Parameters
    ----------
    covariance
        Metric of the search, (p + r, p + r): steps are measured in its standard errors.
    tol
        Length of the gradient at which the search ends, in standard errors.
    radius, max_radius
        Trust region at the start, and at most, in standard errors.
    reach
        How far from the start the search may go, in standard errors.
    """
    coarse = likelihood.fewer(-(-ENOUGH // likelihood.n))
    if active.any() and np.isfinite(likelihood.value(psi)):
        active = active & _moves(coarse, psi, covariance)
    root = _root(covariance, active)

    def at(z: np.ndarray) -> np.ndarray:
        return psi + root @ z

    def negative(z: np.ndarray) -> float:
        if np.linalg.norm(z) > reach:
            return FAILED
        value = likelihood.value(at(z))
        return -value if np.isfinite(value) else FAILED

    def slope(z: np.ndarray) -> np.ndarray:
        return -(root.T @ likelihood.derivatives(at(z), hessian=coarse is likelihood).gradient)

    def curvature(z: np.ndarray) -> np.ndarray:
        hessian = coarse.derivatives(at(z)).hessian
        assert hessian is not None
        return -(root.T @ hessian @ root)

    z = np.zeros(int(active.sum()))
    if z.size and np.isfinite(likelihood.value(psi)):
        found = optimize.minimize(
            negative,
            z,
            jac=slope,
            hess=curvature,
            method="trust-exact",
            options={
                "initial_trust_radius": min(radius, max_radius / 2),
                "max_trust_radius": max_radius,
                "gtol": tol,
                "maxiter": max_iterations,
            },
        )
        z = found.x
    return at_maximum(likelihood, at(z), active, moved=float(np.linalg.norm(z)))


def _moves(likelihood: ImportanceLikelihood, psi: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Whether l changes with each element of psi at all: the search leaves the others where they are."""
    found = likelihood.derivatives(psi)
    assert found.hessian is not None
    variance = np.diag(covariance)
    scale = np.sqrt(np.where(np.isfinite(variance) & (variance > 0), variance, 1.0))
    slope = np.abs(found.gradient) * scale
    curvature = np.abs(found.hessian * scale[:, None] * scale).max(axis=1)
    return (slope > FLAT * max(slope.max(), 1.0)) | (curvature > FLAT * curvature.max())


def flat_direction(maximum: Maximum, active: np.ndarray) -> int | None:
    """The element of psi that stands out where l is flat: minus the Hessian is singular there; None where it is not."""
    hessian = maximum.hessian[np.ix_(active, active)]
    scale = np.sqrt(np.abs(np.diag(hessian)))
    places = np.flatnonzero(active)
    if np.any(scale <= FLAT * scale.max(initial=1e-300)):
        return int(places[np.argmin(scale)])
    values, vectors = np.linalg.eigh(-hessian / np.outer(scale, scale))
    if values.size and abs(values[0]) < FLAT * values[-1]:
        return int(places[np.argmax(np.abs(vectors[:, 0]))])
    return None


def at_maximum(likelihood: ImportanceLikelihood, psi: np.ndarray, active: np.ndarray, moved: float = 0.0) -> Maximum:
    """What is to be said of a point: covariance, Monte Carlo error, Newton step."""
    some = likelihood.fewer(-(-PLENTY // likelihood.n))
    derivatives = likelihood.derivatives(psi, hessian=some is likelihood)
    hessian = some.derivatives(psi).hessian if derivatives.hessian is None else derivatives.hessian
    assert hessian is not None
    covariance = np.full(hessian.shape, np.nan)
    mcse, bias, decrement = covariance.copy(), np.full(psi.size, np.nan), np.nan
    part = np.ix_(active, active)
    inverse = _inverse(-hessian[part])
    if inverse is not None:
        covariance[part] = inverse
        mcse[part] = inverse @ derivatives.gradient_covariance()[part] @ inverse
        bias[active] = inverse @ derivatives.bias[active]
        gradient = derivatives.gradient[active]
        decrement = float(np.sqrt(gradient @ inverse @ gradient))
    value, value_mcse = likelihood.value(psi), derivatives.value_mcse()
    return Maximum(psi, value, value_mcse, derivatives, hessian, covariance, mcse, bias, decrement, moved)


def _inverse(matrix: np.ndarray) -> np.ndarray | None:
    """The inverse of a positive definite matrix; None of another."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return None
    return np.linalg.inv(matrix)


def _root(covariance: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Columns that move the active elements by one standard error each, shape (p + r, active)."""
    root = np.zeros((active.size, int(active.sum())))
    part = np.where(np.isfinite(covariance), covariance, 0.0)[np.ix_(active, active)]
    diagonal = np.diag(part)
    part = part + np.diag(np.where(diagonal > 0, 0.0, 1.0))
    try:
        root[active] = np.linalg.cholesky(part)
    except np.linalg.LinAlgError:
        root[active] = np.diag(np.sqrt(np.diag(part)))
    return root
