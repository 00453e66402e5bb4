"""Figures and axes: make them, or check those that were passed."""

from __future__ import annotations

from typing import Any

import numpy as np

from hlik.errors import ModelError


def grid_of_axes(axes: Any, rows: int, columns: int, figsize: tuple[float, float], **layout: Any) -> np.ndarray:
    """Axes in an array of shape (rows, columns).

    Parameters
    ----------
    axes
        Axes to draw in, any nesting of rows times columns of them; None makes a new figure.
    rows, columns
        How many panels there are.
    figsize
        Size of a new figure in inches.
    **layout
        Passed to `matplotlib.pyplot.subplots` for a new figure.

    Raises
    ------
    ModelError
        Where the number of axes differs.
    """
    if axes is None:
        import matplotlib.pyplot as plt

        _, made = plt.subplots(rows, columns, figsize=figsize, squeeze=False, layout="constrained", **layout)
        return made
    flat = np.ravel(np.asarray(axes, dtype=object))
    if flat.size != rows * columns:
        raise ModelError(f"axes: this plot has {rows} x {columns} = {rows * columns} panels; got {flat.size} axes.")
    return flat.reshape(rows, columns)
