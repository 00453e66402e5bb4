r"""Monte Carlo EM: maximum likelihood by averaging h over draws of the random effects given the responses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import ndtri

from hlik.errors import ModelError
from hlik.estimators.mcem_base import MonteCarloEM, history_row
from hlik.estimators.mcem_boundary import active, towards_end
from hlik.estimators.mcem_expect import Expected
from hlik.estimators.mcem_louis import following
from hlik.estimators.mcem_state import EMState
from hlik.estimators.mcem_step import maximised, step_errors
from hlik.samplers.base import Draws

RULES = ("ascent", "mcemGLM")
CONFIDENCE = 0.75  # one-sided, of the bounds of the rise of Q: alpha = gamma = 0.25 of Caffo et al. 2005
GROWTH = 1.5  # of the draws where the rise of Q is not told from noise
MOST_ADDED = 4  # times that draws are added within one step


@dataclass(frozen=True)
class MCEM(MonteCarloEM):
    r"""Monte Carlo EM (Wei & Tanner 1990; McCulloch 1997) with the ascent-based rule.

    Every step draws v given y at the present parameters and maximises ``Q(psi) = mean h(v_m; psi)`` over
    psi = (beta, theta). A last, larger sample gives Newton's step by Louis' identity, standard errors and the Monte
    Carlo error of every estimate. The limit is exact maximum likelihood, for any model whose h hlik can read.

    Parameters
    ----------
    sampler
        ``"nutpie"``, ``"pymc"``, ``"numpyro"``, ``"blackjax"`` (all NUTS; the last two with the extra ``hlik[jax]``),
        ``"metropolis"``: on ``pm.do(model, parameters)``, compiled once, with positions and step size carried from step
        to step. ``"importance"``: Laplace's approximation proposes, block by block, at Sobol points; nothing is
        compiled, right where Pareto k stays below 0.7. ``"auto"``: nutpie where it is installed, else ``"pymc"``.
    draws
        Draws of the first E-step, all chains together.
    chains
        Markov chains; independent randomisations (at least 8) with ``"importance"``.
    tune
        Draws that adapt the first E-step's sampler; later steps use fewer.
    rule
        ``"ascent"``: draws are added until the lower confidence bound of the rise of Q is positive, and EM ends when
        its upper bound is below `tol` (Caffo, Jank & Jones 2005). ``"mcemGLM"``: draws grow by that package's schedule,
        and EM ends when the relative change of all parameters is below 0.02 three times running. With both, estimates,
        standard errors and Monte Carlo errors are those of the last sample and its Newton step (mcemGLM has no such
        step: it reports the maximum of the last Q, and no Monte Carlo error).
    tol
        Log-likelihood units, for the ascent rule.
    mcse
        The last sample grows until the Monte Carlo errors, of estimates and of standard errors, are at most this part
        of the standard errors.
    max_draws
        Most draws of a sample.
    initial
        ``"laplace"``, ``"eql"`` or ``"none"``: where it begins.
    max_iterations
        Steps, those of the last sample included.

    Raises
    ------
    ModelError
        Where a setting is out of range; by `hlik.fit`, where `Laplace` cannot read the densities, or h is not finite at
        the starting values.

    Notes
    -----
    A variance that goes to zero is put there when the derivative of the log-likelihood at zero is negative (found from
    the draws of the other effects, where one parameter scales the term); degrees of freedom of t effects are put at
    infinity (1e6) when the likelihood falls from its normal limit. The status says so, and the parameter has no
    standard error. Markov chains go on without a term that has no variance, which compiles once more.

    Draws follow the fixed effects: ``v + A (beta - beta_0)``, A the slope of the mode of h. EM is then faster, and
    Louis' information free of most of its noise: without it that of an intercept is the small difference of two large
    numbers where groups have many observations.

    t effects are `pm.StudentT` (one density an effect) or `pm.MvStudentT` (one a group, or one for a whole term, as in
    R's mcemGLM), with known or estimated degrees of freedom. With one density for a term, ``sampler="importance"``
    draws its scale first and then normal effects (`hlik.samplers.scale_mixture`). For every parameter there are profile
    likelihoods: `hlik.profile`, ``hlik.confint(model, idata, method="profile")``.

    Cost: a step of m draws costs m evaluations of h and its gradient by the sampler (5 to 10 for each draw by NUTS),
    and 2 (1 + 2 r) to 4 (1 + 2 r) passes over draws and observations, in chunks of 16 MB, for the M-step (r: dispersion
    parameters that stand in a response; others cost nothing).

    Standard errors: inverse of Louis' information, all terms. Standard errors of random effects add the variance of v
    given y to the error of the parameters through ``dE(v | y)/dpsi = cov(v, dh/dpsi)`` (Booth & Hobert 1998).
    The log-likelihood is by bridge sampling at the last parameters (importance sampling over the scales of t effects).

    ``hlik.fit(model, MCEM(...), start=idata)`` goes on from the parameters, chains and number of draws of a result.

    References
    ----------
    Wei, G. C. G. & Tanner, M. A. (1990). JASA 85, 699-704.
    Louis, T. A. (1982). JRSS B 44, 226-233.
    Booth, J. G. & Hobert, J. P. (1999). JRSS B 61, 265-285.
    Caffo, B. S., Jank, W. & Jones, G. L. (2005). JRSS B 67, 235-251.
    Meng, X.-L. & van Dyk, D. (1997). JRSS B 59, 511-567.
    Lange, K. L., Little, R. J. A. & Taylor, J. M. G. (1989). JASA 84, 881-896.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=4)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat(np.arange(4), 3)]), observed=y)
    >>> idata = hlik.fit(model, hlik.MCEM(sampler="importance"), progressbar=False, random_seed=1)
    >>> idata.fit.attrs["status"]
    'converged'
    >>> abs(float(idata.estimates["sigma"]) - 1.0475) < 4 * float(idata.monte_carlo_errors["sigma"])  # by quadrature
    True
    """

    sampler: str = "auto"
    draws: int = 500
    chains: int = 2
    tune: int = 300
    rule: str = "ascent"
    tol: float = 1e-2
    mcse: float = 0.05
    max_draws: int = 200_000
    initial: str = "laplace"
    max_iterations: int = 100

    name: str = field(default="MCEM", init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in RULES:
            raise ModelError(f"MCEM: rule must be one of {RULES}; got {self.rule!r}.")
        if not self.tol > 0:
            raise ModelError(f"MCEM: tol must be positive; got {self.tol}.")

    def em_step(self, state: EMState) -> tuple[EMState, dict[str, float]]:
        """Draw, maximise Q, decide on the next number of draws."""
        at = (state.beta, state.theta)
        draws = state.sampler.draw(*at, state.next_draws, state.rng)
        shift = following(state.likelihood, draws.v.mean(axis=(0, 1)), *at)
        for added in range(MOST_ADDED + 1):
            expected = Expected(state.likelihood, draws.columns, shift)
            beta, theta = maximised(expected, *at, active(state))
            values, before = expected.values(beta, theta), expected.values(*at)
            gain = float(np.mean(values - before))
            error = float(np.sqrt(draws.mean_covariance((values - before)[None])[0, 0]))
            rises = gain - ndtri(CONFIDENCE) * error > 0
            small = gain + ndtri(CONFIDENCE) * error < self.tol
            full = draws.count >= self.max_draws or added == MOST_ADDED
            if self.rule != "ascent" or rises or small or full:
                break
            more = min(int(np.ceil((GROWTH - 1) * draws.count)), self.max_draws - draws.count)
            draws = joined(draws, state.sampler.draw(*at, more, state.rng))
        change = float(np.max(np.abs(np.concatenate([beta, theta]) - state.psi), initial=0.0))
        row = history_row(draws, values, gain, error, change)
        mcse = step_errors(expected, draws, beta, theta, active(state))
        new = replace(state, beta=beta, theta=theta, draws=draws, at=at, mcse_path=(*state.mcse_path, mcse))
        nearer = towards_end(new, theta - at[1])
        if nearer is not new:
            return nearer, row
        if self.rule == "mcemGLM":
            return mcemglm_schedule(new, at), row
        noisy = error > 0.5 * max(gain, self.tol)
        wanted = int(np.ceil(GROWTH * draws.count)) if noisy else draws.count
        new = replace(new, next_draws=min(wanted, self.max_draws))
        return (to_last(new) if small else new), row


def joined(first: Draws, second: Draws) -> Draws:
    """Two samples at the same parameters, the second after the first in every chain."""
    stats = {k: np.concatenate([x, second.stats[k]], axis=1) for k, x in first.stats.items() if k in second.stats}
    return Draws(np.concatenate([first.v, second.v], axis=1), stats, second.step_size, first.independent)


def to_last(state: EMState) -> EMState:
    """The end of EM: a last sample four times as large."""
    assert state.draws is not None
    return replace(state, phase="final", next_draws=min(4 * state.draws.count, state.settings.max_draws))


def mcemglm_schedule(state: EMState, at: tuple[np.ndarray, np.ndarray]) -> EMState:
    """mcemGLM 1.1: ``|change| / (|theta| + 0.05) < 0.02`` three times running; draws grow by 1.025, 1.2, 1.5."""
    old, new = state.natural(*at), state.natural(state.beta, state.theta)
    met = bool(np.all(np.abs(new - old) / (np.abs(old) + 0.05) < 0.02))
    small = state.small + 1 if met else 0
    factor = 1.5 if small >= 2 or state.iteration > 30 else 1.2 if state.iteration > 15 else 1.025
    assert state.draws is not None
    following = min(int(np.ceil(factor * state.draws.count)), state.settings.max_draws)
    state = replace(state, small=small, next_draws=following)
    return to_last(state) if small >= 3 else state
