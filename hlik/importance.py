r"""The marginal likelihood by importance sampling, with exact derivatives and its Monte Carlo error.

With blocks b of random effects, draws v_m of proposals q_b, and R independent randomisations of n draws each,

.. math:: \ell(\psi) = \sum_b \log \bar w_b, \qquad \bar w_b = \frac{1}{Rn} \sum_m w_{bm}, \qquad
          w_{bm} = \exp(h_b(v_m; \psi)) / q_b(v_m),

.. math:: \ell' = \sum_b E_b\, h_b', \qquad \ell'' = \sum_b E_b\, h_b'' + \mathrm{cov}_b\, h_b',

with the expectations over draws weighted by ``w / sum w`` (Geyer & Thompson 1992). The draws stay, or follow the fixed
effects by a fixed linear map (`hlik.importance_shift`): the objective is smooth, and has an ordinary maximum. Its error
comes from the randomisations: with the means ``D_br`` and ``N_br`` of w and of w h' in randomisation r, the influence
of r on l is ``sum_b D_br / D_b`` and that on l' is ``sum_b (N_br - N_b D_br / D_b) / D_b`` (delta method); the variance
of l and l' is that of the influences, divided by R, and the estimate's is ``J^-1 var(l') J^-1`` with J = -l''.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import numpy as np

from hlik.executors import run_all
from hlik.importance_problem import Part, Problem
from hlik.importance_proposal import FULL, Proposal
from hlik.importance_split import Group, groups_of
from hlik.importance_tasks import derivatives, log_sums, log_weights, moments, run_task

CELLS = 2_000_000  # numbers of one array of a task: 16 MB
TOGETHER = 64  # draws of a task at least, where there are several blocks


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Of l at one psi.

    Attributes
    ----------
    gradient
        Shape (p + r,).
    hessian
        Second derivatives, (p + r, p + r); None where not asked for.
    influence
        Of every randomisation on the gradient, (R, p + r), and on l, (R,): `value_influence`.
    bias
        Of the gradient, by the second-order term of the ratio of means, (p + r,).
    """

    gradient: np.ndarray
    hessian: np.ndarray | None
    influence: np.ndarray
    value_influence: np.ndarray
    bias: np.ndarray

    def gradient_covariance(self) -> np.ndarray:
        """Monte Carlo covariance of the gradient."""
        r = self.influence.shape[0]
        return self.influence.T @ self.influence / (r * max(r - 1, 1))

    def value_mcse(self) -> float:
        """Monte Carlo standard error of l."""
        r = self.value_influence.size
        return float(np.sqrt(np.sum(self.value_influence**2) / (r * max(r - 1, 1))))


