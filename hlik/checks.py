"""What is wrong with the data, said before any long work: rank, separation, empty levels."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
from scipy import linalg, optimize

from hlik.errors import DataWarning, ModelError
from hlik.model import HierarchicalModel, Response

RANK_TOLERANCE = (
    1e-11  # smallest eigenvalue of the correlation matrix of the columns: condition number about 3e5
)
SEPARATION_SECONDS = 2.0
SAMPLE_ROWS = 5000
SEPARATION_CELLS = 2_000_000  # entries of the linear programme above which separation is left to the fit


def check_data(model: HierarchicalModel) -> None:
    """Refuse what cannot be fitted and warn of what fits badly.

    Raises
    ------
    ModelError
        Collinear fixed effects; separated binary data; responses at the edge of their support.

    Warns
    -----
    DataWarning
        Levels of a random effect without observations.
    """
    _check_rank(model)
    for response in model.responses:
        _check_separation(model, response)
    _warn_empty_levels(model)


def _check_rank(model: HierarchicalModel) -> None:
    """Collinear columns of X, found on the Gram matrix scaled to unit diagonal, named by a pivoted Cholesky."""
    if not model.n_beta:
        return
    norms = np.sqrt(np.einsum("ij,ij->j", model.X, model.X))
    if np.any(norms == 0):
        name = model.X_names[int(np.flatnonzero(norms == 0)[0])]
        raise ModelError(f"The column of X for {name!r} is zero in every row: drop it.")
    gram = (model.X.T @ model.X) / np.outer(norms, norms)
    if np.linalg.eigvalsh(gram)[0] > RANK_TOLERANCE:
        return
    _, _, order = linalg.qr(gram, pivoting=True)
    dependent = int(order[-1])
    weights, *_ = np.linalg.lstsq(gram[:, order[:-1]], gram[:, dependent], rcond=None)
    others = [model.X_names[int(order[k])] for k in np.flatnonzero(np.abs(weights) > 1e-6)]
    raise ModelError(
        f"The fixed effects are collinear (X is rank deficient): {model.X_names[dependent]!r} is a combination of "
        f"{others}. Drop one column, or recode the factor against a baseline."
    )


def _check_separation(model: HierarchicalModel, response: Response) -> None:
    """Konis (2007): a direction of beta that never lowers and somewhere raises the fit of binary data.

    Found by a linear programme over the distinct signed rows of X; then the maximum of the likelihood is at
    infinity. Only responses at 0 or 1 constrain; Binomial rows in between fix the direction to zero there. A Poisson
    response is separated by rows of zeros in the same way.
    """
    if (
        response.family is None
        or response.family.name not in ("bernoulli", "binomial", "poisson")
        or not model.n_beta
    ):
        return
    X, y = model.X[response.rows], response.y
    used = np.flatnonzero(np.any(X != 0, axis=0))
    X = X[:, used]
    counts = response.family.name == "poisson"
    low, high = y == 0, np.zeros_like(y, dtype=bool) if counts else y == 1
    increasing = response.link is None or response.link.name not in ("inverse", "loglog_complement")
    inside = X[~(low | high)]
    if not increasing or not np.any(low | high) or _full_rank(inside):
        return
    signed = np.where(high[:, None], X, -X)[low | high]
    direction = _separating_direction(_sample(signed), inside)
    if direction is None:  # no direction separates a sample, so none separates all rows
        return
    if signed.shape[0] > SAMPLE_ROWS:
        direction = _separating_direction(signed, inside) if signed.size <= SEPARATION_CELLS else None
        if direction is None:
            return
    names = [model.X_names[used[k]] for k in np.flatnonzero(np.abs(direction) > 1e-7)]
    edge = "is 0 (or 1) in every row" if np.all(low) or np.all(high) else "is separated"
    raise ModelError(
        f"Response {response.name!r} {edge}: the fixed effects {names} predict it perfectly in some rows, so their "
        f"maximum-likelihood estimates are infinite. Drop or merge the columns, or make them random effects."
    )


def _full_rank(X: np.ndarray) -> bool:
    """Whether the columns are independent, by the Gram matrix: rows inside the support then fix every direction."""
    if X.shape[0] < X.shape[1]:
        return False
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    if np.any(norms == 0):
        return False
    return bool(np.linalg.eigvalsh((X.T @ X) / np.outer(norms, norms))[0] > RANK_TOLERANCE)


def _sample(rows: np.ndarray) -> np.ndarray:
    """At most `SAMPLE_ROWS` rows, evenly taken."""
    return rows if rows.shape[0] <= SAMPLE_ROWS else rows[:: -(-rows.shape[0] // SAMPLE_ROWS)]


def _separating_direction(signed: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """A direction b with ``signed @ b >= 0``, not zero in all rows, and ``inside @ b = 0``; None where none exists."""
    free = np.unique(signed, axis=0)
    between = np.unique(inside, axis=0)
    solution = optimize.linprog(
        -free.sum(axis=0),
        A_ub=-free,
        b_ub=np.zeros(len(free)),
        A_eq=between if len(between) else None,
        b_eq=np.zeros(len(between)) if len(between) else None,
        bounds=(-1, 1),
        options={"time_limit": SEPARATION_SECONDS},
    )
    return None if solution.status != 0 or solution.fun is None or -solution.fun < 1e-7 else solution.x


def _warn_empty_levels(model: HierarchicalModel) -> None:
    """Levels of a grouping factor that no observation has keep their prior; often a sign of a wrong index.

    Effects of a design matrix (``Z @ u``: animals without records, say) often have such columns: no warning there.
    """
    if not model.n_random:
        return
    Z: sp.csr_array = model.Z
    counts = np.bincount(Z.indices, weights=Z.data != 0, minlength=model.n_random)
    for effect in model.random_effects:
        empty = np.flatnonzero(counts[effect.index] == 0)
        is_factor = counts[effect.index].sum() <= model.n_rows
        if empty.size and is_factor:
            shown = ", ".join(str(k) for k in empty[:5]) + (", ..." if empty.size > 5 else "")
            warnings.warn(
                f"{empty.size} of the {effect.size} levels of {effect.name!r} have no observation (positions {shown}): "
                f"they are predicted at their mean.",
                DataWarning,
                stacklevel=4,
            )
