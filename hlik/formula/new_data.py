"""New data for a model that was made from a formula."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm

from hlik.errors import ModelError
from hlik.formula.build import ROWS
from hlik.formula.design import FormulaDesign
from hlik.formula.groups import Factor
from hlik.formula.spec import RandomTerm, variable_name


@dataclass(frozen=True)
class NewData:
    """What `pm.set_data` needs for new rows.

    Attributes
    ----------
    values
        Values of the model's data containers, by name.
    coords
        Coordinates: of the rows, and of grouping factors with levels that the model does not know (these come after
        the known ones).
    new_levels
        The unknown levels by grouping factor.
    """

    values: Mapping[str, np.ndarray]
    coords: Mapping[str, Any]
    new_levels: Mapping[str, np.ndarray]


def has_formula(model: pm.Model) -> bool:
    """Whether the model was made by `from_formula`."""
    return hasattr(model, "formula_designs")


def new_data(model: pm.Model, data: pd.DataFrame, trials: Any = None, weights: Any = None) -> NewData:
    """Code a data frame as the data of a formula model were coded.

    Parameters
    ----------
    model
        From `from_formula`.
    data
        New rows with the columns of the formula; the response is not needed.
    trials, weights
        Numbers of trials and prior weights of the new rows, shape (n,) or a number; 1 unless given.

    Raises
    ------
    ModelError
        Where the model has no formula, or the data lack a column or have missing values or unknown levels in it.
    """
    designs: tuple[FormulaDesign, ...] = getattr(model, "formula_designs", ())
    if not designs:
        raise ModelError("this model was not made by hlik.from_formula: set its pm.Data with pm.set_data.")
    n = len(data)
    values: dict[str, np.ndarray] = {}
    coords: dict[str, Any] = {ROWS: np.arange(n)}
    new_levels: dict[str, np.ndarray] = {}
    for design in designs:
        try:
            _predictor(design, data, values, coords, new_levels)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"data do not fit the formula of the model: {error}") from error
    for name, given in (("trials", trials), ("weights", weights)):
        if name in model.named_vars:
            values[name] = np.broadcast_to(np.asarray(1.0 if given is None else given, float), (n,))
    known = {name: value for name, value in values.items() if name in model.named_vars}
    for name, value in known.items():
        if not np.all(np.isfinite(value)):
            raise ModelError(f"data have missing values in what {name!r} is made from: leave those rows out.")
    return NewData(known, coords, new_levels)


def _predictor(
    design: FormulaDesign,
    data: pd.DataFrame,
    values: dict[str, np.ndarray],
    coords: dict[str, Any],
    new_levels: dict[str, np.ndarray],
) -> None:
    fixed = design.fixed.again(data)
    values[f"{design.prefix}X"] = fixed.X
    if fixed.offset is not None:
        values[f"{design.prefix}offset"] = fixed.offset
    for factor, left, terms in design.blocks:
        codes, new = factor.codes(data)
        values[f"{factor.name}__index"] = codes
        if len(new):
            _check_dispersions(factor, terms)
            new_levels[factor.name] = new
            coords[f"{factor.name}__factor_dim"] = np.concatenate([factor.levels.astype(object), new.astype(object)])
        columns = left.again(data)
        for term in terms:
            if term.columns is None:
                continue
            name = f"{variable_name(design.prefix, term.name)}_data"
            block = columns.X if term.correlated else _own_columns(term.name, columns)
            values[name] = block if term.wide else block[:, 0]


def _check_dispersions(factor: Factor, terms: tuple[RandomTerm, ...]) -> None:
    if any(term.dispersion is not None for term in terms):
        raise ModelError(
            f"data have levels of {factor.name!r} that the model does not know, and the dispersion of its random "
            f"effects is a formula (random_dispersion): only known levels can be predicted."
        )


def _own_columns(name: str, columns: Any) -> np.ndarray:
    left = name.rsplit("|", 1)[0]
    return next(columns.X[:, term.columns] for term in columns.terms if term.name == left)
