"""A problem of importance sampling cut into groups of blocks: models of their own, with the same parameters.

Nothing links the blocks: a group of them has its own responses, effects and proposal, and what tasks find for groups
is put together by block. How a problem is cut depends on its size alone, so that results do not depend on workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from hlik.blocks import Blocks
from hlik.hlikelihood import HLikelihood
from hlik.importance_problem import Problem
from hlik.importance_proposal import Affine, Proposal
from hlik.importance_shift import Shift
from hlik.maps import ThetaMap
from hlik.model import HierarchicalModel, RandomEffect, Response
from hlik.terms import FamilyTerm, RandomTerm


@dataclass(frozen=True, eq=False)
class Group:
    """Some blocks of a problem.

    Attributes
    ----------
    problem
        Of these blocks alone.
    blocks, effects
        Their numbers, and those of their effects, in the whole.
    sizes
        For every size of block that the group has: its place among the sizes of the whole, and the places of the
        group's blocks among those of that size.
    """

    problem: Problem
    blocks: np.ndarray
    effects: np.ndarray
    sizes: tuple[tuple[int, np.ndarray], ...]


def groups_of(problem: Problem, count: int) -> tuple[Group, ...]:
    """`count` groups of consecutive blocks with about as many cases each; one where the model cannot be cut."""
    blocks = problem.blocks
    count = min(count, blocks.count) if _can_be_cut(problem.likelihood) else 1
    if count <= 1:
        sizes = tuple((g, np.arange(numbers.size)) for g, numbers in enumerate(problem.proposal.numbers))
        return (Group(problem, np.arange(blocks.count), np.arange(blocks.member.size), sizes),)
    load = np.cumsum(np.bincount(blocks.case_member, minlength=blocks.count) + blocks.size)
    ends = np.searchsorted(load, load[-1] * np.arange(1, count) / count, side="left") + 1
    edges = np.unique(np.concatenate([[0], np.minimum(ends, blocks.count), [blocks.count]]))
    return tuple(_group(problem, int(start), int(stop)) for start, stop in pairwise(edges))


def _can_be_cut(likelihood: HLikelihood) -> bool:
    """Whether the densities of responses and effects are known families, a row an observation."""
    families = all(isinstance(term, FamilyTerm) for term in likelihood.terms)
    return families and all(isinstance(term, RandomTerm) for term in likelihood.random_terms)


def _group(problem: Problem, start: int, stop: int) -> Group:
    """Blocks `start` to `stop`."""
    blocks, proposal = problem.blocks, problem.proposal
    rows = (blocks.case_member >= start) & (blocks.case_member < stop)
    effects = (blocks.member >= start) & (blocks.member < stop)
    likelihood = HLikelihood(_model_of(problem.likelihood.model, rows, effects))
    sizes = []
    for g, numbers in enumerate(proposal.numbers):
        own = np.flatnonzero((numbers >= start) & (numbers < stop))
        if own.size:
            sizes.append((g, own))
    part = Problem(likelihood, Blocks.of(likelihood), _proposal_of(proposal, sizes, effects, start), problem.points)
    return Group(part, np.arange(start, stop), np.flatnonzero(effects), tuple(sizes))


def _proposal_of(proposal: Proposal, sizes: list[tuple[int, np.ndarray]], effects: np.ndarray, start: int) -> Proposal:
    place = np.cumsum(effects) - 1
    cut: dict[int, Affine] = {}  # components that share an affine map go on sharing it

    def some(affine: Affine, own: np.ndarray) -> Affine:
        if id(affine) not in cut:
            cut[id(affine)] = Affine(affine.mean[own], affine.root[own], affine.inverse[own], affine.log_det[own])
        return cut[id(affine)]

    shift = proposal.shift
    return Proposal(
        tuple(replace(c, groups=tuple(some(c.groups[g], own) for g, own in sizes)) for c in proposal.components),
        tuple(place[proposal.effects[g][own]] for g, own in sizes),
        tuple(proposal.numbers[g][own] - start for g, own in sizes),
        None if shift is None else Shift(shift.beta, shift.slope[effects]),
    )


def _model_of(model: HierarchicalModel, rows: np.ndarray, effects: np.ndarray) -> HierarchicalModel:
    """The model of some rows and effects; parameters stay."""
    responses, random, start = [], [], 0
    for response in model.responses:
        responses.append(_response_of(response, rows[response.rows], start))
        start += responses[-1].rows.stop - responses[-1].rows.start
    start = 0
    for effect in model.random_effects:
        random.append(_effect_of(effect, effects[effect.index], start))
        start += random[-1].size
    return replace(
        model,
        responses=tuple(responses),
        random_effects=tuple(random),
        X=model.X[rows],
        Z=sp.csr_array(model.Z[rows][:, effects]),
        offset=model.offset[rows],
        theta_design=None if model.theta_design is None else model.theta_design[rows],
    )


def _response_of(response: Response, own: np.ndarray, start: int) -> Response:
    return replace(
        response,
        rows=slice(start, start + int(own.sum())),
        y=response.y[own],
        weight=_values_of(response.weight, own),
        trials=None if response.trials is None else _values_of(response.trials, own),
        dispersion=_map_of(response.dispersion, own),
    )


def _effect_of(effect: RandomEffect, own: np.ndarray, start: int) -> RandomEffect:
    index = slice(start, start + int(own.sum()))
    return replace(effect, index=index, dispersion=_map_of(effect.dispersion, own))


def _values_of(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    return values[own] if np.size(values) == own.size else values


@dataclass(frozen=True, eq=False)
class SomeValues:
    """Some values of a map."""

    inner: ThetaMap
    chosen: np.ndarray

    @property
    def size(self) -> int:
        """Number of values m."""
        return self.chosen.size

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return self.inner.value(theta)[self.chosen]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (m, r)."""
        return self.inner.jacobian(theta)[self.chosen]


def _map_of(found: ThetaMap | None, own: np.ndarray) -> ThetaMap | None:
    """The values for some rows; a map of one value serves all."""
    return found if found is None or found.size == 1 else SomeValues(found, np.flatnonzero(own))
