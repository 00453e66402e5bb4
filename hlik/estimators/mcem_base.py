"""The steps that Monte Carlo EM and its stochastic approximation share: start, E-step, last sample, status."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from hlik.errors import ConvergenceWarning, ModelError
from hlik.estimators.base import CONVERGED, RUNNING, Estimate
from hlik.estimators.mcem_boundary import active, boundary_status, confirmed, towards_end
from hlik.estimators.mcem_expect import Expected
from hlik.estimators.mcem_finish import finish_em
from hlik.estimators.mcem_louis import Louis, louis_at
from hlik.estimators.mcem_state import EMState, Resumed
from hlik.estimators.mcem_step import LONGEST
from hlik.estimators.mcla_start import INITIAL, begin
from hlik.hlikelihood import HLikelihood, HPoint
from hlik.model import HierarchicalModel
from hlik.samplers.base import Draws, Sampler
from hlik.samplers.choose import SAMPLERS, obstacles, sampler_for
from hlik.samplers.heavy_tailed import HeavyTailed
from hlik.samplers.scale_mixture import ScaleMixtureSampler, has_few_scales

NEAR = 0.03  # standard errors, beyond noise: a longer last Newton step (its error is about its square) has a new sample
MOST_POLISHED = 4  # times


class MonteCarloEM:
    """Settings and steps in common; a subclass says what an EM step is (`em_step`)."""

    name: str
    sampler: str
    draws: int
    chains: int
    tune: int
    mcse: float
    max_draws: int
    max_iterations: int
    initial: str

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ModelError(f"{self.name}: sampler must be one of {SAMPLERS}; got {self.sampler!r}.")
        if self.initial not in INITIAL:
            raise ModelError(f"{self.name}: initial must be one of {INITIAL}; got {self.initial!r}.")
        counts = {"draws": self.draws, "chains": self.chains, "max_iterations": self.max_iterations}
        for name, count in counts.items():
            if not isinstance(count, int | np.integer) or count < 1:
                raise ModelError(f"{self.name}: {name} must be a whole number, 1 or more; got {count!r}.")
        if not self.mcse > 0 or self.tune < 0 or self.max_draws < self.draws:
            raise ModelError(
                f"{self.name}: expected mcse > 0, tune >= 0 and max_draws >= draws; "
                f"got {self.mcse}, {self.tune}, {self.max_draws} with draws={self.draws}."
            )

    def em_step(self, state: EMState) -> tuple[EMState, dict[str, float]]:
        """One E-step and one M-step."""
        raise NotImplementedError

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """Why it cannot fit this model; empty where it can."""
        found = list(model.laplace_obstacles)
        if not model.n_random:
            found.append("the model has no random effects: use hlik.EQL() or hlik.Laplace()")
        if any(effect.wide is not None for effect in model.random_effects):
            found.append("there are more random effects than observations: use hlik.Laplace()")
        return found + obstacles(self.sampler, model)

    def prepare(self, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator) -> EMState:
        """Start from Laplace's approximation or EQL, or where another fit ended."""
        likelihood = HLikelihood(model)
        resumed = start if isinstance(start, Resumed) else None
        initial = self.initial if resumed is None else "none"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = begin(likelihood, initial, dict(start), rng)
        point = likelihood.at(found.psi[: model.n_beta], found.v, found.psi[model.n_beta :])
        if point is None:
            raise ModelError(f"{self.name}: h is not finite at the starting values; pass start={{...}}.")
        psi = found.psi
        if resumed is not None:
            psi = _given(model, resumed, psi)
        first = _scattered(likelihood, point, self.chains, rng)
        sampler = _sampler(self.sampler, likelihood, first, self.tune)
        n = self.draws
        if resumed is not None and resumed.position is not None and resumed.position.shape[-1] == model.n_random:
            sampler.restore(resumed.position, resumed.step_size)
            n = min(max(resumed.draws, n), self.max_draws)
        p = model.n_beta
        return EMState(self, likelihood, sampler, rng, psi[:p].copy(), psi[p:].copy(), n)

    def step(self, state: EMState) -> tuple[EMState, dict[str, float]]:
        """An EM step, or the last sample with its Newton step."""
        state = replace(state, iteration=state.iteration + 1)
        return self.em_step(state) if state.phase == "em" else self.last_step(state)

    def last_step(self, state: EMState) -> tuple[EMState, dict[str, float]]:
        """A sample at the present parameters; enlarged until the Monte Carlo errors are small enough."""
        draws = state.sampler.draw(state.beta, state.theta, state.next_draws, state.rng)
        at = (state.beta, state.theta)
        louis = louis_at(state.likelihood, draws, *at, active(state))
        values = Expected(state.likelihood, draws.columns).values(*at)
        row = history_row(draws, values, 0.0, 0.0, louis.decrement)
        new = replace(state, draws=draws, at=at, louis=louis)
        nearer = confirmed(towards_end(new, louis.step[state.beta.size :]))
        if nearer is not new:
            return replace(nearer, mcse_path=(*state.mcse_path, louis.mcse)), row
        if not louis.is_positive_definite:
            new = replace(new, mcse_path=(*state.mcse_path, np.full(state.psi.size, np.nan)))
            return _without_information(new, louis), row
        p = state.beta.size
        new = replace(new, mcse_path=(*state.mcse_path, louis.mcse))
        near = max(NEAR, 2 * louis.noise)
        far = louis.decrement > near and state.polished < MOST_POLISHED
        # few draws may make a long step of little curvature
        longest = max(louis.decrement if far else 0.0, float(np.abs(louis.step[p:]).max(initial=0.0)) / LONGEST, 1.0)
        beta, theta = state.beta + louis.step[:p] / longest, state.theta + louis.step[p:] / longest
        new = replace(new, beta=beta, theta=theta, polished=state.polished + 1)
        share = louis.worst_share
        if share > self.mcse and draws.count < self.max_draws:
            wanted = int(np.ceil(1.1 * draws.count * min((share / self.mcse) ** 2, 8.0)))
            return replace(new, next_draws=min(wanted, self.max_draws)), row
        if far:
            return new, row
        stopped = CONVERGED
        if share > self.mcse:
            stopped = (
                f"stopped at max_draws={self.max_draws}: the Monte Carlo errors are up to {100 * share:.1f} % of the "
                f"standard errors where mcse={self.mcse} asks for {100 * self.mcse:.1f} %: raise max_draws or mcse"
            )
        elif louis.decrement > near:
            stopped = (
                f"stopped: after {MOST_POLISHED} samples Newton's step is still {louis.decrement:.2f} standard errors "
                "long: the likelihood is far from quadratic here, or the fit needs more EM steps (start=idata)"
            )
        return replace(new, phase="done", stopped=stopped), row

    def position(self, state: EMState) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta), for the history."""
        return state.beta, state.theta

    def status(self, state: EMState) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped."""
        if state.phase != "done":
            return RUNNING
        if state.stopped != CONVERGED:
            return state.stopped
        return sampling_trouble(state) or boundary_status(state) or CONVERGED

    def finish(self, state: EMState) -> Estimate:
        """Estimates, standard errors, Monte Carlo errors and the log-likelihood."""
        return finish_em(state)


