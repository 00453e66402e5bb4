r"""Extended quasi-likelihood: IWLS on the augmented model, gamma GLMs for the dispersions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hlik.augmented import AugmentedModel, Dispersions, Point, dispersions
from hlik.errors import ModelError
from hlik.estimators.base import CONVERGED, RUNNING, Estimate
from hlik.estimators.dispersion import DispersionState, dispersion_state, propose
from hlik.estimators.eql_finish import finish_eql
from hlik.estimators.hl11 import profile_score
from hlik.estimators.quasi_dispersion import with_quasi_dispersion
from hlik.estimators.starts import check_start, start_beta, start_theta
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel

MAX_LOG_CHANGE = 2.5  # a dispersion moves by a factor of at most 12 in one step
MAX_INNER = 50
BOUNDARY = 1e-7  # share of a term's levels' information below which its variance counts as zero


@dataclass(frozen=True)
class EQL:
    r"""Extended quasi-likelihood estimates of a hierarchical generalised linear model.

    Alternates until the fixed point of both:

    1. (beta, v) from the mixed-model equations of the augmented model (`hlik.augmented`);
    2. theta from gamma GLMs on the deviance components (`hlik.estimators.dispersion`).

    For Gaussian responses with Gaussian effects the fixed point is REML. For other families it is the h-likelihood
    estimate of Lee & Nelder (1996, 2001) that R's hglm computes; hglm's default stopping rule halts before it.

    Parameters
    ----------
    dispersion
        ``"model"``: phi as the graph says (1 for Binomial, Bernoulli and Poisson). ``"estimate"``: those responses
        get a quasi-dispersion, as hglm estimates by default, reported as ``<response>_dispersion``. A mapping
        ``{response: setting}`` sets them one by one, where a setting may also be an (n, k) array of covariates of
        log phi (hglm's ``X.disp``).
    correction
        None, or ``"HL11"``: beta maximises p_v(h) instead of h (Noh & Lee 2007, HL(1,1)), which removes the
        first-order bias of beta. hglm calls it EQL1 and leaves it out for all but one Gaussian term.
    tol
        Convergence: the next step on theta would be shorter than `tol` standard errors.
    max_iterations
        Steps on theta.

    Notes
    -----
    Cost: a few sparse factorisations of Z'WZ + D an iteration, 5 to 20 iterations. Biased towards zero for the
    variances of small binary groups (bacteria data, phi = 1: 1.03 where maximum likelihood is 1.84); use Laplace,
    or better, there.

    References
    ----------
    Lee, Y. & Nelder, J. A. (1996). Hierarchical generalized linear models. JRSS B 58, 619-678.
    Lee, Y. & Nelder, J. A. (2001). Hierarchical generalised linear models: a synthesis. Biometrika 88, 987-1006.
    Noh, M. & Lee, Y. (2007). REML estimation for binary data in GLMMs. J. Multivariate Analysis 98, 896-915.
    Ronnegard, L., Shen, X. & Alam, M. (2010). hglm: a package for fitting HGLMs. The R Journal 2/2, 20-28.
    """

    dispersion: str | Mapping[str, Any] = "model"
    correction: str | None = None
    tol: float = 1e-8
    max_iterations: int = 100

    name: str = field(default="EQL", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.correction not in (None, "HL11"):
            raise ModelError(f"EQL(correction={self.correction!r}): expected None or 'HL11'.")
        if isinstance(self.dispersion, str) and self.dispersion not in ("model", "estimate"):
            raise ModelError(
                f"EQL(dispersion={self.dispersion!r}): expected 'model', 'estimate' or a mapping."
            )
        if not (self.tol > 0 and self.max_iterations >= 1):
            raise ModelError(
                f"EQL: tol and max_iterations must be positive; got {self.tol}, {self.max_iterations}."
            )

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """Why EQL cannot fit this model; empty where it can."""
        return list(model.obstacles)

    def prepare(
        self, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator
    ) -> EQLState:
        """Analyse the sparse pattern once and find starting values."""
        model = with_quasi_dispersion(model, self.dispersion)
        augmented = AugmentedModel(model)
        check_start(model, start)
        v = augmented.start_v()
        beta = start_beta(model, start, v)
        theta = start_theta(model, start, beta, v)
        spread = dispersions(model, theta)
        point = augmented.at(beta, v, spread)
        if point is None:
            raise ModelError(
                "The starting values give a mean outside its range (see the links): pass start={...} with values of "
                "the fixed effects for which every mean is valid."
            )
        active = np.ones(model.n_theta, dtype=bool)
        return EQLState(self, augmented, theta, spread, point, active=active)

    def step(self, state: EQLState) -> tuple[EQLState, dict[str, float]]:
        """One iteration: 1. solve for (beta, v); 2. move theta."""
        # 1. (beta, v) given theta, to a small part of the last step on theta; Newton's steps end it quadratically
        part = 1e-2 if is_newton(state.augmented.model) and self.correction is None else 1e-4
        tolerance = max(part * min(1.0, state.decrement), 1e-12)
        point, bordered, inner = solve_mean(
            state.augmented, state.point, state.spread, tolerance, self.correction
        )
        found = dispersion_state(state.augmented.model, state.theta, state.spread, point, bordered)
        # 2. theta
        active = _drop_boundary(state.augmented.model, found, state.active)
        secants = _secants(state, found)
        proposal = propose(found, active, secants, MAX_LOG_CHANGE)
        theta, spread, point_next = state.theta, state.spread, point
        if proposal.decrement >= self.tol:
            theta, spread, point_next = _move(state.augmented, state.theta, proposal.step, point)
        new = replace(
            state,
            theta=theta,
            spread=spread,
            point=point_next,
            solved=Solved(state.theta, state.spread, point, bordered, found),
            secants=secants,
            active=active,
            decrement=proposal.decrement,
            iteration=state.iteration + 1,
            stalled=proposal.decrement >= self.tol and bool(np.all(theta == state.theta)),
        )
        row = {"step": proposal.decrement, "inner_iterations": float(inner), "objective": found.objective}
        return new, row

    def position(self, state: EQLState) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta) of the last solved point."""
        assert state.solved is not None
        return state.solved.point.beta, state.solved.theta

    def status(self, state: EQLState) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped."""
        if state.solved is None:
            return RUNNING
        if state.decrement < self.tol:
            names = boundary_names(state)
            return CONVERGED if not names else "boundary: " + "; ".join(names)
        if state.stalled:
            return (
                "stopped: no step on the dispersion parameters gives valid variances; a linear or inverse model of a "
                "variance may reach zero inside the data: use a log link for it"
            )
        return RUNNING

    def finish(self, state: EQLState) -> Estimate:
        """Estimates, standard errors, log-likelihoods and diagnostics at the last solved point."""
        return finish_eql(state, self)


@dataclass(frozen=True, eq=False)
class Solved:
    """theta with the (beta, v) solved for it, the factored H and the dispersion equations there."""

    theta: np.ndarray
    spread: Dispersions
    point: Point
    bordered: Bordered
    found: DispersionState


@dataclass(frozen=True, eq=False)
class EQLState:
    """What the next step needs."""

    settings: EQL
    augmented: AugmentedModel
    theta: np.ndarray
    spread: Dispersions
    point: Point
    active: np.ndarray
    solved: Solved | None = None
    secants: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    decrement: float = 1.0
    iteration: int = 0
    stalled: bool = False


def solve_mean(
    augmented: AugmentedModel, point: Point, spread: Dispersions, tolerance: float, correction: str | None
) -> tuple[Point, Bordered, int]:
    """IWLS for (beta, v) until the step is shorter than `tolerance` standard errors; returns the last factor too.

    In a linear Gaussian model the first step is exact.
    """
    linear = _is_linear(augmented.model)
    for inner in range(1, MAX_INNER + 1):
        bordered = augmented.factor(point)
        r_beta, r_v = augmented.scores(point)
        if correction == "HL11":
            r_beta = r_beta + profile_score(augmented.model, point, spread, bordered)
        direction = bordered.solve(r_beta, r_v)
        decrement = float(np.sqrt(max(float(r_beta @ direction[0] + r_v @ direction[1]), 0.0)))
        slope = -1.0 if correction else decrement**2
        new, length = augmented.step(point, direction, spread, slope)
        point = new
        if linear or decrement <= tolerance or length == 0.0:
            return point, bordered, inner
    return point, bordered, inner


def is_newton(model: HierarchicalModel) -> bool:
    """Whether Fisher scoring is Newton's method: all links canonical (the random effects' scales are)."""
    return all(r.link == r.family.canonical_link for r in model.responses)  # type: ignore[union-attr]


def _is_linear(model: HierarchicalModel) -> bool:
    return all(
        r.family.name == "normal" and r.link.name == "identity"  # type: ignore[union-attr]
        for r in model.responses
    ) and all(e.family.name == "normal" for e in model.random_effects)  # type: ignore[union-attr]


def _secants(state: EQLState, found: DispersionState) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The last moves of theta with the changes of the drive they made, newest last; as many as parameters, at most 5."""
    if state.solved is None:
        return ()
    move = state.theta - state.solved.theta
    change = found.drive - state.solved.found.drive
    keep = min(5, int(state.active.sum()))
    return (*state.secants, (move, change))[-keep:] if keep else ()


