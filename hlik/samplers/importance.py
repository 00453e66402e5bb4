"""Importance resampling: Laplace's approximation at the parameters proposes, block by block, with Sobol points.

Effects of different blocks are independent given y: every block is resampled by itself, with weights
``exp(h_b(v)) / q_b(v)``, systematically (Carpenter, Clifford & Fearnhead 1999), and put together in random order.
Nothing is compiled. Chains are independent randomisations, so that errors come from the spread between them.
"""

from __future__ import annotations

import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.batch import Batch, columns_at_once
from hlik.blocks import Blocks
from hlik.errors import ModelError
from hlik.hlikelihood import HLikelihood
from hlik.importance_diagnostics import pareto_k
from hlik.importance_proposal import Proposal, laplace_proposal
from hlik.samplers.base import Draws

SHARES = (0.5, 0.5)  # normal, t
DF = 5.0
RELIABLE = 0.7  # Pareto k above which importance weights are not to be trusted (Vehtari et al. 2024)
ALONE = 256  # draws of a chain from which on it is resampled by itself
MOST_TESTED = 200  # blocks whose k is computed: those with the most unequal weights


class ImportanceSampler:
    """Independent draws of the effects, equally weighted after resampling."""

    def __init__(self, likelihood: HLikelihood, start: np.ndarray, chains: int):
        self.likelihood, self.chains = likelihood, max(chains, 8)
        self.blocks = Blocks.of(likelihood)
        self.profile = Profile(likelihood)
        self.v = start
        self.compilations = 0
        self._case_sums, self._level_sums = self.blocks.case_sums(), self.blocks.level_sums()

    def restore(self, position: np.ndarray, step_size: np.ndarray | None) -> None:
        """The first position is where the mode is sought from."""
        self.v = position[0]

    def proposal(self, beta: np.ndarray, theta: np.ndarray) -> Proposal:
        """The mixture at the mode of h for these parameters."""
        try:
            mode = self.profile.mode(np.concatenate([beta, theta]), beta, self.v)
        except ModeError as error:
            raise ModelError(
                f"MCEM: no Laplace approximation to propose from ({error}); use sampler='pymc'."
            ) from error
        self.v = mode.point.v
        return laplace_proposal(self.blocks, mode, SHARES, DF)

    def draw(self, beta: np.ndarray, theta: np.ndarray, draws: int, rng: np.random.Generator) -> Draws:
        """Draws of v; the largest Pareto k of the blocks is among the statistics."""
        per_chain = 1 << max(round(np.log2(max(draws / self.chains, 8))), 3)
        proposal = self.proposal(beta, theta)
        parts = [proposal.draw("sobol", per_chain, 0, 1, [int(rng.integers(2**31))]) for _ in range(self.chains)]
        proposed = np.concatenate([v for v, _ in parts], axis=1)
        log_weight = self.block_values(beta, proposed, theta) - np.concatenate(
            [density for _, density in parts], axis=1
        )
        chosen, effective = _resampled(log_weight, self.chains, rng)
        taken = np.take_along_axis(proposed, chosen[self.blocks.member], axis=1)
        shape = (self.chains, per_chain)
        stats = {
            "pareto_k": np.full(shape, self._worst(log_weight)),
            "effective_share": np.full(shape, effective / log_weight.shape[1]),
        }
        return Draws(taken.T.reshape(*shape, -1), stats, independent=True)

    def block_values(self, beta: np.ndarray, v: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """h of every block at the columns of v, shape (B, m); -inf out of range."""
        step = columns_at_once(self.likelihood)
        parts = []
        for start in range(0, v.shape[1], step):
            batch = Batch.at(self.likelihood, beta, v[:, start : start + step], theta)
            parts.append(self._case_sums @ batch.case_values() + self._level_sums @ batch.level_values())
        found = np.concatenate(parts, axis=1)
        return np.where(np.isnan(found), -np.inf, found)

    def _worst(self, log_weight: np.ndarray) -> float:
        spread = log_weight.max(axis=1) - np.median(log_weight, axis=1)
        tested = np.argsort(-spread, kind="stable")[:MOST_TESTED]
        with np.errstate(over="ignore"):  # ArviZ's fit of the tail tries values that overflow
            return float(pareto_k(log_weight[tested]).max(initial=-np.inf))


def _resampled(log_weight: np.ndarray, chains: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Systematic resampling of every row: chosen columns (B, m), in random order, and the least effective number.

    A chain of at least `ALONE` draws is resampled from itself, so that errors from the spread between chains are
    honest. Of fewer draws the bias of the ratio (of the order of 1/draws) would count: these have one sum of weights,
    and a draw of large weight may go into more than one chain.
    """
    blocks, m = log_weight.shape
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    effective = float((1.0 / (weight**2).sum(axis=1)).min(initial=m))
    groups = chains if m >= ALONE * chains else 1
    size, first = m // groups, np.arange(blocks * groups)[:, None]
    share = np.cumsum(weight.reshape(-1, size), axis=1)
    points = (np.arange(size) + rng.random(first.shape)) / size
    # every row's shares lie between its own number and the next: one search for all
    place = np.searchsorted((share / share[:, -1:] + first).ravel(), (points + first).ravel()).reshape(-1, size)
    chosen = np.clip(place - first * size, 0, size - 1).reshape(blocks, groups, size)
    chosen += (np.arange(groups) * size)[:, None]
    return rng.permuted(chosen.reshape(blocks, chains, -1), axis=2).reshape(blocks, m), effective
