"""Importance resampling of t effects: the t component of the proposal has tails as heavy as theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hlik.importance_proposal import Proposal
from hlik.samplers.importance import ImportanceSampler


class HeavyTailed(ImportanceSampler):
    """`ImportanceSampler` with the least degrees of freedom of the model's t effects, where these are fewer than its.

    A group of zero counts says only that its effect is low: given y that has the tail of its density, and weights
    under a lighter one have no variance.
    """

    def proposal(self, beta: np.ndarray, theta: np.ndarray) -> Proposal:
        """The mixture at the mode of h for these parameters."""
        found = super().proposal(beta, theta)
        effects = self.likelihood.model.random_effects
        degrees = [float(e.degrees.map.value(theta)[0]) for e in effects if e.degrees is not None]
        least = min(degrees, default=np.inf)
        return replace(
            found,
            components=tuple(replace(c, df=min(c.df, least)) if np.isfinite(c.df) else c for c in found.components),
        )
