"""`from_matrices`: responses and design matrices become a PyMC model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.formula.build import build
from hlik.formula.effects import RandomDistribution
from hlik.formula.frame import FixedTerm
from hlik.formula.spec import Fixed, ModelSpec, PredictorSpec, RandomTerm

DENSE = 0.3
"""Share of entries that are not zero from which a dense matrix stays dense."""


def from_matrices(
    y: Any,
    X: Any,
    Z: Any = None,
    *,
    family: str = "gaussian",
    link: str | None = None,
    trials: Any = None,
    random: Mapping[str, RandomDistribution] | None = None,
    dispersion: Any = None,
    random_dispersion: Mapping[str, Any] | None = None,
    offset: Any = None,
    weights: Any = None,
    noncentered: bool = False,
) -> pm.Model:
    """Make the PyMC model of a response and design matrices: y with mean g^-1(offset + X beta + sum of Z_k v_k).

    Parameters
    ----------
    y
        Responses, shape (n,); the name of a `pandas.Series` names the variable, else it is ``"y"``.
    X
        Design matrix of the fixed effects, shape (n, p). The columns of a data frame name the coefficients, else they
        are numbered.
    Z
        Design matrices of random effects, each of shape (n, q_k), dense or SciPy sparse (dense ones with few entries
        are made sparse; those of markers stay dense): a mapping from names, one matrix (then called ``"u"``) or a
        sequence (``"u1"``, ``"u2"``, ...).
    family, link
        As in `from_formula`.
    trials
        Numbers of trials: a number or shape (n,).
    random
        Distribution by name of Z: as in `from_formula`.
    dispersion
        Design matrix of the log of the dispersion, shape (n, r).
    random_dispersion
        Design matrices of the log of the dispersions of random effects, by name of Z, shape (q_k, r_k).
    offset, weights
        Shape (n,), as in `from_formula`.
    noncentered
        As in `from_formula`.

    Returns
    -------
    pymc.Model
        Fixed effects are ``beta``; the effects of Z named ``u`` are ``u``, with ``u_sigma`` (or ``u_lam``);
        coefficients of dispersions are ``dispersion_beta`` and ``u_dispersion_beta``. Matrices are `pm.Data`.

    Raises
    ------
    ModelError
        Where shapes do not agree or values are not finite, with the argument and both shapes.

    Examples
    --------
    >>> import hlik, numpy as np, scipy.sparse as sp
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> Z = sp.csr_array(np.kron(np.eye(4), np.ones((3, 1))))
    >>> model = hlik.from_matrices(y, np.ones((12, 1)), {"group": Z})
    >>> idata = hlik.fit(model, progressbar=False)
    >>> round(float(idata.estimates["sigma"]), 4)
    0.3416
    """
    name = str(y.name) if isinstance(y, pd.Series) and y.name is not None else "y"
    values = np.asarray(y)
    if values.ndim != 1 or values.size == 0:
        raise ModelError(f"y must have shape (n,) with n > 0; got {values.shape}.")
    if not np.all(np.isfinite(values.astype(float))):
        raise ModelError("y has values that are not finite: leave those rows out of y, X and Z.")
    n = len(values)
    fixed = _fixed(X, n, "X")
    if offset is not None:
        fixed = Fixed(fixed.X, fixed.terms, _vector(offset, n, "offset"))
    matrices = _named(Z)
    for argument, given in (("random", random), ("random_dispersion", random_dispersion)):
        unknown = [key for key in given or {} if key not in matrices]
        if unknown:
            raise ModelError(f"{argument}= names {unknown[0]!r}, which is no name of Z; there are {sorted(matrices)}.")
    terms = tuple(
        _random(key, matrix, n, (random or {}).get(key, "normal"), (random_dispersion or {}).get(key))
        for key, matrix in matrices.items()
    )
    spread = None if dispersion is None else PredictorSpec(_fixed(dispersion, n, "dispersion"), (), "dispersion_")
    rows = y.index.to_numpy() if isinstance(y, pd.Series) else np.arange(n)
    return build(
        ModelSpec(
            name=name,
            y=values.astype(int) if values.dtype == bool else values,
            mean=PredictorSpec(fixed, terms),
            family=family,
            link=link,
            rows=rows,
            dispersion=spread,
            trials=None if trials is None else _vector(trials, n, "trials"),
            weights=None if weights is None else _vector(weights, n, "weights"),
            noncentered=noncentered,
        )
    )


def _fixed(matrix: Any, n: int, argument: str) -> Fixed:
    columns = tuple(map(str, matrix.columns)) if isinstance(matrix, pd.DataFrame) else None
    X = np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, float)
    if X.ndim != 2 or len(X) != n:
        raise ModelError(f"{argument} must have shape ({n}, p), a row for each observation; got {X.shape}.")
    if not np.all(np.isfinite(X)):
        row, column = np.argwhere(~np.isfinite(X))[0]
        raise ModelError(f"{argument} is not finite in row {row}, column {column}.")
    p = X.shape[1]
    terms = (FixedTerm("beta", slice(0, p), columns or tuple(map(str, range(p)))),) if p else ()
    return Fixed(X, terms, None)


def _named(Z: Any) -> dict[str, Any]:
    if Z is None:
        return {}
    if isinstance(Z, Mapping):
        return dict(Z)
    if isinstance(Z, Sequence) and not isinstance(Z, str) and len(Z) and np.ndim(Z[0]) == 2:
        return {f"u{i}": matrix for i, matrix in enumerate(Z, start=1)}
    return {"u": Z}


def _random(name: str, matrix: Any, n: int, distribution: RandomDistribution, dispersion: Any) -> RandomTerm:
    levels = matrix.columns.to_numpy() if isinstance(matrix, pd.DataFrame) else None
    shape: tuple[int, ...] = getattr(matrix, "shape", None) or np.shape(matrix)
    if len(shape) != 2 or shape[0] != n:
        raise ModelError(f"Z[{name!r}] must have shape ({n}, q), a row for each observation; got {shape}.")
    Z: Any = sp.csr_matrix(matrix, dtype=float)
    if not np.all(np.isfinite(Z.data)):
        raise ModelError(f"Z[{name!r}] has entries that are not finite.")
    if not sp.issparse(matrix) and Z.nnz > DENSE * np.prod(shape):
        Z = np.asarray(matrix, float)
    q = shape[1]
    design = None if dispersion is None else _fixed(dispersion, q, f"random_dispersion[{name!r}]")
    labels = np.arange(q) if levels is None else levels
    return RandomTerm(name, name, labels, Z=Z, distribution=distribution, dispersion=design)


def _vector(value: Any, n: int, argument: str) -> np.ndarray:
    array = np.asarray(value, float)
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape != (n,) or not np.all(np.isfinite(array)):
        raise ModelError(f"{argument} must be a number or {n} finite numbers; got shape {array.shape}.")
    return array
