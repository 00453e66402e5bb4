r"""The work of importance sampling in tasks that any process can do: a part of the draws of one randomisation.

A task gets a `Problem` (h, blocks, proposal: arrays only), parameters psi, and says which draws it is about; draws are
made where they are needed, from their seed. It returns sums over its draws, block by block. With weights
``w_bm = exp(h_b(v_m)) / q_b(v_m)`` and their mean over all draws of all randomisations ``exp(L_b)``:

* `log_sums`: ``log sum w`` and ``log sum w^2`` of every block;
* `derivatives`: with ``p = w / exp(L_b)``, sums of ``p dh_b/dpsi``, and of ``p (d2h_b + dh_b dh_b')`` over all blocks;
* `moments`: sums of ``p v`` and ``p (v - mean)(v - mean)'``, for the adaptation of the proposal;
* `log_weights`: the weights themselves.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hlik.batch import Batch
from hlik.hlikelihood import stacked_weights
from hlik.importance_problem import Part, Problem
from hlik.importance_proposal import FULL
from hlik.linalg.threads import limited_blas

STEP = 1e-4  # of theta, in central differences of exact gradients: error about 1e-8 of the third derivative


class Sums(NamedTuple):
    """Sums over the draws of a task."""

    weight: np.ndarray  # of p, shape (B,)
    gradient: np.ndarray  # of p dh_b/dpsi, shape (p + r, B)
    outer: np.ndarray  # of p dh_b dh_b' over blocks, shape (p + r, p + r)
    curvature: np.ndarray  # of p d2h_b over blocks, the same shape


class Moments(NamedTuple):
    """Sums over the draws of a task."""

    first: np.ndarray  # of p v, shape (q,)
    second: tuple[np.ndarray, ...]  # of p (v - mean)(v - mean)', for every size of block; see `Proposal.adapted`


_PROBLEMS: OrderedDict[str, Problem] = OrderedDict()


def run_task(function: Callable[..., Any], token: str, payload: bytes | Problem, part: Part, *arguments: Any) -> Any:
    """One task. A pickled problem is unpacked once per process: `token` is its name."""
    with limited_blas:
        if isinstance(payload, Problem):
            return function(payload, part, *arguments)
        if token not in _PROBLEMS:
            _PROBLEMS[token] = pickle.loads(payload)
            while len(_PROBLEMS) > 2:
                _PROBLEMS.popitem(last=False)
        return function(_PROBLEMS[token], part, *arguments)


def log_weights(problem: Problem, part: Part, psi: np.ndarray) -> np.ndarray:
    """``h_b - log q_b`` of every block and draw, shape (B, columns)."""
    found = [
        problem.block_values(Batch.at(problem.likelihood, *problem.at(psi, v))) - log_density
        for v, log_density in problem.pieces(part)
    ]
    return np.concatenate(found, axis=1)


def log_sums(problem: Problem, part: Part, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the sums of the weights and of their squares, by block, shape (B,)."""
    found = log_weights(problem, part, psi)
    top = np.maximum(found.max(axis=1), -1e300)
    weight = np.exp(found - top[:, None])
    with np.errstate(divide="ignore"):
        return top + np.log(weight.sum(axis=1)), 2 * top + np.log((weight**2).sum(axis=1))


def derivatives(problem: Problem, part: Part, psi: np.ndarray, log_norm: np.ndarray, with_curvature: bool) -> Sums:
    """Sums of weighted derivatives; `log_norm` (B,) is the logarithm of the sum of all weights of a block."""
    found = [_derivatives(problem, psi, log_norm, with_curvature, *piece) for piece in problem.pieces(part)]
    return Sums(*(sum(parts[1:], start=parts[0]) for parts in zip(*found, strict=True)))


