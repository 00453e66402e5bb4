"""What is wrong with the data, said before any long work: rank, separation, empty levels."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
from scipy import linalg, optimize

from hlik.errors import DataWarning, ModelError
from hlik.graph.describe import labels_of
from hlik.model import HierarchicalModel, RandomEffect, Response

RANK_TOLERANCE = 1e-11  # smallest eigenvalue of the columns' correlation matrix: condition number about 3e5
BINARY_LINKS = ("logit", "probit", "cloglog", "loglog", "cauchit")
SEPARABLE = {"bernoulli": BINARY_LINKS, "binomial": BINARY_LINKS, "poisson": ("log",)}
SEPARATION_SECONDS = 2.0
SAMPLE_ROWS = (100, 1000, 5000)  # tried one after the other: most data are seen not to be separated at the first
UNIFORM_ROWS, EXACT_ROWS = 2000, 20  # looked at first
EXACT = 1e-11  # residuals that are rounding, as a part of the largest response
SEPARATION_CELLS = 2_000_000  # entries of the linear programme above which separation is left to the fit


def check_data(model: HierarchicalModel) -> None:
    """Refuse what cannot be fitted and warn of what fits badly.

    Raises
    ------
    ModelError
        Collinear fixed effects; separated binary data; responses at the edge of their support; normal responses that
        the fixed effects fit exactly.

    Warns
    -----
    DataWarning
        Levels of a random effect without observations; levels that have only zeros or only ones each.
    """
    _check_rank(model)
    _check_exact(model)
    if model.n_beta and model.penalty is None:  # a prior density keeps the estimates finite
        _check_separation(model)
    _warn_empty_levels(model)
    _warn_uniform_levels(model)


def _check_exact(model: HierarchicalModel) -> None:
    """Normal responses without any residual: the likelihood has no upper bound."""
    for response in model.responses:
        is_normal = response.family is not None and response.family.name == "normal"
        if not is_normal or response.link is None or response.link.name != "identity" or response.dispersion is None:
            continue
        if all(_is_exact(model, response, rows) for rows in (EXACT_ROWS * (1 + model.n_beta), response.size)):
            raise ModelError(
                f"Response {response.name!r} is an exact linear function of the fixed effects: nothing is left that "
                f"could have a variance, and the likelihood has no upper bound."
            )


def _is_exact(model: HierarchicalModel, response: Response, rows: int) -> bool:
    """Whether least squares leaves no residual among so many rows."""
    first = response.rows.start
    own = slice(first, first + min(rows, response.size))
    X, y = model.X[own], response.y[:rows] - model.offset[own]
    fitted = X @ linalg.lstsq(X, y, lapack_driver="gelsy")[0] if X.shape[1] else np.zeros_like(y)
    return bool(np.abs(y - fitted).max(initial=0.0) <= EXACT * np.abs(response.y[:rows]).max(initial=0.0))


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
        f"{others}. Drop one column, centre a covariate far from zero, or recode the factor against a baseline."
    )


def _check_separation(model: HierarchicalModel) -> None:
    """Konis (2007): a direction of beta that never lowers and somewhere raises the likelihood of binary data or counts.

    Then the maximum of the likelihood is at infinity. The direction is found by a linear programme over the distinct
    rows of X, signed by their response. Only responses at the edge of their support (0, or 1 for binary data) have a
    say: all other rows, of other responses too, must not move along it.
    """
    steps = [-(-model.n_rows // rows) for rows in SAMPLE_ROWS]
    if any(step > 1 and _fixes_all(*_all_edges(model, step)) for step in steps):
        return
    signed, inside = _all_edges(model, 1)
    if not signed.size or signed.size > SEPARATION_CELLS or _full_rank(inside):
        return
    direction = _separating_direction(signed, inside)
    if direction is None:
        return
    names = [model.X_names[k] for k in np.flatnonzero(np.abs(direction) > 1e-7)]
    response = next(r for r in model.responses if np.any(_edges(model, r, 1)[0] @ direction > 1e-9))
    raise ModelError(
        f"Response {response.name!r} {_how_separated(response)}: {names} predict it perfectly in some "
        f"rows, so their maximum-likelihood estimates are infinite. Drop or merge the columns, or make them random "
        f"effects."
    )


def _fixes_all(signed: np.ndarray, inside: np.ndarray) -> bool:
    """Whether these rows alone leave no direction to move in, so that all rows do not either."""
    if not _full_rank(np.vstack([signed, inside])):
        return False
    return _full_rank(inside) or _separating_direction(signed, inside) is None


def _all_edges(model: HierarchicalModel, step: int) -> tuple[np.ndarray, np.ndarray]:
    """`_edges` of every `step`-th row of all responses."""
    edges = [_edges(model, response, step) for response in model.responses]
    if len(edges) == 1:
        return edges[0]
    return np.vstack([edge for edge, _ in edges]), np.vstack([rest for _, rest in edges])


def _edges(model: HierarchicalModel, response: Response, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of X at the edge of the support, signed so that their mean goes there as they grow; and the other rows."""
    X, y = model.X[response.rows][::step], response.y[::step]
    if response.family is None or response.link is None or response.term is not None:
        return X[:0], X
    family = response.family.name
    if response.link.name not in SEPARABLE.get(family, ()):
        return X[:0], X
    low, high = y == 0, (y == 1) & (family != "poisson")
    return np.where(high[:, None], X, -X)[low | high], X[~(low | high)]


