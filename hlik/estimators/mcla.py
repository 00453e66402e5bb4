r"""Monte Carlo likelihood: the marginal likelihood by importance sampling, maximised with exact derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hlik.adjusted_profile import Profile
from hlik.blocks import Blocks
from hlik.errors import ModelError
from hlik.estimators.base import Estimate
from hlik.estimators.laplace_objective import Objective
from hlik.estimators.mcla_finish import finish_mcla
from hlik.estimators.mcla_start import INITIAL, begin, eql_mode
from hlik.estimators.mcla_state import MCLAState
from hlik.executors import check_executor
from hlik.hlikelihood import HLikelihood
from hlik.importance_points import MAX_DIMENSION
from hlik.importance_proposal import glmm_proposal
from hlik.model import HierarchicalModel

MAX_ROOTS = 30_000_000  # numbers in the roots of the blocks' covariances, 240 MB: one block of 5,500 effects
SHARES = {"laplace": (0.75, 0.25), "glmm": (1 / 3, 1 / 3, 1 / 3)}


@dataclass(frozen=True)
class MCLA:
    r"""Monte Carlo likelihood approximation: maximum of the importance-sampled marginal likelihood.

    Random effects that the data do not link form independent blocks, found from the sparsity of the design; the
    likelihood is a product of integrals over them, each a weighted mean over draws of a proposal (formulas in
    `hlik.importance`). The proposal is first made at the Laplace approximation and moves with the parameters; then it
    is frozen, and new independent draws give an ordinary smooth function with exact derivatives. Its maximum has a
    Monte Carlo error, estimated from independent randomisations; the draws grow in number until it is small.

    Parameters
    ----------
    proposal
        ``"laplace"``: for each block a mixture of a normal and a t density at the conditional mode with the Laplace
        covariance, adapted by the moments of its own weighted draws. ``"glmm"``: for all effects together the three
        components of R's glmm (Knudson et al. 2021), ``t(0, D)``, ``N(v*, D)`` and ``N(v*, (Z'WZ + D^-1)^-1)`` with
        D and v* by EQL; not adapted.
    points
        ``"sobol"``: scrambled Sobol points; ``"random"``: random numbers.
    m
        Draws of each block in all, split between the randomisations; None: they grow until `mcse` is met.
    mcse
        Monte Carlo error asked for, as a part of the standard error of every parameter.
    max_m
        Draws at most.
    randomisations
        Independent sets of draws from which the Monte Carlo error is estimated, 4 or more.
    shares
        Parts of the draws by component; None: (3/4, 1/4) for normal and t, thirds for glmm.
    df
        Degrees of freedom of the t component.
    initial
        Start from the estimate of ``"laplace"``, of ``"eql"`` (penalised quasi-likelihood), or from plain values
        (``"none"``: scales of one, or what `fit`'s `start` says).
    trust_radius, max_trust_radius
        Of the trust-region search at its start and at most, in standard errors.
    tol
        Newton's step at which the search ends, in standard errors.
    max_iterations
        Steps in all: proposals on the way, then doublings of the draws.
    save_draws
        Whether the result holds the draws and their weights: group ``importance_draws``.
    executor
        A `concurrent.futures.Executor` that does the work in tasks, groups of blocks in randomisations: processes of
        this machine, or a Dask cluster by ``Client(...).get_executor()``. The numbers are the same for any number of
        workers; the task of a lost worker is run again.

    Raises
    ------
    ModelError
        Where the model has no random effects or a block is too large, or an argument is out of range.

    Notes
    -----
    Cost: h and its derivatives at all draws, some ten to thirty times, in chunks of bounded memory, without a loop
    over blocks; derivatives with respect to dispersion parameters are exact, second ones central differences of
    exact gradients with the weights held. A block of d effects takes ``d ** 2`` operations a draw.

    Reliable where the weights have a finite variance: ``sample_stats`` has the Pareto shape k of each block's weights
    (Vehtari et al. 2024), which should be below 0.7, and the effective number of draws. Where k is larger, and fewer
    than 80 % of the draws are effective, the status says that importance sampling fails: use Monte Carlo EM. Blocks
    of hundreds of weakly informed effects fail; where a block of more than 30 has fewer than 8 effective draws, that is
    said after a pilot of some 500 draws. Bias: of order 1/m, counted into the Monte Carlo error asked for.

    The draws follow the fixed effects (`hlik.importance_shift`). ``proposal="glmm"`` stays where EQL puts it, as in R:
    far from the maximum the sampled likelihood is too low and too steep, the estimate is drawn towards EQL's, and
    neither Pareto k nor the spread between randomisations need show it (bacteria data, 10,000 draws: 1.23 and 1.22
    with a stated error of 0.02 and Pareto k of 0.4 and 0.5, where 1.36 is exact). Such a fit is therefore rechecked by
    independent draws from a proposal made at the estimate: their Newton step is counted into the Monte Carlo errors,
    their Hessian gives the standard errors, and the status says where the two disagree. Where the weights have no
    mean (Pareto k above 1) and there is no second opinion, no Monte Carlo error is stated (NaN).

    Random effects are reported by their conditional means at the estimate; the result's ``posterior`` resamples them
    from the weighted draws. Monte Carlo errors of the parameters are in the group ``monte_carlo_errors``.

    References
    ----------
    Geyer, C. J. & Thompson, E. A. (1992). JRSS B 54, 657-699.
    Knudson, C., Benson, S., Geyer, C. & Jones, G. (2021). Stat 10, e339.
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72).

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(6), 4)
    >>> y = np.array([0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=6)
    ...     _ = pm.Bernoulli("y", logit_p=mean + u[group], observed=y)
    >>> idata = hlik.fit(model, hlik.MCLA(), random_seed=1, progressbar=False)
    >>> round(float(idata.estimates["sigma"]), 1), round(float(idata.fit["log_likelihood"]), 2)
    (1.6, -15.17)
    >>> bool(idata.sample_stats["pareto_k"].max() < 0.7)
    True
    """

    proposal: str = "laplace"
    points: str = "sobol"
    m: int | None = None
    mcse: float = 0.02
    max_m: int = 2**20
    randomisations: int = 16
    shares: Sequence[float] | None = None
    df: float = 5.0
    initial: str = "laplace"
    trust_radius: float = 1.0
    max_trust_radius: float = 10.0
    tol: float = 1e-3
    max_iterations: int = 30
    save_draws: bool = False
    executor: Any = field(default=None, repr=False)

    name: str = field(default="MCLA", init=False, repr=False)

    def __post_init__(self) -> None:
        _check_choice("proposal", self.proposal, tuple(SHARES))
        _check_choice("points", self.points, ("sobol", "random"))
        _check_choice("initial", self.initial, INITIAL)
        for name in ("mcse", "df", "trust_radius", "max_trust_radius", "tol"):
            if not getattr(self, name) > 0:
                raise ModelError(f"MCLA: {name} must be positive; got {getattr(self, name)!r}.")
        for name, least in (("randomisations", 4), ("max_iterations", 1), ("max_m", 1), ("m", 1)):
            _check_whole(name, getattr(self, name), least, may_be_none=name == "m")
        expected = len(SHARES[self.proposal])
        if self.shares is not None and (
            len(self.shares) != expected or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-8
        ):
            raise ModelError(f"MCLA: shares must be {expected} numbers of sum 1; got {self.shares!r}.")
        check_executor(self.executor, "MCLA")

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """Why importance sampling cannot serve the model; empty where it can."""
        found = list(model.laplace_obstacles)
        if found:
            return found
        if not model.n_random:
            return ["it has no random effects to integrate over (Laplace gives its maximum likelihood)"]
        blocks = self.blocks(HLikelihood(model))
        if int(np.sum(blocks.size.astype(float) ** 2)) > MAX_ROOTS or blocks.largest >= MAX_DIMENSION:
            return [
                f"{blocks.largest:,} of its random effects are linked with each other, too many for importance "
                "sampling (use MCEM or Laplace)"
            ]
        if self.proposal == "glmm":
            return _glmm_obstacles(model)
        return []

    def blocks(self, likelihood: HLikelihood) -> Blocks:
        """The blocks over which the proposal factorises: one of all effects for ``"glmm"``."""
        return Blocks.single(likelihood) if self.proposal == "glmm" else Blocks.of(likelihood)

    def prepare(self, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator) -> MCLAState:
        """Blocks and starting values."""
        likelihood = HLikelihood(model)
        first = begin(likelihood, self.initial, start, rng)
        entropy = int(rng.integers(2**32))
        objective = Objective(Profile(likelihood), first.psi[: model.n_beta], first.v)
        frozen = None
        if self.proposal == "glmm":
            psi, v = eql_mode(model, start, rng)
            mode = Profile(likelihood).mode(psi, psi[: model.n_beta], v)
            frozen = glmm_proposal(self.blocks(likelihood), mode, self.glmm_shares, self.df)
        state = MCLAState(
            self, objective, self.blocks(likelihood), first.psi, first.covariance, entropy, zero=first.zero
        )
        return replace(state, proposal=frozen, is_near=frozen is not None)

    @property
    def laplace_shares(self) -> Sequence[float]:
        """Of normal and t."""
        return SHARES["laplace"] if self.shares is None or self.proposal == "glmm" else self.shares

    @property
    def glmm_shares(self) -> Sequence[float]:
        """Of the three components."""
        return SHARES["glmm"] if self.shares is None else self.shares

    def step(self, state: MCLAState) -> tuple[MCLAState, dict[str, float]]:
        """While far from the maximum: a new proposal, and a search as far as it reaches. Then: more draws."""
        new = state.final() if state.is_near else state.approach()
        maximum = new.maximum
        assert maximum is not None
        share = maximum.share()
        return new, {
            "step": maximum.moved,
            "objective": maximum.value,
            "draws": float(new.draws),
            "mcse_share": float(np.nanmax(share)) if np.isfinite(share).any() else np.nan,
            "objective_mcse": maximum.value_mcse,
        }

    def position(self, state: MCLAState) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta), for the history."""
        p = state.model.n_beta
        return state.psi[:p], state.psi[p:]

    def status(self, state: MCLAState) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped."""
        return state.status()

    def finish(self, state: MCLAState) -> Estimate:
        """Estimates, standard errors, Monte Carlo errors and diagnostics."""
        return finish_mcla(state)


def _glmm_obstacles(model: HierarchicalModel) -> list[str]:
    found = [
        f"random effect {effect.name!r} is {effect.distribution}: proposal='glmm' is for independent normal effects"
        for effect in model.random_effects
        if effect.family is None or effect.family.name != "normal" or effect.dispersion is None
    ]
    return found or [f"proposal='glmm' starts from EQL: {reason}" for reason in model.obstacles]


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ModelError(f"MCLA: {name} must be one of {choices}; got {value!r}.")


def _check_whole(name: str, value: Any, least: int, may_be_none: bool) -> None:
    if value is None and may_be_none:
        return
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ModelError(f"MCLA: {name} must be a whole number, {least} or more; got {value!r}.")
