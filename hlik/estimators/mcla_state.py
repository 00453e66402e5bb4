r"""The state of Monte Carlo likelihood: proposals on the way to the maximum, then draws that grow in number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hlik.adjusted_profile import ModeError
from hlik.blocks import Blocks
from hlik.estimators.base import CONVERGED, RUNNING
from hlik.estimators.boundary import zero_sentences
from hlik.estimators.laplace_objective import Objective, active_parameters, boundary_terms
from hlik.estimators.mcla_recheck import Recheck
from hlik.importance import ImportanceLikelihood
from hlik.importance_diagnostics import LARGE, Weights, weights_at
from hlik.importance_maximum import Maximum, at_maximum, flat_direction, maximise
from hlik.importance_problem import Problem
from hlik.importance_proposal import Proposal, laplace_proposal
from hlik.importance_shift import Shift
from hlik.model import HierarchicalModel

if TYPE_CHECKING:
    from hlik.estimators.mcla import MCLA

ADAPTATION = 256  # draws of a randomisation that adapt the proposal, twice
PILOT = 32  # the same where a block is large: its covariance is hardly adapted
FIRST = 128  # draws of a randomisation at first
NEAR = 0.5  # standard errors: a proposal made so near to the maximum serves for it
NEARLY_ZERO = 0.05  # part of the precision of effects that the data add, below which Laplace's error is negligible
REACH = 3.0  # standard errors: how far one proposal lets the parameters move
MAX_APPROACH = 12
SECOND = 512  # draws of a randomisation that recheck a maximum
ADVICE = {"laplace": "use Monte Carlo EM", "glmm": "use proposal='laplace', or Monte Carlo EM"}
RECHECKS = 2000  # number of the first set of those draws


@dataclass(frozen=True, eq=False)
class MCLAState:
    """What the next step needs.

    Attributes
    ----------
    objective
        Laplace's, for modes.
    covariance
        Metric of the search.
    entropy, stage
        Seed of all draws, and the number of the set of draws that comes next.
    is_near
        Whether the proposal is frozen.
    zero
        psi with Laplace's values for the variances that Laplace puts at zero, NaN elsewhere; None where there are none.
    """

    settings: MCLA
    objective: Objective
    blocks: Blocks
    psi: np.ndarray
    covariance: np.ndarray
    entropy: int
    stage: int = 0
    approaches: int = 0
    is_near: bool = False
    proposal: Proposal | None = None
    likelihood: ImportanceLikelihood | None = None
    maximum: Maximum | None = None
    weights: Weights | None = None
    recheck: Recheck | None = None
    zero: np.ndarray | None = None

    @property
    def model(self) -> HierarchicalModel:
        """The model."""
        return self.objective.profile.likelihood.model

    @property
    def draws(self) -> int:
        """Draws of each block in all, 0 before the first."""
        return 0 if self.likelihood is None else self.likelihood.draws

    def sample(self, proposal: Proposal, n: int, stage: int) -> ImportanceLikelihood:
        """The likelihood with n draws a randomisation."""
        settings = self.settings
        problem = Problem(self.objective.profile.likelihood, self.blocks, proposal, settings.points)
        return ImportanceLikelihood(problem, n, settings.randomisations, (self.entropy, stage), settings.executor)

    def _active(self, psi: np.ndarray) -> np.ndarray:
        try:
            return active_parameters(self.objective, psi)
        except ModeError:
            return np.ones(psi.size, dtype=bool)

    def _maximise(self, likelihood: ImportanceLikelihood, reach: float) -> Maximum:
        settings = self.settings
        return maximise(
            likelihood,
            self.psi,
            self.covariance,
            self._active(self.psi),
            tol=settings.tol,
            radius=settings.trust_radius,
            max_radius=settings.max_trust_radius,
            reach=reach,
        )

    def proposal_here(self, stage: int) -> tuple[Proposal, int]:
        """A proposal at the mode for the present parameters, adapted twice; and the stage of the next draws."""
        if self.settings.proposal == "glmm" and self.proposal is not None:
            return self.proposal, stage
        mode = self.objective.mode(self.psi)
        likelihood = self.objective.profile.likelihood
        proposal = laplace_proposal(self.blocks, mode, self.settings.laplace_shares, self.settings.df)
        proposal = replace(proposal, shift=Shift.of(likelihood, self.psi[: self.model.n_beta], mode))
        for _ in range(2):
            proposal = self.sample(proposal, self._early, stage).adapted(self.psi)
            stage += 1
        return proposal, stage

    @property
    def _early(self) -> int:
        """Draws of a randomisation before the proposal is frozen."""
        return PILOT if self.blocks.largest > LARGE else ADAPTATION

    def approach(self) -> MCLAState:
        """A proposal for the present parameters; the maximum as far as it can be trusted."""
        proposal, stage = self.proposal_here(self.stage)
        likelihood = self.sample(proposal, self._early, stage)
        if self.blocks.largest > LARGE:
            weights = weights_at(likelihood, self.psi)
            if weights.are_hopeless:  # said after a pilot of few draws
                found = at_maximum(likelihood, self.psi, self._active(self.psi))
                return replace(self, stage=stage + 1, likelihood=likelihood, maximum=found, weights=weights)
        found = self._maximise(likelihood, REACH)
        is_near = found.moved < NEAR or self.approaches + 1 >= MAX_APPROACH
        new = replace(
            self,
            psi=found.psi,
            stage=stage + 1,
            approaches=self.approaches + 1,
            proposal=proposal,
            likelihood=likelihood,
            maximum=found,
        )
        new = replace(new, covariance=_metric(found.covariance, self.covariance), is_near=is_near)
        return new._at_zero() or new

    def _at_zero(self) -> MCLAState | None:
        """With the variances at zero that Laplace puts there, where these are so small that Laplace is exact."""
        if self.zero is None:
            return None
        there = np.where(np.isnan(self.zero), self.psi, self.zero)
        here, mode = self.objective.evaluate(self.psi), self.objective.evaluate(there)
        if here is None or mode is None or mode.value < here.value:
            return None
        gone = boundary_terms(self.model, mode)
        if not gone or not set(gone) <= set(boundary_terms(self.model, here, NEARLY_ZERO)):
            return None
        return replace(self, psi=there, zero=None, is_near=False)

    def final(self) -> MCLAState:
        """The maximum with new draws, more of them than before."""
        assert self.proposal is not None
        likelihood = self.sample(self.proposal, self._next_n(), self.stage)
        found = self._maximise(likelihood, np.inf if self.settings.proposal == "glmm" else REACH)
        weights = weights_at(likelihood, found.psi)
        recheck = self._rechecked(found) if self.settings.proposal == "glmm" else None
        if recheck is not None and recheck.is_reliable:
            found = recheck.corrected(found)
        elif weights.are_hopeless:
            found = found.without_error()
        return replace(
            self,
            psi=found.psi,
            stage=self.stage + 1,
            likelihood=likelihood,
            maximum=found,
            weights=weights,
            recheck=recheck,
            covariance=_metric(found.covariance, self.covariance),
        )

    def _rechecked(self, found: Maximum) -> Recheck:
        """A second opinion on a maximum, by a proposal made there, block by block."""
        blocks = Blocks.of(self.objective.profile.likelihood)
        settings = replace(self.settings, proposal="laplace", shares=None)
        there = replace(self, settings=settings, blocks=blocks, psi=found.psi)
        proposal, stage = there.proposal_here(RECHECKS + 3 * self.stage)
        return Recheck.of(there.sample(proposal, SECOND, stage), found)

    def _next_n(self) -> int:
        """Draws of the next randomisations: as many as the errors of the last ones ask for, in powers of two."""
        settings = self.settings
        if settings.m is not None:
            return -(-settings.m // settings.randomisations)
        most = max(settings.max_m // settings.randomisations, 1)
        if self.maximum is None or self.likelihood is None:
            return min(FIRST, most)
        times = growth(float(np.nanmax(self.maximum.share(), initial=0.0)) / settings.mcse)
        if self.weights is None:  # the errors are those of the last draws on the way
            return int(np.clip(self.likelihood.n * 2 ** (times - 1), FIRST, most))
        return int(min(self.likelihood.n * 2**times, most))

    def status(self) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped."""
        if self.weights is None or self.maximum is None:
            return RUNNING
        settings = self.settings
        share = self.maximum.share()
        met = bool(np.all(share[np.isfinite(share)] <= settings.mcse))
        full = settings.m is not None or self.draws >= (settings.max_m // settings.randomisations) * (
            settings.randomisations
        )
        if not self.weights.are_reliable and (full or self.weights.are_hopeless):
            return self.weights.verdict(ADVICE[settings.proposal])
        if not (met and self.weights.are_reliable) and not full:
            return RUNNING
        failure = None if self.recheck is None else self.recheck.failure(settings.mcse)
        if failure is not None:
            return failure
        active = self._active(self.psi)
        flat = flat_direction(self.maximum, active)
        if flat is not None:
            return f"stopped: the likelihood is flat in {self._name(flat)}: fix it, or simplify the model"
        if not np.isfinite(self.maximum.decrement) and active.any():
            return "stopped: the likelihood has no maximum here: its Hessian is not negative definite"
        if self.maximum.decrement > 10 * settings.tol:
            return "stopped: the search ended before the maximum: pass better start values, or raise max_trust_radius"
        if not met and settings.m is None:
            worst = float(np.nanmax(share))
            return f"stopped: the Monte Carlo error is {worst:.1%} of a standard error at max_m={settings.max_m} draws"
        mode = self.objective.mode(self.psi)
        sentences = zero_sentences(self.model, boundary_terms(self.model, mode), mode.point.theta)
        return "boundary: " + "; ".join(sentences) if sentences else CONVERGED

    def _name(self, place: int) -> str:
        """The parameter that an element of psi belongs to."""
        p = self.model.n_beta
        parameters = self.model.fixed_effects if place < p else self.model.dispersion_parameters
        own = place if place < p else place - p
        return next(repr(one.name) for one in parameters if one.index.start <= own < one.index.stop)


def growth(ratio: float) -> int:
    """Doublings of the draws, 1 to 4, where errors are `ratio` times too large: they fall with the draws' power 2/3."""
    return int(np.clip(np.ceil(1.5 * np.log2(max(ratio, 1.0))), 1, 4))


def _metric(found: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The covariance found, where there is one."""
    known = np.isfinite(np.diag(found))
    return np.where(np.outer(known, known), found, np.where(np.eye(known.size) > 0, old, 0.0))
