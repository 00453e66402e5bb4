"""What a task of importance sampling works on: h, blocks, a proposal, and which draws; draws are made where needed."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from hlik.batch import Batch
from hlik.blocks import Blocks
from hlik.hlikelihood import HLikelihood
from hlik.importance_proposal import Proposal

PIECE = 65_536  # numbers of an array of a piece: 0.5 MB
LEAST = 16  # draws of a piece
DRAWS_KEPT = 25_000_000  # numbers of draws that a process keeps for the next evaluation: 200 MB


@dataclass(frozen=True, eq=False)
class Part:
    """The draws of one task: part `part` of `parts` of the m draws of a randomisation, and the seed of these."""

    m: int
    part: int
    parts: int
    seed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """What tasks need, and nothing that cannot be sent to another process."""

    likelihood: HLikelihood
    blocks: Blocks
    proposal: Proposal
    points: str

    @cached_property
    def case_sums(self) -> sp.csr_array:
        """Sums over the cases of every block."""
        return self.blocks.case_sums()

    @cached_property
    def level_sums(self) -> sp.csr_array:
        """Sums over the effects of every block."""
        return self.blocks.level_sums()

    @cached_property
    def moves_responses(self) -> np.ndarray:
        """Whether each element of theta is in the densities of the responses, not of the effects alone, (r,).

        Told by the slopes of their dispersions at two values of theta: a slope that vanishes at both is none.
        """
        model = self.likelihood.model
        moves = np.zeros(model.n_theta, dtype=bool)
        if model.theta_design is not None:
            moves |= np.any(model.theta_design != 0, axis=0)
        beta, v = np.zeros(model.n_beta), self.proposal.mean[:, None]
        for theta in (0.3 * np.cos(np.arange(model.n_theta)), -0.2 * np.cos(0.5 + np.arange(model.n_theta))):
            found = Batch.at(self.likelihood, beta, v, theta, order=1, with_theta=True)
            for slope in (one for case in found.responses for one in case.dispersion_slopes):
                moves |= np.any(slope != 0, axis=0)  # NaN counts as a slope
        return moves

    def portable(self) -> Problem:
        """The same without what only reports need: it can be pickled."""
        likelihood = copy.copy(self.likelihood)
        effects = tuple(replace(effect, location=None) for effect in likelihood.model.random_effects)
        nothing: dict[str, Any] = {}
        likelihood.model = replace(
            likelihood.model,
            random_effects=effects,
            forms=nothing,
            graph_maps=nothing,
            constant_data=nothing,
            source=None,
        )
        return replace(self, likelihood=likelihood)

    def split(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta)."""
        p = self.likelihood.model.n_beta
        return psi[:p], psi[p:]

    def draws(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """v (q, columns) and log densities of the proposal (B, columns)."""
        key = (id(self.proposal), self.points, part.m, part.part, part.parts, part.seed)
        found = _DRAWS.get(key)
        if found is None or found[0] is not self.proposal:
            v, log_density = self.proposal.draw(self.points, part.m, part.part, part.parts, part.seed)
            found = (self.proposal, v, log_density)
            _keep(key, found)
        return found[1], found[2]

    def pieces(self, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same in pieces whose arrays stay in the processor's cache."""
        v, log_density = self.draws(part)
        model = self.likelihood.model
        cases = sum(term.n * max(term.n_predictors, 1) for term in self.likelihood.terms)
        step = max(PIECE // max(cases, model.n_rows, model.n_random, 1), LEAST)
        for start in range(0, v.shape[1], step):
            own = slice(start, start + step)
            yield np.ascontiguousarray(v[:, own]), np.ascontiguousarray(log_density[:, own])

    def at(self, psi: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(beta, v, theta), the draws moved with beta."""
        beta, theta = self.split(psi)
        shift = self.proposal.shift
        return beta, v if shift is None else shift.moved(v, beta), theta

    def block_values(self, batch: Batch) -> np.ndarray:
        """h of every block in every column, shape (B, columns); -inf out of range."""
        total = self.case_sums @ batch.case_values() + self.level_sums @ batch.level_values()
        return np.where(np.isnan(total), -np.inf, total)


_DRAWS: OrderedDict[tuple, tuple[Proposal, np.ndarray, np.ndarray]] = OrderedDict()


def _keep(key: tuple, found: tuple[Proposal, np.ndarray, np.ndarray]) -> None:
    """Keep the first draws that fit: every evaluation goes through them in the same order."""
    size = found[1].size + found[2].size
    stale = [other for other, kept in _DRAWS.items() if other[-1][:2] != key[-1][:2]]
    if sum(kept[1].size + kept[2].size for kept in _DRAWS.values()) + size > DRAWS_KEPT:
        for other in stale:
            del _DRAWS[other]
    if sum(kept[1].size + kept[2].size for kept in _DRAWS.values()) + size <= DRAWS_KEPT:
        _DRAWS[key] = found