def _derivatives(
    problem: Problem,
    psi: np.ndarray,
    log_norm: np.ndarray,
    with_curvature: bool,
    v: np.ndarray,
    log_density: np.ndarray,
) -> Sums:
    """`derivatives` for a piece of the draws."""
    likelihood, model = problem.likelihood, problem.likelihood.model
    at = problem.at(psi, v)
    batch = Batch.at(likelihood, *at, order=2 if with_curvature else 1, with_theta=True)
    values = problem.block_values(batch)
    weight = np.exp(values - log_density - log_norm[:, None])
    lost = np.isneginf(values)
    if lost.any():  # draws out of range have no weight, and no derivatives either: the mean stands in for them
        at = at[0], np.where(lost[problem.blocks.member], problem.proposal.mean[:, None], v), at[2]
        batch = Batch.at(likelihood, *at, order=2 if with_curvature else 1, with_theta=True)
    gradients = batch.block_gradients(problem.case_sums, problem.level_sums)
    shift = problem.proposal.shift
    if shift is not None:
        gradients[: model.n_beta] += shift.block_gradients(batch, problem.level_sums)
    size = gradients.shape[0]
    weighted = gradients * weight
    outer = weighted.reshape(size, -1) @ gradients.reshape(size, -1).T
    curvature = np.zeros((size, size))
    if with_curvature:
        case_weight, level_weight = weight[problem.blocks.case_member], weight[problem.blocks.member]
        curvature = _curvature(problem, batch, at, case_weight, level_weight)
        curvature[: model.n_beta, : model.n_beta] = _beta_curvature(problem, batch, case_weight, level_weight)
    return Sums(weight.sum(axis=1), weighted.sum(axis=2), outer, curvature)


def _beta_curvature(problem: Problem, batch: Batch, case_weight: np.ndarray, level_weight: np.ndarray) -> np.ndarray:
    """``-X' W X`` with the weighted mean of the observed weights, pairs of predictors included.

    Where draws follow beta, X is ``X + Z A``, and the effects' own curvature is added.
    """
    likelihood, shift = problem.likelihood, problem.proposal.shift
    parts, start = [], 0
    for term, found in zip(likelihood.terms, batch.responses, strict=True):
        own = case_weight[start : start + term.n]
        parts.append(np.einsum("knm,nm->kn", found.weight, own))
        start += term.n
    weight = stacked_weights(likelihood, parts)
    if shift is None:
        return -(likelihood.X.T * weight) @ likelihood.X
    design = shift.design(likelihood)
    return -(design.T * weight) @ design - shift.level_curvature(batch, level_weight)


def _curvature(
    problem: Problem,
    batch: Batch,
    at: tuple[np.ndarray, np.ndarray, np.ndarray],
    case_weight: np.ndarray,
    level_weight: np.ndarray,
) -> np.ndarray:
    """Columns of theta of the weighted second derivatives: central differences of exact gradients, weights held."""
    beta, v, theta = at
    p, r = beta.size, theta.size
    result = np.zeros((p + r, p + r))
    for k in range(r):
        ends = []
        for sign in (1.0, -1.0):
            moved = theta.copy()
            moved[k] += sign * STEP
            there = _moved(problem, batch, (beta, v, moved), k)
            end = there.gradient(case_weight, level_weight)
            if problem.proposal.shift is not None:
                end[:p] += problem.proposal.shift.gradient(there, case_weight, level_weight)
            ends.append(end)
        result[:, p + k] = (ends[0] - ends[1]) / (2 * STEP)
    result[p:, :p] = result[:p, p:].T
    result[p:, p:] = 0.5 * (result[p:, p:] + result[p:, p:].T)
    return result


def _moved(problem: Problem, batch: Batch, at: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> Batch:
    """First derivatives at a theta whose element k has moved: those of the responses stay where k is not in them."""
    beta, v, theta = at
    likelihood = problem.likelihood
    if problem.moves_responses[k]:
        return Batch.at(likelihood, beta, v, theta, order=1, with_theta=True)
    effects = zip(likelihood.model.random_effects, likelihood.random_terms, strict=True)
    return replace(batch, effects=tuple(term.cases(v[e.index], theta, 1, True) for e, term in effects))


def moments(problem: Problem, part: Part, psi: np.ndarray, log_norm: np.ndarray) -> Moments:
    """Weighted moments of v."""
    v = problem.draws(part)[0]
    weight = np.exp(log_weights(problem, part, psi) - log_norm[:, None])
    proposal = problem.proposal
    first = np.einsum("qm,qm->q", v, weight[problem.blocks.member])
    second = []
    for affine, effects, numbers in zip(proposal.components[0].groups, proposal.effects, proposal.numbers, strict=True):
        moved = v[effects] - affine.mean[:, :, None]
        own = weight[numbers][:, None, :]
        if effects.shape[1] > FULL:
            second.append((moved**2 * own).sum(axis=2))
        else:
            second.append((moved * own) @ np.swapaxes(moved, 1, 2))
    return Moments(first, tuple(second))
