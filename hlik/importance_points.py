"""Uniform points for importance sampling: scrambled Sobol sequences, or random numbers.

Every block of random effects needs points of its own, or the errors of like blocks would add up. One scrambled
sequence serves all of them: a random digital shift for each block (Lemieux 2009, section 6.2.2) leaves a net a net,
and makes the errors of the blocks uncorrelated.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

BITS = 30  # of a Sobol coordinate
MAX_DIMENSION = 21_201  # of SciPy's direction numbers


def uniform_points(
    kind: str, blocks: int, dimension: int, start: int, stop: int, rng: np.random.Generator
) -> np.ndarray:
    """Points `start` to `stop` of a sequence in the open unit cube for every block, shape (blocks, dimension, points).

    Parameters
    ----------
    kind
        ``"sobol"``, or ``"random"`` for independent uniform numbers.
    rng
        Where the scrambling and the shifts come from: with the same state, other slices are of the same sequence.
    """
    if kind == "random":
        rng.bit_generator.advance(start * blocks * dimension)  # type: ignore[attr-defined]
        found = rng.random((stop - start, blocks, dimension))
        return np.moveaxis(np.maximum(found, 0.5**54), 0, 2)
    sobol = qmc.Sobol(dimension, scramble=True, bits=BITS, rng=rng)
    shift = rng.integers(2**BITS, size=(blocks, dimension))
    if start:
        sobol.fast_forward(start)
    digits = (_random(sobol, stop - start) * 2**BITS).astype(np.int64)
    shifted = digits.T[None] ^ shift[:, :, None]
    return (shifted + 0.5) * 0.5**BITS


def _random(sobol: qmc.Sobol, size: int) -> np.ndarray:
    """Points in pieces that are powers of two: SciPy warns of other numbers, though any part of a net serves."""
    parts = [np.zeros((0, sobol.d))]
    while size:
        piece = 1 << (size.bit_length() - 1)
        parts.append(sobol.random(piece))
        size -= piece
    return np.concatenate(parts)
