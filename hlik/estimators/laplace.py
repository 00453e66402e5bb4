r"""Laplace approximation: maximum of p_v(h), or of p_bv(h) for restricted likelihood, with exact gradients."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import optimize

from hlik.errors import ModelError
from hlik.estimators.base import CONVERGED, RUNNING, Estimate
from hlik.estimators.laplace_finish import finish_laplace
from hlik.estimators.laplace_objective import Objective, active_parameters, boundary_terms, differenced_hessian
from hlik.estimators.laplace_start import start_psi
from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel
from hlik.profile import Profile

LOOSE = 1e-3  # standard errors: where rounding ends the line search, Newton's step must be shorter than that
FLAT = 1e-8  # smallest curvature, as a part of the largest, below which the likelihood is called flat


@dataclass(frozen=True)
class Laplace:
    r"""Maximum of the Laplace approximation of the marginal likelihood.

    Maximises ``p_v(h) = h - log|C/2pi|/2`` at the mode of h in v over all parameters (`reml=False`), or
    ``p_bv(h) = h - log|H/2pi|/2`` at the mode in (beta, v) over the dispersion parameters (`reml=True`). For Gaussian
    responses with Gaussian effects these are ML and REML exactly. p_bv(h) is what REML means for other families: the
    fixed effects are integrated out with the random effects under a flat prior (Lee & Nelder 2001).

    Parameters
    ----------
    reml
        Whether the fixed effects are integrated out too.
    tol
        Convergence: the next step would be shorter than `tol` standard errors.
    max_iterations
        BFGS iterations.

    Notes
    -----
    Cost: 10 to 35 evaluations, each a few sparse factorisations (Newton's method from the last mode) and one selected
    inverse. The gradient is exact; the Hessian comes from central differences of it. Starts from EQL where that
    applies.

    Convergence is decided by the length of Newton's step with that Hessian, at most `tol` standard errors, or 1e-3
    where rounding ends the line search. A likelihood without curvature in some direction, and a variance that goes to
    zero, are told by name.

    Standard errors. With `reml=False` the covariance of (beta, theta) is the inverse Hessian of p_v(h); errors of
    random effects and of quantities made of them add the error of beta to that of v given beta, but take theta as
    known in v (Kristensen et al. 2016 would add ``dv/dtheta`` too). With `reml=True` those of beta take theta as known.

    Bias: the variances of small binary groups come out too small (bacteria: 1.654 where maximum likelihood is 1.839).

    References
    ----------
    Tierney, L. & Kadane, J. B. (1986). JASA 81, 82-86.
    Lee, Y. & Nelder, J. A. (2001). Biometrika 88, 987-1006.
    Kristensen, K. et al. (2016). TMB. J. Statistical Software 70(5), section 2.
    """

    reml: bool = False
    tol: float = 1e-5
    max_iterations: int = 200

    name: str = field(default="Laplace", init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.tol > 0 and self.max_iterations >= 1):
            raise ModelError(
                f"Laplace: tol and max_iterations must be positive; got {self.tol}, {self.max_iterations}."
            )

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """Why Laplace cannot fit this model; empty where it can."""
        return list(model.laplace_obstacles)

    def prepare(self, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator) -> LaplaceState:
        """Analyse the sparse pattern once; start from EQL."""
        likelihood = HLikelihood(model)
        profile = Profile(likelihood, self.reml)
        begin = start_psi(likelihood, self.reml, start, rng)
        objective = Objective(profile, begin.beta, begin.v)
        first = objective.evaluate(begin.psi)
        if first is None:
            raise ModelError(
                "The Laplace approximation has no value at the starting values: pass start={...} with plausible "
                "values of the parameters."
            )
        covariance = _scale_matrix(begin.covariance)
        return LaplaceState(self, objective, begin.psi, covariance, np.inf)

    def step(self, state: LaplaceState) -> tuple[LaplaceState, dict[str, float]]:
        """One BFGS iteration by SciPy, in the metric of the current covariance estimate.

        Where that metric calls the point a maximum, or the line search finds no better one, the Hessian replaces it
        (`checked`): convergence is decided by Newton's step, not by what BFGS takes for one.
        """
        objective = state.objective
        if not state.psi.size:
            return replace(state, decrement=0.0, checked=True), _row(0.0, objective.value(state.psi))
        root = np.linalg.cholesky(_scale_matrix(state.covariance))
        found = optimize.minimize(  # type: ignore[call-overload]
            lambda z: objective.negative(state.psi + root @ z, root),
            np.zeros(state.psi.size),
            jac=True,
            method="BFGS",
            options={"maxiter": 1, "gtol": 0.0, "hess_inv0": np.eye(state.psi.size)},
        )
        psi = state.psi + root @ found.x
        covariance = _symmetric(root @ found.hess_inv @ root.T)
        decrement = _decrement(objective.gradient(psi), covariance)
        stalled = bool(np.all(found.x == 0.0))
        new = replace(state, psi=psi, covariance=covariance, decrement=decrement, stalled=stalled)
        new = replace(new, checked=False, hessian=None)
        if decrement < self.tol or (stalled and not state.checked):
            new = new.with_hessian()
        return new, _row(new.decrement, objective.value(psi))

    def position(self, state: LaplaceState) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta), for the history."""
        mode = state.objective.mode(state.psi)
        return mode.point.beta, mode.point.theta

    def status(self, state: LaplaceState) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped."""
        if state.checked and state.flat:
            return f"stopped: the likelihood is flat in {state.flat}: fix it, or simplify the model"
        if state.checked and state.decrement < (LOOSE if state.stalled else self.tol):
            names = state.boundary_names()
            return CONVERGED if not names else "boundary: " + "; ".join(names)
        if state.stalled and not state.checked:
            return "stopped: the line search found no better point, and the gradient is not zero"
        return RUNNING

    def finish(self, state: LaplaceState) -> Estimate:
        """Estimates, standard errors, likelihoods and diagnostics."""
        return finish_laplace(state)


@dataclass(frozen=True, eq=False)
class LaplaceState:
    """What the next step needs."""

    settings: Laplace
    objective: Objective
    psi: np.ndarray
    covariance: np.ndarray
    decrement: float
    stalled: bool = False
    checked: bool = False
    flat: str = ""
    hessian: np.ndarray | None = None  # minus the Hessian at psi, where `checked`

    def boundary_names(self) -> list[str]:
        """A sentence for every random effect whose variance is estimated at zero."""
        mode = self.objective.mode(self.psi)
        names = boundary_terms(self.objective.profile.likelihood.model, mode)
        return [f"variance of {name!r} estimated at zero" for name in names]

    def with_hessian(self) -> LaplaceState:
        """The same point with the Hessian's metric, and the length of Newton's step in it."""
        active = active_parameters(self.objective, self.psi)
        if not active.any():
            return replace(self, decrement=0.0, checked=True)
        hessian = differenced_hessian(self.objective, self.psi, self.covariance, active)
        scale = np.sqrt(np.clip(np.diag(self.covariance), 1e-12, 1e4))
        scaled = (hessian * scale[:, None] * scale)[np.ix_(active, active)]
        values, vectors = np.linalg.eigh(scaled)
        low = values < FLAT * max(values.max(), 1e-300)
        usable = np.maximum(np.abs(values), 1e-6 * np.abs(values).max())
        part = np.ix_(active, active)
        covariance = np.diag(np.diag(self.covariance))
        covariance[part] = (vectors / usable @ vectors.T) * scale[active][:, None] * scale[active]
        gradient = np.where(active, self.objective.gradient(self.psi), 0.0)
        decrement = _decrement(gradient, covariance)
        flat = ""
        if low.any() and decrement < self.settings.tol:
            worst = int(np.argmax(np.abs(vectors[:, int(np.argmin(values))])))
            flat = self._name(int(np.flatnonzero(active)[worst]))
        return replace(self, covariance=covariance, decrement=decrement, checked=True, flat=flat, hessian=hessian)

    def _name(self, position: int) -> str:
        """The parameter that an element of psi belongs to."""
        profile = self.objective.profile
        model = profile.likelihood.model
        start = 0 if profile.integrate_beta else model.n_beta
        parameters = model.fixed_effects if position < start else model.dispersion_parameters
        place = position if position < start else position - start
        return next(repr(p.name) for p in parameters if p.index.start <= place < p.index.stop)


def _row(step: float, objective: float) -> dict[str, float]:
    return {"step": step, "objective": objective}


def _decrement(gradient: np.ndarray, covariance: np.ndarray) -> float:
    """Length of the step ``covariance @ gradient`` in standard errors."""
    return float(np.sqrt(max(gradient @ covariance @ gradient, 0.0)))


def _scale_matrix(covariance: np.ndarray) -> np.ndarray:
    """A usable first metric: variances of one where the start has none, nothing larger than ten standard units."""
    diagonal = np.diag(covariance).copy()
    bad = ~(np.isfinite(diagonal) & (diagonal > 0))
    result = np.where(np.isfinite(covariance), covariance, 0.0)
    result[bad, :], result[:, bad] = 0.0, 0.0
    result[bad, bad] = 1.0
    try:
        np.linalg.cholesky(result)
    except np.linalg.LinAlgError:
        result = np.diag(np.where(bad, 1.0, diagonal))
    return result


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + matrix.T)
