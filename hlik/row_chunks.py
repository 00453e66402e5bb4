"""Long responses in chunks of rows: what is computed on the way stays in the processor's cache."""

from __future__ import annotations

import numpy as np

from hlik.linalg.products import row_chunks

__all__ = ["ARRAYS", "of_rows", "row_chunks"]

ARRAYS = 16  # that a family has in hand at a time: the columns to count for `row_chunks`


def of_rows(values: np.ndarray, chunk: slice) -> np.ndarray:
    """The rows' values of one value for all rows, or of one for each."""
    return values if values.size == 1 else values[chunk]