@dataclass(frozen=True, eq=False)
class ImportanceLikelihood:
    """l(psi) for fixed draws.

    Attributes
    ----------
    problem
        h, blocks, proposal and kind of points.
    n
        Draws of one randomisation.
    randomisations
        Their number R.
    seed
        Entropy of the draws: another seed gives independent draws.
    executor
        Where tasks run; None: here.
    """

    problem: Problem
    n: int
    randomisations: int
    seed: tuple[int, ...]
    executor: Executor | None = None
    _token: str = field(default_factory=lambda: uuid4().hex)
    _groups: list[Group] = field(default_factory=list)
    _payloads: list[Any] = field(default_factory=list)
    _memory: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _derivatives: dict[tuple[bytes, bool], Derivatives] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """Draws in all."""
        return self.n * self.randomisations

    @property
    def groups(self) -> list[Group]:
        """Groups of blocks, so few rows in each that an array of a task has room for `TOGETHER` draws of them."""
        if not self._groups:
            self._groups.extend(groups_of(self.problem, -(-_widest(self.problem) * TOGETHER // CELLS)))
        return self._groups

    def parts(self) -> int:
        """Parts of a randomisation, one a task: as few as keep the arrays small."""
        widest = max(_widest(group.problem) for group in self.groups)
        wanted = -(-self.n * widest // CELLS)
        return int(min(self.n, 1 << max(int(wanted) - 1, 0).bit_length()))

    def _part(self, group: int, randomisation: int, part: int) -> Part:
        own = (group,) if len(self.groups) > 1 else ()
        return Part(self.n, part, self.parts(), (*self.seed, randomisation, *own))

    def _run(
        self, function: Callable[..., Any], psi: np.ndarray, *arguments: Any, norm: np.ndarray | None = None
    ) -> Iterator[tuple[Group, int, Any]]:
        """Results of a function for every task, with its group and randomisation, always in the same order.

        A task is a group of blocks in a part of a randomisation; `norm` (B,) is cut to the blocks of the group.
        """
        if not self._payloads:
            here = self.executor is None
            problems = [group.problem for group in self.groups]
            self._payloads.extend(problems if here else [pickle.dumps(one.portable()) for one in problems])
        parts = range(self.parts())
        places = [(g, r, k) for g in range(len(self.groups)) for r in range(self.randomisations) for k in parts]
        tasks = []
        for g, r, k in places:
            own = () if norm is None else (norm[self.groups[g].blocks],)
            head = (function, f"{self._token}-{g}", self._payloads[g], self._part(g, r, k))
            tasks.append((*head, psi, *own, *arguments))
        for (g, r, _), result in zip(places, run_all(self.executor, run_task, tasks), strict=True):
            yield self.groups[g], r, result

    def _sums(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``log sum w`` by block and randomisation, (B, R), and ``log sum w^2``, (B,)."""
        key = psi.tobytes()
        if key not in self._memory:
            total = np.full((self.problem.blocks.count, self.randomisations), -np.inf)
            squares = np.full(self.problem.blocks.count, -np.inf)
            for group, r, (one, two) in self._run(log_sums, psi):
                total[group.blocks, r] = np.logaddexp(total[group.blocks, r], one)
                squares[group.blocks] = np.logaddexp(squares[group.blocks], two)
            while len(self._memory) >= 4:
                del self._memory[next(iter(self._memory))]
            self._memory[key] = (total, squares)
        return self._memory[key]

    def log_norm(self, psi: np.ndarray) -> np.ndarray:
        """Logarithm of the sum of all weights of every block, shape (B,)."""
        return np.logaddexp.reduce(self._sums(psi)[0], axis=1)

    def value(self, psi: np.ndarray) -> float:
        """l at psi; -inf where a block has no weight."""
        return float(np.sum(self.log_norm(psi) - np.log(self.draws)))

    def value_mcse(self, psi: np.ndarray) -> float:
        """Monte Carlo standard error of l, that of `Derivatives`, from the weights alone."""
        total, R = self._sums(psi)[0], self.randomisations
        influence = R * np.exp(total - self.log_norm(psi)[:, None]).sum(axis=0) - total.shape[0]
        return float(np.sqrt(np.sum(influence**2) / (R * max(R - 1, 1))))

    def effective_sizes(self, psi: np.ndarray) -> np.ndarray:
        """Effective number of draws of every block, ``(sum w)^2 / sum w^2``, shape (B,)."""
        return np.exp(2 * self.log_norm(psi) - self._sums(psi)[1])

    def derivatives(self, psi: np.ndarray, hessian: bool = True) -> Derivatives:
        """Gradient, Hessian and Monte Carlo error of both l and its gradient; the last ones are remembered."""
        for found in ((psi.tobytes(), True), (psi.tobytes(), hessian)):
            if found in self._derivatives:
                return self._derivatives[found]
        while len(self._derivatives) >= 4:
            del self._derivatives[next(iter(self._derivatives))]
        return self._derivatives.setdefault((psi.tobytes(), hessian), self._differentiate(psi, hessian))

    def _differentiate(self, psi: np.ndarray, hessian: bool) -> Derivatives:
        norm = self.log_norm(psi)
        size, count = psi.size, self.problem.blocks.count
        R = self.randomisations
        weight, gradient = np.zeros((R, count)), np.zeros((R, size, count))
        outer, curvature = np.zeros((size, size)), np.zeros((size, size))
        for group, r, sums in self._run(derivatives, psi, hessian, norm=norm):
            weight[r, group.blocks] += sums.weight
            gradient[r][:, group.blocks] += sums.gradient
            outer += sums.outer
            curvature += sums.curvature
        by_block = gradient.sum(axis=0)
        residual = R * (gradient - by_block * weight[:, None, :])  # of N_br - G_b D_br, in units of D_b
        bias = -np.einsum("rkb,rb->k", residual, R * weight - 1.0) / (R * max(R - 1, 1))
        total = curvature + outer - by_block @ by_block.T if hessian else None
        return Derivatives(by_block.sum(axis=1), total, residual.sum(axis=2), R * weight.sum(axis=1) - count, bias)

    def moments(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of v given the responses, shapes (q,)."""
        first, second = self._moments(psi)
        spread = np.empty_like(first)
        proposal = self.problem.proposal
        for affine, effects, moment in zip(proposal.components[0].groups, proposal.effects, second, strict=True):
            diagonal = moment if moment.ndim == 2 else np.einsum("bii->bi", moment)
            spread[effects] = diagonal - (first[effects] - affine.mean) ** 2
        if proposal.shift is not None:
            first = proposal.shift.moved(first, self.problem.split(psi)[0])
        return first, np.maximum(spread, 0.0)

    def adapted(self, psi: np.ndarray) -> Proposal:
        """The proposal with the moments of these draws."""
        first, second = self._moments(psi)
        return self.problem.proposal.adapted(first, second, self.effective_sizes(psi))

    def _moments(self, psi: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Weighted means of v, and second moments about the proposal's means: see `Proposal.adapted`."""
        proposal = self.problem.proposal
        first = np.zeros(proposal.n_effects)
        shapes = [
            effects.shape if effects.shape[1] > FULL else (*effects.shape, effects.shape[1])
            for effects in proposal.effects
        ]
        second = [np.zeros(shape) for shape in shapes]
        for group, _, found in self._run(moments, psi, norm=self.log_norm(psi)):
            first[group.effects] += found.first
            for (size, own), moment in zip(group.sizes, found.second, strict=True):
                second[size][own] += moment
        return first, second

    def log_weights(self, psi: np.ndarray) -> np.ndarray:
        """Logarithms of the weights, shape (B, draws)."""
        found: dict[int, list[np.ndarray]] = {}
        for group, _, values in self._run(log_weights, psi):
            found.setdefault(int(group.blocks[0]), []).append(values)
        return np.concatenate([np.concatenate(values, axis=1) for values in found.values()])

    def draws_of_v(self, psi: np.ndarray) -> np.ndarray:
        """The draws themselves at psi, in the order of `log_weights`, shape (q, draws)."""
        v = np.empty((self.problem.proposal.n_effects, self.draws))
        for g, group in enumerate(self.groups):
            places = [(r, k) for r in range(self.randomisations) for k in range(self.parts())]
            v[group.effects] = np.concatenate(
                [group.problem.draws(self._part(g, *place))[0] for place in places], axis=1
            )
        shift = self.problem.proposal.shift
        return v if shift is None else shift.moved(v, self.problem.split(psi)[0])

    def fewer(self, randomisations: int) -> ImportanceLikelihood:
        """The first randomisations alone."""
        few = max(1, min(randomisations, self.randomisations))
        if few == self.randomisations:
            return self
        return replace(self, randomisations=few, _memory={}, _derivatives={})


def _widest(problem: Problem) -> int:
    """Numbers of the longest array of a draw."""
    model = problem.likelihood.model
    cases = sum(term.n * max(term.n_predictors, 1) for term in problem.likelihood.terms)
    return max(cases, model.n_rows, model.n_random, problem.blocks.count * (model.n_beta + model.n_theta), 1)
