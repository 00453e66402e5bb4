"""Columns of a data frame evaluated by formulas: design matrices, responses, missing rows.

`formulae` does the work: codings, interactions, and transformations that remember what they were made from
(``scale``, ``bs``), so that new data are coded as the old were.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulae.environment import Environment
from formulae.matrices import DesignMatrices
from formulae.model_description import model_description

from hlik.errors import DataWarning, ModelError

FUNCTIONS = {name: getattr(np, name) for name in ("log", "log2", "log10", "log1p", "exp", "expm1", "sqrt", "abs")}
"""Functions that a formula may use without an import, beside those of `formulae` (scale, center, bs, poly, C, I)."""


@dataclass(frozen=True)
class FixedTerm:
    """One term of a design matrix: its columns, and their labels where there are several or levels."""

    name: str
    columns: slice
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Design:
    """The design matrix of a formula without bars.

    `X` has shape (n, p), `offset` shape (n,), or is None where the formula has none; `evaluated` is formulae's own
    object, for `again`.
    """

    X: np.ndarray
    terms: tuple[FixedTerm, ...]
    offset: np.ndarray | None
    evaluated: Any

    def again(self, data: pd.DataFrame) -> Design:
        """The same columns for other data, with the codings and transformations of the first."""
        if self.evaluated is None:
            return Design(np.empty((len(data), 0)), (), None, None)
        return _design(self.evaluated.evaluate_new_data(data), data.index)


def environment(depth: int) -> Environment:
    """Names that formulas may use: those of the frame `depth` levels above the caller, and `FUNCTIONS`."""
    return Environment.capture(depth, reference=1).with_outer_namespace(FUNCTIONS)


def variables(text: str) -> set[str]:
    """Names of the variables of a formula without bars."""
    try:
        return {name for name in model_description(text).var_names if name}  # formulae has "" for numbers
    except Exception as error:
        raise ModelError(f"formula {text!r} cannot be read: {error}") from error


def evaluate(text: str, data: pd.DataFrame, names: Environment) -> Design:
    """The design matrix of a one-sided formula without bars, such as ``1 + x * g``."""
    common = _evaluate(text, data, names).common
    if common is None:
        return Design(np.empty((len(data), 0)), (), None, None)
    design = _design(common, data.index)
    empty = [term.name for term in design.terms if term.columns.start == term.columns.stop]
    if empty:
        raise ModelError(f"term {empty[0]!r} has no columns: a factor needs two levels or more; this one has one.")
    return design


def evaluate_response(text: str, data: pd.DataFrame, names: Environment) -> Any:
    """formulae's response matrix of ``text``."""
    return _evaluate(f"{text} ~ 1", data, names).response


def _evaluate(text: str, data: pd.DataFrame, names: Environment) -> DesignMatrices:
    try:
        return DesignMatrices(model_description(text), data, names)
    except Exception as error:
        raise ModelError(f"formula {text!r} cannot be evaluated: {error}") from error


def _design(common: Any, rows: pd.Index) -> Design:
    terms, columns, start = [], [], 0
    offset: np.ndarray | None = None
    values = common.design_matrix
    for name, term in common.terms.items():
        block = np.asarray(values[:, common.slices[name]], float)
        bad = np.argwhere(~np.isfinite(block))
        if bad.size:
            row, place = bad[0]
            raise ModelError(
                f"term {name!r} is {block[row, place]} in row {rows[row]!r}: correct that row of the data, or leave it "
                "out."
            )
        if term.kind == "offset":
            offset = block[:, 0] if offset is None else offset + block[:, 0]
            continue
        terms.append(FixedTerm(name, slice(start, start + block.shape[1]), _labels(term, block.shape[1])))
        columns.append(block)
        start += block.shape[1]
    X = np.column_stack(columns) if columns else np.empty((len(rows), 0))
    return Design(X, tuple(terms), offset, common)


def _labels(term: Any, size: int) -> tuple[str, ...] | None:
    levels = getattr(term, "levels", None)
    if levels is not None and len(levels):
        return tuple(str(level) for level in levels)
    return None if size == 1 else tuple(str(i) for i in range(size))


def complete_rows(data: pd.DataFrame, needed: Iterable[str], missing: str, names: Environment) -> pd.DataFrame:
    """The rows in which no needed column is missing; a `DataWarning` counts the others.

    Categories that no longer occur are dropped from the columns.
    """
    if not isinstance(data, pd.DataFrame):
        raise ModelError(f"data must be a pandas.DataFrame; got {type(data).__name__}.")
    if missing not in ("drop", "error"):
        raise ModelError(f"missing={missing!r}: expected 'drop' (rows with missing values, with a warning) or 'error'.")
    wanted = sorted(set(needed))
    unknown = [name for name in wanted if name not in data.columns and name not in names.namespace]
    if unknown:
        raise ModelError(f"data have no column {unknown[0]!r}; they have {list(data.columns)}.")
    columns = [name for name in wanted if name in data.columns]
    gaps = data[columns].isna()
    incomplete = gaps.any(axis=1)
    if incomplete.any():
        report = _report(gaps, int(incomplete.sum()), len(data))
        if missing == "error" or incomplete.all():
            raise ModelError(f"{report}.")
        warnings.warn(f"{report}: these rows are left out.", DataWarning, stacklevel=4)
    kept = data.loc[~incomplete, columns].copy()
    if kept.empty:
        raise ModelError("data have no rows.")
    for name in columns:
        if isinstance(kept[name].dtype, pd.CategoricalDtype):
            kept[name] = kept[name].cat.remove_unused_categories()
    return kept


def _report(gaps: pd.DataFrame, rows: int, n: int) -> str:
    counts = gaps.sum()
    parts = ", ".join(f"{name} ({int(count)})" for name, count in counts[counts > 0].items())
    return f"{rows} of {n} rows have missing values, by column: {parts}"


def column(value: Any, data: pd.DataFrame, index: pd.Index, argument: str) -> np.ndarray | None:
    """An argument that may be a column's name, a number or an array in the rows of the original data."""
    if value is None:
        return None
    if isinstance(value, str):
        return np.asarray(data[value], float)
    array = np.asarray(value, float)
    if array.ndim == 0:
        return np.full(len(data), float(array))
    if array.shape != (len(index),):
        raise ModelError(f"{argument} must be a column's name, a number or {len(index)} numbers; got {array.shape}.")
    return array[index.get_indexer(data.index)] if len(index) != len(data) else array


def names_of(value: Any) -> Sequence[str]:
    """The columns that such an argument names."""
    return [value] if isinstance(value, str) else []
