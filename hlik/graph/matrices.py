"""The stacked design of all responses: X dense, Z sparse, offset, from the affine forms of the predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.graph import rows as lin
from hlik.graph.predictors import Predictor
from hlik.model import Parameter, RandomEffect, Response


def fixed_matrix(
    responses: Sequence[Response], predictors: Mapping[str, Predictor], fixed: Sequence[Parameter]
) -> np.ndarray:
    """X, shape (N, p). A single block is the user's own array, not a copy; it is never written to."""
    n_rows = responses[-1].rows.stop
    n_beta = sum(parameter.variable.size for parameter in fixed)
    if len(responses) == 1 and len(fixed) == 1:
        affine = predictors[responses[0].name].affine
        if affine is not None:
            return np.ascontiguousarray(lin.to_dense(affine.rows[fixed[0].name]), dtype=float)
    X = np.zeros((n_rows, n_beta))
    for response in responses:
        affine = predictors[response.name].affine
        for parameter in fixed:
            if affine is not None and parameter.name in affine.rows:
                X[response.rows, parameter.index] = lin.to_dense(affine.rows[parameter.name])
    return X


def random_matrix(
    responses: Sequence[Response], predictors: Mapping[str, Predictor], effects: Sequence[RandomEffect]
) -> sp.csr_array:
    """Z, shape (N, q): all random-effect columns, term after term."""
    n_random = effects[-1].index.stop if effects else 0
    blocks = []
    for response in responses:
        affine = predictors[response.name].affine
        maps = [(e, affine.rows[e.name]) for e in effects if affine is not None and e.name in affine.rows]
        blocks.append(_side_by_side(maps, response.size, n_random))
    return blocks[0] if len(blocks) == 1 else sp.csr_array(sp.vstack(blocks, format="csr"))


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


def stacked_offset(responses: Sequence[Response], predictors: Mapping[str, Predictor]) -> np.ndarray:
    """The known part of eta, shape (N,)."""
    parts = []
    for response in responses:
        affine = predictors[response.name].affine
        known = np.zeros(response.size) if affine is None else affine.offset.ravel()
        parts.append(np.asarray(known, dtype=float))
    return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)


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
