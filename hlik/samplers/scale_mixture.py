r"""Multivariate t effects by importance resampling: first their scales, then the effects as normal ones.

Given the scales w of the t densities (`hlik.scale_mixture`) the effects fall into blocks that nothing links. At every
node w_k of a quadrature rule over w (`hlik.estimators.scale_mixture_profile`) Laplace's approximation proposes, block
by block; the mean importance weights of the blocks multiply to an estimate of ``L(psi | w_k)``, and

.. math:: f(w_k, v \mid y) \propto p(w_k)\, L(\psi \mid w_k) \prod_b f(v_b \mid y, w_k)

says how many draws each node is given. All nodes have the same Sobol points, so that errors of L mostly cancel in the
shares. The sum over nodes is the likelihood itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from hlik.adjusted_profile import ModeError, Profile
from hlik.errors import ModelError
from hlik.estimators.scale_mixture_profile import MixtureMode, ScaleMixtureProfile
from hlik.hlikelihood import HLikelihood
from hlik.importance_proposal import laplace_proposal
from hlik.linalg import NotPositiveDefinite
from hlik.model import HierarchicalModel
from hlik.samplers.base import Draws
from hlik.samplers.importance import DF, SHARES, ImportanceSampler
from hlik.scale_mixture import mixed_effects, mixing_variables

MAX_SCALES = 2  # of multivariate t densities: there are 10 to 20 ** scales nodes
TOLERANCE = 1e-5  # of the integral over the scales, relative
LEAST, MOST = 64, 20_000_000  # proposals of a node for each chain; numbers that all nodes' proposals may have
OF_DRAWS = 4  # a node has a proposal for every fourth draw of a chain
PARTS, OF_PART = 8, 128  # randomisations for the log-likelihood, and proposals of a node in each


def has_few_scales(model: HierarchicalModel) -> bool:
    """Whether the t densities of a model are one or two, each over a whole term."""
    mixed = mixed_effects(model)
    whole = all(effect.degrees is not None and len(effect.degrees.blocks) == 1 for effect in mixed)
    return bool(mixed) and whole and mixing_variables(model) <= MAX_SCALES


@dataclass(frozen=True, eq=False)
class _Node:
    """Proposals at one value of the scales: v, (q, chains * P), and log weights by block, (B, chains * P)."""

    v: np.ndarray
    log_weight: np.ndarray


class ScaleMixtureSampler:
    """Draws of multivariate t effects, equally weighted; the interface is that of `hlik.samplers.base.Sampler`."""

    def __init__(self, likelihood: HLikelihood, start: np.ndarray, chains: int):
        self.rule = ScaleMixtureProfile(likelihood, Profile, TOLERANCE)
        self.mixture, self.chains = self.rule.mixture, max(chains, 8)
        self.given = ImportanceSampler(self.mixture.conditional, start, self.chains)
        self.v = start
        self.compilations = 0

    def restore(self, position: np.ndarray, step_size: np.ndarray | None) -> None:
        """The first position is where the modes are sought from."""
        self.v = position[0]

    def _nodes(self, beta: np.ndarray, theta: np.ndarray) -> MixtureMode:
        """The rule over the scales."""
        try:
            found = self.rule.mode(np.concatenate([beta, theta]), beta, self.v)
        except (ModeError, NotPositiveDefinite) as error:
            raise ModelError(
                f"MCEM: no Laplace approximation to propose from ({error}); use sampler='nutpie' or 'pymc'."
            ) from error
        self.v = found.point.v
        return found

    def _proposed(self, found: MixtureMode, k: int, proposals: int, seeds: list[int]) -> tuple[_Node, float]:
        """Proposals of a node, the same Sobol points whatever the node; and ``log p(w_k)`` times its spacing."""
        mode, point = self.rule.given(found, k), found.point
        proposal = laplace_proposal(self.given.blocks, mode, SHARES, DF)
        parts = [proposal.draw("sobol", proposals, 0, 1, [seed]) for seed in seeds]
        v = np.concatenate([drawn for drawn, _ in parts], axis=1)
        density = np.concatenate([log_density for _, log_density in parts], axis=1)
        log_weight = self.given.block_values(point.beta, v, point.theta) - density
        return _Node(v, log_weight), float(np.log(found.share[k]) + found.value - mode.value)

    def _all(
        self, beta: np.ndarray, theta: np.ndarray, proposals: int, seeds: list[int]
    ) -> tuple[MixtureMode, list[_Node], np.ndarray]:
        """The rule, proposals of its nodes, and logs of the joint density of y and each, (K, chains)."""
        found = self._nodes(beta, theta)
        counts = np.flatnonzero(found.share > 0)
        joint, nodes = np.full((len(found.nodes), len(seeds)), -np.inf), []
        for k in range(len(found.nodes)):
            if k not in counts:
                nodes.append(_Node(np.zeros((0, 0)), np.zeros((0, 0))))
                continue
            node, log_prior = self._proposed(found, k, proposals, seeds)
            weight = node.log_weight.reshape(-1, len(seeds), proposals)
            joint[k] = log_prior + (logsumexp(weight, axis=2) - np.log(proposals)).sum(axis=0)
            nodes.append(node)
        return found, nodes, joint

    def draw(self, beta: np.ndarray, theta: np.ndarray, draws: int, rng: np.random.Generator) -> Draws:
        """Draws of v; the scales that they were drawn with are among the statistics."""
        per_chain = 1 << max(round(np.log2(max(draws / self.chains, 8))), 3)
        bound = MOST // (20 * max(self.v.size, 1) * self.chains)
        proposals = 1 << int(np.log2(max(LEAST, min(per_chain // OF_DRAWS, bound))))
        seeds = [int(rng.integers(2**31)) for _ in range(self.chains)]
        found, nodes, joint = self._all(beta, theta, proposals, seeds)
        share = np.exp(joint - logsumexp(joint, axis=0))
        v = np.empty((self.chains, per_chain, self.v.size))
        weights = np.empty((self.chains, per_chain, self.mixture.size))
        for c in range(self.chains):
            place = rng.permutation(per_chain)
            chosen = _systematic(share[None, :, c], per_chain, rng)[0]
            for k in np.unique(chosen):
                own, part = place[chosen == k], slice(c * proposals, (c + 1) * proposals)
                v[c, own] = self._resampled(nodes[k], part, own.size, rng).T
                weights[c, own] = found.nodes[k]
        best = nodes[int(np.argmax(share.mean(axis=1)))].log_weight
        stats = {"pareto_k": np.full((self.chains, per_chain), self.given._worst(best))}
        for j, name in enumerate(self.mixture.named(np.ones(self.mixture.size))):
            stats[name] = weights[:, :, j]
        return Draws(v, stats, independent=True)

    def _resampled(self, node: _Node, part: slice, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` draws from some of a node's proposals, each block by itself, (q, count)."""
        log_weight = node.log_weight[:, part]
        weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
        chosen = rng.permuted(_systematic(weight, count, rng), axis=1)
        return np.take_along_axis(node.v[:, part], chosen[self.given.blocks.member], axis=1)

    def log_likelihood(self, beta: np.ndarray, theta: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        """log f(y) at (beta, theta), and its Monte Carlo standard error."""
        seeds = [int(rng.integers(2**31)) for _ in range(PARTS)]
        joint = self._all(beta, theta, OF_PART, seeds)[2]
        values = logsumexp(joint, axis=0)
        return float(logsumexp(values) - np.log(PARTS)), float(np.std(values, ddof=1) / np.sqrt(PARTS))


def _systematic(weight: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic resampling of every row of weights (B, P): `count` columns each, in order, shape (B, count)."""
    total = np.cumsum(weight, axis=1)
    points = (np.arange(count) + rng.random((len(weight), 1))) / count * total[:, -1:]
    chosen = [np.searchsorted(row, at) for row, at in zip(total, points, strict=True)]
    return np.minimum(chosen, weight.shape[1] - 1)
