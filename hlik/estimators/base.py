"""The interface of all estimators, after a fixed pattern: frozen settings, a state, one outer loop in `hlik.fit`.

``prepare`` turns the model into what the estimator works on, ``init`` makes the first state, ``step`` the next one
together with a row of history for people, ``status`` decides whether to go on, ``finish`` makes the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hlik.model import HierarchicalModel

RUNNING = "running"
CONVERGED = "converged"


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Per observation (stacked over responses, (N,)) and per random effect ((q,))."""

    eta: np.ndarray
    fitted: np.ndarray
    leverage: np.ndarray
    deviance: np.ndarray
    dispersion: np.ndarray
    residual_deviance: np.ndarray
    residual_pearson: np.ndarray
    residual_studentised: np.ndarray
    random_leverage: np.ndarray
    random_deviance: np.ndarray
    random_dispersion: np.ndarray


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an estimator found, on the unconstrained scale.

    Attributes
    ----------
    model
        The model that was fitted (with quasi-dispersions added where the estimator adds them).
    beta, v, theta
        Fixed effects (p,), random effects (q,), dispersion parameters (r,).
    beta_covariance, theta_covariance
        Their covariance matrices; rows of NaN where none exists (boundary).
    covariance
        The joint one of (beta, theta), where the estimator has it; None: beta and theta are independent.
    v_by_theta
        How the random effects move with theta, beta held, shape (q, r); None: theta counts as known in them.
    v_se
        Prediction standard errors of v, shape (q,).
    information
        The factored H at the estimate: standard errors of other functions and draws come from it.
    scalars
        Log-likelihoods, information criteria, degrees of freedom, by the names of the design's result table.
    monte_carlo_covariance
        Monte Carlo covariance of (beta, theta), where the estimate is one of simulation.
    v_draws
        Draws of v from its distribution given the responses at the estimate, shape (draws, q); None: the normal
        approximation serves.
    v_chains
        Chains of the same distribution that the result's ``posterior`` shows as they are, shape (chains, draws, q).
    groups
        Further groups of the result: name, variables, each with its dims and values.
    """

    model: HierarchicalModel
    beta: np.ndarray
    v: np.ndarray
    theta: np.ndarray
    beta_covariance: np.ndarray
    theta_covariance: np.ndarray
    v_se: np.ndarray
    information: Any
    likelihood: str
    scalars: dict[str, float]
    diagnostics: Diagnostics | None = None
    covariance: np.ndarray | None = None
    v_by_theta: np.ndarray | None = None
    monte_carlo_covariance: np.ndarray | None = None
    v_draws: np.ndarray | None = None
    v_chains: np.ndarray | None = None
    groups: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = field(default_factory=dict)


class Estimator(Protocol):
    """An estimator is a frozen dataclass of settings with these methods."""

    max_iterations: int

    @property
    def name(self) -> str:
        """Short name, as in ``hlik.fit(model, "eql")``."""

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """Why it cannot fit this model; empty where it can."""

    def prepare(self, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator) -> Any:
        """The problem and its first state."""

    def step(self, state: Any) -> tuple[Any, dict[str, float]]:
        """The next state, and numbers for the history."""

    def position(self, state: Any) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta) where the state stands, for the history."""

    def status(self, state: Any) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped, in plain words."""

    def finish(self, state: Any) -> Estimate:
        """The estimate at a state, converged or not."""
