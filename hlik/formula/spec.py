"""What a formula or matrices say, as numbers and names, before any PyMC variable is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hlik.formula.effects import RandomDistribution
from hlik.formula.frame import FixedTerm


def variable_name(prefix: str, term: str) -> str:
    """Name of a term's variable: PyMC allows no ``/`` in names, which becomes ``÷``."""
    return (prefix + term).replace("/", "÷")


@dataclass(frozen=True)
class Fixed:
    """A design matrix, shape (n, p), its terms, and an offset, shape (n,), or None."""

    X: np.ndarray
    terms: tuple[FixedTerm, ...]
    offset: np.ndarray | None


@dataclass(frozen=True)
class RandomTerm:
    """Random effects of one term.

    Attributes
    ----------
    name
        Name of the variable.
    group, levels
        Grouping factor, and the labels of its levels.
    labels
        Columns of the left side of the bar.
    columns
        Their values, shape (n, k); None for one column of ones.
    codes
        Level of each row; None where `Z` is given instead.
    Z
        A sparse or dense matrix, shape (n, levels).
    wide
        Whether the variable has a dimension for the columns.
    correlated
        Whether the columns are correlated.
    distribution, dispersion
        Distribution of the effects; design of the log of their dispersion, one row a level.
    """

    name: str
    group: str
    levels: np.ndarray
    labels: tuple[str, ...] = ("Intercept",)
    columns: np.ndarray | None = None
    codes: np.ndarray | None = None
    Z: Any = None
    wide: bool = False
    correlated: bool = False
    distribution: RandomDistribution = "normal"
    dispersion: Fixed | None = None


@dataclass(frozen=True)
class PredictorSpec:
    """A linear predictor; `prefix` goes before the names of its variables."""

    fixed: Fixed
    random: tuple[RandomTerm, ...] = ()
    prefix: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """A whole model; `rows` labels the observations."""

    name: str
    y: np.ndarray
    mean: PredictorSpec
    family: str
    link: str | None
    rows: np.ndarray
    dispersion: PredictorSpec | None = None
    trials: np.ndarray | None = None
    weights: np.ndarray | None = None
    noncentered: bool = False
