"""Stochastic-approximation EM: few draws a step, and all of them used again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hlik.errors import ModelError
from hlik.estimators.mcem_base import MonteCarloEM, history_row
from hlik.estimators.mcem_boundary import active, towards_end
from hlik.estimators.mcem_expect import Expected
from hlik.estimators.mcem_state import EMState
from hlik.estimators.mcem_step import active_step


@dataclass(frozen=True)
class SAEM(MonteCarloEM):
    r"""Stochastic-approximation EM (Delyon, Lavielle & Moulines 1999).

    In every step ``Q_t = Q_{t-1} + gamma_t (mean h over the new draws - Q_{t-1})``, with ``gamma = 1`` for the first
    `burn` steps and ``1 / (t - burn)`` after: Q_t is then the mean of h over all draws since. It is raised by one
    Newton step. The last sample, standard errors and Monte Carlo errors are those of `MCEM`.

    Parameters
    ----------
    sampler, draws, chains, tune
        As in `MCEM`; `draws` are those of every step.
    burn
        Steps before the averaging begins.
    steps
        Steps that are averaged.
    mcse, max_draws, initial
        As in `MCEM`.
    max_iterations
        Steps in all, those of the last sample included.

    Raises
    ------
    ModelError
        As `MCEM`.

    Notes
    -----
    Cost: few draws a step, and an M-step over all of them since the averaging began: the better choice where drawing
    is dear and the data are few. The result is as exact as that of `MCEM`: the same last sample decides.

    References
    ----------
    Delyon, B., Lavielle, M. & Moulines, E. (1999). Annals of Statistics 27, 94-128.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=4)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat(np.arange(4), 3)]), observed=y)
    >>> idata = hlik.fit(model, hlik.SAEM(sampler="importance"), progressbar=False, random_seed=1)
    >>> round(float(idata.estimates["sigma"]), 1)
    1.0
    """

    sampler: str = "auto"
    draws: int = 100
    chains: int = 2
    tune: int = 300
    burn: int = 20
    steps: int = 30
    mcse: float = 0.05
    max_draws: int = 200_000
    initial: str = "laplace"
    max_iterations: int = 100

    name: str = field(default="SAEM", init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.burn < 0 or self.steps < 1:
            raise ModelError(f"SAEM: expected burn >= 0 and steps >= 1; got {self.burn} and {self.steps}.")

    def em_step(self, state: EMState) -> tuple[EMState, dict[str, float]]:
        """Draw, put the draws to those kept, one Newton step."""
        draws = state.sampler.draw(state.beta, state.theta, self.draws, state.rng)
        averaging = state.iteration > self.burn
        memory = (*(state.memory if averaging else ()), draws.columns)
        expected = Expected(state.likelihood, np.concatenate(memory, axis=1))
        before = float(expected.values(state.beta, state.theta).mean())
        step = active_step(*expected.derivatives(state.beta, state.theta), state.beta.size, active(state))
        beta, theta, gain = state.beta, state.theta, 0.0
        for length in 0.5 ** np.arange(20):
            moved = state.beta + length * step[: beta.size], state.theta + length * step[beta.size :]
            with np.errstate(all="ignore"):
                rise = float(expected.values(*moved).mean()) - before
            if np.isfinite(rise) and rise >= 0:
                beta, theta, gain = *moved, rise
                break
        values = Expected(state.likelihood, draws.columns).values(beta, theta)
        change = float(np.max(np.abs(np.concatenate([beta, theta]) - state.psi), initial=0.0))
        row = history_row(draws, values, gain, np.nan, change)
        new = replace(state, beta=beta, theta=theta, draws=draws, at=(state.beta, state.theta), memory=memory)
        new = replace(new, mcse_path=(*state.mcse_path, np.full(state.psi.size, np.nan)))
        nearer = towards_end(new, theta - state.theta)
        if nearer is not new:
            return nearer, row
        if state.iteration < self.burn + self.steps:
            return new, row
        following = min(4 * sum(part.shape[1] for part in memory), self.max_draws)
        return replace(new, phase="final", next_draws=following, memory=()), row
