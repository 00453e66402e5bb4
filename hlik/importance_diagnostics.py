"""Whether importance weights can be trusted: ArviZ's Pareto k and the effective number of draws, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import arviz as az
import numpy as np

from hlik.importance import ImportanceLikelihood

RELIABLE = 0.7  # Pareto k above which the mean of the weights is not to be trusted (Vehtari et al. 2024)
HARMLESS = 0.8  # of the draws are effective: a tail of no weight, whatever its shape
HOPELESS = 1.0  # beyond it the weights have no finite mean, and more draws do not help
MOST_BLOCKS = 2000  # whose Pareto k is computed, a millisecond each: those with the fewest effective draws
MOST_WEIGHTS = 20_000_000
FLAT = 1e-6  # spread of log weights without a tail: the proposal is the exact conditional density
LARGE = 30  # effects of a block, beyond which its covariance is hardly adapted: what fails at first fails for good
LOST = 8  # effective draws of such a block
FEW = 2048  # draws from which a large Pareto k is taken for hopeless


@dataclass(frozen=True, eq=False)
class Weights:
    """Diagnostics of the weights at one psi.

    Attributes
    ----------
    pareto_k
        Shape of the generalised Pareto distribution of each block's largest weights, (B,); NaN for the blocks that
        are left out (beyond 2,000, those with the most effective draws), -inf where the weights are constant.
    effective
        Effective number of draws, (B,).
    size
        Random effects of each block, (B,).
    draws
        Draws in all.
    used
        Draws from which the Pareto k's are.
    """

    pareto_k: np.ndarray
    effective: np.ndarray
    size: np.ndarray
    draws: int
    used: int

    @property
    def bad(self) -> np.ndarray:
        """Blocks that cannot be trusted: Pareto k above 0.7, and a tail that matters, (B,).

        Weights that are nearly constant have tails of any shape, and of no consequence: where 80 % of the draws are
        effective, Pareto k is not looked at.
        """
        return (self.pareto_k > RELIABLE) & (self.effective < HARMLESS * self.draws) | self.lost

    @property
    def lost(self) -> np.ndarray:
        """Blocks of more than 30 effects with fewer than 8 effective draws, (B,)."""
        return (self.size > LARGE) & (self.effective < LOST)

    @property
    def are_reliable(self) -> bool:
        """Whether no block is bad."""
        return not self.bad.any()

    @property
    def are_hopeless(self) -> bool:
        """Whether a bad block has a Pareto k above 1 with thousands of draws, or a large one is lost."""
        return bool(self.lost.any()) or bool(np.any(self.bad & (self.pareto_k > HOPELESS)) and self.used >= FEW)

    def verdict(self, advice: str = "use Monte Carlo EM") -> str:
        """That, and where, importance sampling fails, and what to do."""
        b = int(np.argmax(np.where(self.bad, self.pareto_k, -np.inf)))
        k, count = float(self.pareto_k[b]), int(self.bad.sum())
        more = f" (so have {count - 1} more of {self.size.size} blocks)" if count > 1 else ""
        return (
            f"stopped: importance sampling fails here: the weights of block {b} with {self.size[b]:,} random effects "
            f"have Pareto k = {k:.2f} (reliable up to {RELIABLE}) and {self.effective[b]:.0f} effective of "
            f"{self.draws:,} draws{more}: {advice}"
        )


def weights_at(likelihood: ImportanceLikelihood, psi: np.ndarray) -> Weights:
    """Diagnostics at psi."""
    blocks = likelihood.problem.blocks
    effective = likelihood.effective_sizes(psi)
    some = likelihood.fewer(max(1, MOST_WEIGHTS // max(likelihood.n * blocks.count, 1)))
    chosen = np.argsort(effective, kind="stable")[:MOST_BLOCKS]
    found = some.log_weights(psi)[chosen]
    k = np.full(blocks.count, np.nan)
    k[chosen] = pareto_k(found)
    return Weights(k, effective, blocks.size, likelihood.draws, some.draws)


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """ArviZ's estimate for every row of log weights, shape (b,); -inf where they are constant."""
    spread = log_weights.max(axis=1) - log_weights.min(axis=1)
    k = np.full(log_weights.shape[0], -np.inf)
    tailed = spread > FLAT
    if tailed.any():
        with np.errstate(all="ignore"):  # tails of almost no spread overflow on the way
            k[tailed] = np.atleast_1d(az.psislw(np.maximum(log_weights[tailed], -1e300))[1])
    return k