def _move(
    augmented: AugmentedModel, theta: np.ndarray, step: np.ndarray, point: Point
) -> tuple[np.ndarray, Dispersions, Point]:
    """theta + step, halved until all dispersions and the means are valid; theta itself where none is."""
    for _ in range(30):
        new = theta + step
        spread = dispersions(augmented.model, new)
        if spread.valid():
            moved = augmented.at_predictor(point.beta, point.v, point.eta, spread)
            if moved is not None:
                return new, spread, moved
        step = 0.5 * step
    return theta, dispersions(augmented.model, theta), point


def _drop_boundary(model: HierarchicalModel, found: DispersionState, active: np.ndarray) -> np.ndarray:
    """Take out of the iteration the parameters that move only variances which have gone to zero."""
    active = active.copy()
    offset = sum(response.dispersion is not None for response in model.responses)
    terms = found.components[offset:]
    vanished = [c.residual_df.mean() < BOUNDARY and c.score() @ c.score() < BOUNDARY for c in terms]
    moved_by_living = np.zeros(model.n_theta, dtype=bool)
    moved_by_dead = np.zeros(model.n_theta, dtype=bool)
    for component, gone in zip(found.components, [False] * offset + vanished, strict=True):
        moves = np.any(component.log_slope != 0, axis=0)
        if gone:
            moved_by_dead |= moves
        else:
            moved_by_living |= moves
    active[moved_by_dead & ~moved_by_living] = False
    return active


def boundary_names(state: EQLState) -> list[str]:
    """A sentence for every random effect whose variance is estimated at zero."""
    model = state.augmented.model
    assert state.solved is not None
    offset = sum(response.dispersion is not None for response in model.responses)
    terms = state.solved.found.components[offset:]
    return [
        f"variance of {effect.name!r} estimated at zero"
        for effect, component in zip(model.random_effects, terms, strict=True)
        if component.residual_df.mean() < BOUNDARY
    ]