def _how_separated(response: Response) -> str:
    if np.all(response.y == 0):
        return "is 0 in every row"
    if np.all(response.y == 1) and response.family is not None and response.family.name != "poisson":
        return "is 1 in every row" if response.trials is None else "is n in every row"
    return "is separated"


def _full_rank(X: np.ndarray) -> bool:
    """Whether the columns are independent, by the Gram matrix: rows inside the support then fix every direction."""
    if X.shape[0] < X.shape[1]:
        return False
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    if np.any(norms == 0):
        return False
    return bool(np.linalg.eigvalsh((X.T @ X) / np.outer(norms, norms))[0] > RANK_TOLERANCE)


def _separating_direction(signed: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """A direction b with ``signed @ b >= 0``, not all zero, and ``inside @ b = 0``; None where there is none."""
    free, between = np.unique(signed, axis=0), np.unique(inside, axis=0)
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

    Effects of a design matrix (``Z @ u``: animals without records, say) often have such columns, and correlated
    effects (relatives, neighbours) are told something by the others: no warning there.
    """
    if not model.n_random:
        return
    Z: sp.csr_array = model.Z
    counts = np.bincount(Z.indices, weights=Z.data != 0, minlength=model.n_random)
    for effect in model.random_effects:
        empty = np.flatnonzero(counts[effect.index] == 0)
        is_factor = counts[effect.index].sum() <= model.n_rows and effect.precision is None
        if empty.size and is_factor:
            labels = labels_of(model.coords, effect.variable, effect.name, empty[:5])
            shown = ", ".join(labels) + (", ..." if empty.size > 5 else "")
            warnings.warn(
                f"{empty.size} of the {effect.size} levels of {effect.name!r} have no observation ({shown}): they are "
                f"predicted at their mean.",
                DataWarning,
                stacklevel=4,
            )


def _warn_uniform_levels(model: HierarchicalModel) -> None:
    """Binary data that the levels of a random effect separate: the likelihood may rise with their variance for ever."""
    for response in model.responses:
        if response.family is None or response.family.name not in ("bernoulli", "binomial"):
            continue
        effects = [e for e in model.random_effects if e.precision is None and e.family is not None]
        for rows in (UNIFORM_ROWS, response.size):  # most data are seen to have mixed levels at the first
            effects = [effect for effect in effects if _is_uniform(model, response, effect, rows)]
        for effect in effects:
            warnings.warn(
                f"Every level of {effect.name!r} has only zeros or only ones of {response.name!r}: the likelihood may "
                f"rise with its variance for ever. Use coarser levels, hold its parameter with fixed={{...}}, or "
                f"priors='penalise'.",
                DataWarning,
                stacklevel=4,
            )


def _is_uniform(model: HierarchicalModel, response: Response, effect: RandomEffect, rows: int) -> bool:
    """Whether the responses of every level, among so many rows, are all 0 or all 1, of some level several of them."""
    start = response.rows.start
    Z = sp.csr_array(model.Z[start : start + min(rows, response.size)])
    y = np.repeat(response.y[: Z.shape[0]], np.diff(Z.indptr))
    own = (Z.indices >= effect.index.start) & (Z.indices < effect.index.stop) & (Z.data != 0)
    level, y = Z.indices[own], y[own]
    zeros, ones = (np.bincount(level[y == edge], minlength=model.n_random) for edge in (0, 1))
    if np.any((y != 0) & (y != 1)) or np.any((zeros > 0) & (ones > 0)):
        return False
    return bool(zeros.any() and ones.any() and max(zeros.max(), ones.max()) > 1)


def invalid_precision(model: HierarchicalModel, theta: np.ndarray) -> str | None:
    """A sentence on the first random effect whose precision is not positive definite at theta; None where all are."""
    for effect in model.random_effects:
        if effect.precision is not None and effect.precision.at(theta) is None:
            domain = getattr(effect.precision.determinant, "domain", "its covariance matrix must be positive definite")
            return (
                f"The precision of random effect {effect.name!r} is not positive definite at the starting or fixed "
                f"values: {domain}."
            )
    return None
