"""The factor of a diagonal matrix: one grouping factor, independent effects. Nothing to order, nothing to compile."""

from dataclasses import dataclass

import numpy as np

from .patterns import Float


@dataclass(frozen=True, eq=False)
class DiagonalStructure:
    """Its only number is its size."""

    size: int

    def factor(self, values: Float) -> tuple["DiagonalLower", int]:
        """Square roots, and how many entries were positive before the first that is not."""
        positive = values > 0.0
        n_positive = self.size if positive.all() else int(np.argmin(positive))
        return DiagonalLower(np.sqrt(np.maximum(values, 0.0))), n_positive


@dataclass(frozen=True, eq=False)
class DiagonalLower:
    """L as its diagonal, shape (q,)."""

    values: Float

    def diagonal(self) -> Float:
        """Diagonal of L, shape (q,)."""
        return self.values

    def forward(self, block: Float) -> Float:
        """L^-1 block, shape (q, k)."""
        return block / self.values[:, None]

    def backward(self, block: Float) -> Float:
        """L^-T block, shape (q, k)."""
        return block / self.values[:, None]

    def selected_inverse(self) -> Float:
        """Entries of the inverse on the input pattern, shape (q,)."""
        return 1.0 / self.values**2
