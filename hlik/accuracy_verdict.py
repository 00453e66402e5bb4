"""What `hlik.check_accuracy` says of a fit: a table of distances from the maximum, and sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hlik.accuracy_evaluation import CheckedFit
from hlik.graph.describe import labels_of

FAR, SLIGHT = 0.5, 0.1  # standard errors, beyond two Monte Carlo errors


def distance_table(
    checked: CheckedFit, psi: np.ndarray, distance: np.ndarray, noise: np.ndarray, gradient: np.ndarray
) -> pd.DataFrame:
    """A row an element of the value variables, with natural-scale values."""
    model, p = checked.model, checked.model.n_beta
    parts = []
    for parameter in model.parameters:
        start = 0 if parameter.natural is None else p
        place = slice(parameter.index.start + start, parameter.index.stop + start)
        values = [_natural(parameter, x, p)[: place.stop - place.start] for x in (checked.psi, psi)]
        index = labels_of(model.coords, parameter.variable, parameter.name)
        columns = {
            "role": parameter.role,
            "estimate": values[0],
            "maximum": values[1],
            "distance": distance[place],
            "mcse": noise[place],
            "gradient": gradient[place],
        }
        parts.append(pd.DataFrame(columns, index=pd.Index(index, name="parameter")))
    return pd.concat(parts)


def _natural(parameter: Any, psi: np.ndarray, p: int) -> np.ndarray:
    """Values on the natural scale; those of the value variable where the two have different sizes."""
    if parameter.natural is None:
        return psi[:p][parameter.index]
    values = np.ravel(parameter.natural.value(psi[p:]))
    own = psi[p:][parameter.index]
    return values if values.size == own.size else own


def verdict_of(table: pd.DataFrame, name: str, restricted: bool) -> tuple[str, tuple[str, ...]]:
    """A word, and sentences about the parameters that are off, the farthest first.

    Parameters
    ----------
    restricted
        Whether the estimator maximises a restricted likelihood.
    """
    sure = table["distance"].abs() - 2 * table["mcse"]
    level = "clean" if not (sure > SLIGHT).any() else "far" if (sure > FAR).any() else "slight"
    off = table[sure > SLIGHT].assign(size=lambda t: t["distance"].abs()).sort_values("size", ascending=False)
    sentences = [_about(name, str(label), row) for label, row in off.iterrows()]
    lost = table.index[~np.isfinite(table["distance"])].tolist()
    if lost:
        sentences.append(f"{', '.join(lost)}: no standard error at the maximum (at a boundary), and no distance")
    if level == "clean":
        return level, (f"{name} is within {SLIGHT} SE of the maximum-likelihood estimates", *sentences)
    if restricted:
        sentences.append(f"{name} maximises a restricted likelihood here, whose variances are larger on purpose")
    if name != "MCLA":
        sentences.append("use Laplace or MCLA" if name == "EQL" and level == "far" else "use MCLA")
    return level, tuple(sentences)


def _about(name: str, label: str, row: pd.Series) -> str:
    side = "below" if row["estimate"] < row["maximum"] else "above"
    how = "" if row["size"] - 2 * row["mcse"] > FAR else "slightly off: "
    return (
        f"{how}{name}'s {label} ({row['estimate']:.4g}) is {row['size']:.2f} SE {side} the maximum-likelihood "
        f"estimate ({row['maximum']:.4g})"
    )
