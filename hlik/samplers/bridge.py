r"""The marginal log-likelihood by bridge sampling (Meng & Wong 1996), block by block of random effects.

With n1 draws of v given y and n2 draws of a proposal q (Laplace's approximation, normal and t), the normalising
constant of ``exp(h)`` is the fixed point of

.. math:: c = \frac{n_2^{-1}\sum_j l_j / (s_1 l_j + s_2 c)}{n_1^{-1}\sum_i 1 / (s_1 l_i + s_2 c)}, \qquad
          l = \exp(h) / q, \quad s_k = n_k / (n_1 + n_2).

Its error is found by repeating this with parts of both samples.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from hlik.hlikelihood import HLikelihood
from hlik.samplers.base import Draws
from hlik.samplers.importance import ImportanceSampler

PARTS = 8
ITERATIONS = 200
MOST = 4_096  # draws of each part, from either sample


def log_likelihood(
    likelihood: HLikelihood, draws: Draws, beta: np.ndarray, theta: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """log f(y) at (beta, theta), and its Monte Carlo standard error."""
    sampler = ImportanceSampler(likelihood, draws.v.mean(axis=(0, 1)), PARTS)
    proposal = sampler.proposal(beta, theta)
    chains, per_chain, q = draws.v.shape
    pieces = np.array_split(draws.v.reshape(chains * per_chain, q), PARTS)
    found = []
    for piece in pieces:
        own = piece[-MOST:].T
        proposed, log_q = proposal.draw("sobol", own.shape[1], 0, 1, [int(rng.integers(2**31))])
        at_draws = sampler.block_values(beta, own, theta) - proposal.log_density(own)
        at_proposed = sampler.block_values(beta, proposed, theta) - log_q
        found.append(float(_bridge(at_draws, at_proposed).sum()))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(PARTS))


def _bridge(at_draws: np.ndarray, at_proposed: np.ndarray) -> np.ndarray:
    """log c of every block from ``log l`` at draws (B, n1) and at proposals (B, n2)."""
    n1, n2 = at_draws.shape[1], at_proposed.shape[1]
    s1, s2 = np.log(n1 / (n1 + n2)), np.log(n2 / (n1 + n2))
    log_c = np.median(at_draws, axis=1, keepdims=True)
    for _ in range(ITERATIONS):
        top = logsumexp(at_proposed - np.logaddexp(s1 + at_proposed, s2 + log_c), axis=1, keepdims=True) - np.log(n2)
        bottom = logsumexp(-np.logaddexp(s1 + at_draws, s2 + log_c), axis=1, keepdims=True) - np.log(n1)
        new = top - bottom
        if np.max(np.abs(new - log_c), initial=0.0) < 1e-10:
            return new[:, 0]
        log_c = new
    return log_c[:, 0]