def _sampler(name: str, likelihood: HLikelihood, first: np.ndarray, tune: int) -> Sampler:
    """The sampler of this name; t effects have importance samplers of their own."""
    if name == "importance" and has_few_scales(likelihood.model):
        return ScaleMixtureSampler(likelihood, first[0], len(first))
    if name == "importance" and any(effect.degrees is not None for effect in likelihood.model.random_effects):
        return HeavyTailed(likelihood, first[0], len(first))
    return sampler_for(name, likelihood, first, tune)


def _without_information(state: EMState, louis: Louis) -> EMState:
    """More draws where that may help, else the end."""
    assert louis.draws_needed is not None
    settings = state.settings
    assert state.draws is not None
    if state.draws.count < settings.max_draws and state.polished < MOST_POLISHED:
        wanted = min(max(louis.draws_needed, 2 * state.draws.count), 16 * state.draws.count, settings.max_draws)
        return replace(state, next_draws=wanted, polished=state.polished + 1)
    stopped = (
        f"stopped: the information is not positive definite with {state.draws.count:,} draws, so there are no standard "
        f"errors; about {louis.draws_needed:,} draws would tell whether it is singular: raise max_draws"
    )
    return replace(state, phase="done", stopped=stopped)


def sampling_trouble(state: EMState) -> str:
    """What is wrong with the last sample, in plain words; empty where nothing is."""
    assert state.draws is not None
    stats, share = state.draws.stats, state.draws.divergences / state.draws.count
    if "pareto_k" in stats and stats["pareto_k"].max() > 0.7:
        return (
            f"stopped: importance sampling fails here (Pareto k = {stats['pareto_k'].max():.2f}, above 0.7): use "
            "sampler='nutpie' or 'pymc'"
        )
    if share > 0.01:
        return (
            f"stopped: {100 * share:.1f} % of the draws are divergent, so the E-step may be biased: reparametrise the "
            "random effects"
        )
    return ""


def history_row(draws: Draws, values: np.ndarray, gain: float, gain_error: float, step: float) -> dict[str, float]:
    """Numbers for people: Q with its Monte Carlo error, its rise with its error, draws, the step."""
    q_error = float(np.sqrt(draws.mean_covariance(values[None])[0, 0]))
    return {
        "objective": float(values.mean()),
        "objective_mcse": q_error,
        "delta_Q": gain,
        "delta_Q_mcse": gain_error,
        "draws": float(draws.count),
        "step": step,
    }


def _scattered(likelihood: HLikelihood, point: HPoint, chains: int, rng: np.random.Generator) -> np.ndarray:
    """First positions of the chains, (chains, q): about v with the deviations that each effect has given the others.

    At the mode itself the gradient is zero, from which no sampler could tell a scale.
    """
    curvature = (likelihood.Z.multiply(likelihood.Z)).T @ point.weight + point.random_weight[likelihood.prior.diagonal]
    spread = 1.0 / np.sqrt(np.maximum(np.abs(curvature), 1e-4))
    return point.v + spread * rng.normal(size=(chains, point.v.size))


def _given(model: HierarchicalModel, start: dict[str, np.ndarray], psi: np.ndarray) -> np.ndarray:
    """psi at given values on the natural scale."""
    from hlik.estimators.laplace_start import _given_beta, _given_theta

    if not {p.name for p in model.parameters} <= set(start):
        return psi
    return np.concatenate([_given_beta(model, start), _given_theta(model, start)])
