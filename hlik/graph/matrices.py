"""The stacked design of all responses: X dense, Z sparse, offset, from the affine forms of the predictors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.graph import rows as lin
from hlik.graph.forms import Affine
from hlik.graph.theta import ThetaLayout
from hlik.model import Parameter, RandomEffect, Response

Stack = Sequence[tuple[slice, Affine]]
"""The rows of the stacked predictor with the affine form that fills them, one after the other."""


def fixed_matrix(stack: Stack, n_rows: int, fixed: Sequence[Parameter]) -> np.ndarray:
    """X, shape (N, p). A single block is the user's own array, not a copy; it is never written to."""
    if len(stack) == 1 and len(fixed) == 1 and fixed[0].name in stack[0][1].rows:
        return np.ascontiguousarray(lin.to_dense(stack[0][1].rows[fixed[0].name]), dtype=float)
    X = np.zeros((n_rows, sum(parameter.variable.size for parameter in fixed)))
    for rows, affine in stack:
        for parameter in fixed:
            if parameter.name in affine.rows:
                X[rows, parameter.index] = lin.to_dense(affine.rows[parameter.name])
    return X


def theta_matrix(stack: Stack, n_rows: int, layout: ThetaLayout) -> np.ndarray | None:
    """Rows of dispersion parameters that also stand in a predictor, shape (N, r); None where there are none."""
    if not any(name in layout.index for _, affine in stack for name in affine.rows):
        return None
    T = np.zeros((n_rows, layout.size))
    for rows, affine in stack:
        for name, block in affine.rows.items():
            if name in layout.index:
                T[rows, layout.index[name]] = lin.to_dense(block)
    return T


def random_matrix(stack: Stack, effects: Sequence[RandomEffect]) -> sp.csr_array:
    """Z, shape (N, q): all random-effect columns, term after term."""
    n_random = effects[-1].index.stop if effects else 0
    blocks = []
    for rows, affine in stack:
        maps = [(e, affine.rows[e.name]) for e in effects if e.name in affine.rows]
        blocks.append(_side_by_side(maps, rows.stop - rows.start, n_random))
    if len(blocks) == 1:
        return blocks[0]
    return sp.csr_array(sp.vstack(blocks, format="csr")) if blocks else sp.csr_array((0, n_random))


def _side_by_side(maps: Sequence[tuple[RandomEffect, lin.Rows]], n_rows: int, n_random: int) -> sp.csr_array:
    """Rows with one entry a term are interleaved without sorting; the general case adds CSR blocks."""
    gathers = [(effect, rows) for effect, rows in maps if isinstance(rows, lin.Gather)]
    if maps and len(gathers) == len(maps):
        k = len(gathers)
        index, data = np.empty((n_rows, k), dtype=np.int32), np.empty((n_rows, k))
        for j, (effect, rows) in enumerate(gathers):
            np.add(rows.index, effect.index.start, out=index[:, j], casting="unsafe")
            data[:, j] = rows.weight
        pointer = np.arange(0, n_rows * k + 1, k, dtype=np.int32)
        return sp.csr_array((data.ravel(), index.ravel(), pointer), shape=(n_rows, n_random))
    total = sp.csr_array((n_rows, n_random))
    for effect, rows in maps:
        block = sp.coo_array(lin.to_csr(rows))
        row, column = block.coords
        placed = sp.coo_array((block.data, (row, column + effect.index.start)), shape=(n_rows, n_random))
        total = total + sp.csr_array(placed)
    return sp.csr_array(total)


def stacked_offset(stack: Stack) -> np.ndarray:
    """The known part of eta, shape (N,)."""
    parts = [np.asarray(affine.offset.ravel(), dtype=float) for _, affine in stack]
    return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate([np.zeros(0), *parts])


def check_finite(
    responses: Sequence[Response], X: np.ndarray, Z: sp.csr_array, offset: np.ndarray, names: Sequence[str]
) -> None:
    """Refuse NaN or infinite entries in the predictors, naming response, row and coefficient."""
    if np.isfinite(X.sum()) and np.isfinite(Z.data.sum()) and np.isfinite(offset.sum()):
        return
    for response in responses:
        block = X[response.rows]
        bad = np.argwhere(~np.isfinite(block))
        if bad.size:
            row, column = bad[0]
            raise ModelError(
                f"The linear predictor of {response.name!r} has {block[row, column]} at row {row} in the column of "
                f"{names[column]!r}: drop or impute that row."
            )
        part = Z[response.rows]
        wrong = ~np.isfinite(offset[response.rows])
        wrong[np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))[~np.isfinite(part.data)]] = True
        if np.any(wrong):
            row = int(np.flatnonzero(wrong)[0])
            raise ModelError(
                f"The linear predictor of {response.name!r} is not finite at row {row} (an offset or a covariate of a "
                f"random effect): drop or impute that row."
            )
