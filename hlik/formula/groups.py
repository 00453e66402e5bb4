"""Grouping factors: the level of each row, with the levels in their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hlik.errors import ModelError


@dataclass(frozen=True)
class Factor:
    """A grouping factor: one column of the data, or the combinations of several that occur.

    Attributes
    ----------
    columns
        Columns of the data.
    levels
        The levels, sorted (categories in their own order); combinations as text, ``"a:b"``.
    """

    columns: tuple[str, ...]
    levels: np.ndarray

    @property
    def name(self) -> str:
        """The columns joined by colons."""
        return ":".join(self.columns)

    @classmethod
    def of(cls, columns: tuple[str, ...], data: pd.DataFrame) -> tuple[Factor, np.ndarray]:
        """The factor with its levels, and the level number of each row of the data."""
        keys = _keys(columns, data)
        codes, levels = pd.factorize(keys, sort=True)
        return cls(columns, np.asarray(levels)), codes

    def codes(self, data: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Level numbers of other data; new levels are numbered after the known ones, and returned."""
        missing = [name for name in self.columns if name not in data.columns]
        if missing:
            raise ModelError(f"new data have no column {missing[0]!r}, a grouping factor of the model.")
        keys = pd.Series(np.asarray(_keys(self.columns, data)))
        new = np.asarray(pd.unique(keys[~keys.isin(self.levels)]))
        every = pd.Index(np.concatenate([self.levels.astype(object), new.astype(object)]))
        return every.get_indexer(pd.Index(keys.astype(object))), new


def _keys(columns: tuple[str, ...], data: pd.DataFrame) -> pd.Series:
    if len(columns) == 1:
        return data[columns[0]]
    numbers = [pd.factorize(data[name], sort=True) for name in columns]
    combined = pd.MultiIndex.from_arrays([codes for codes, _ in numbers])
    order = combined.unique().sort_values()
    labels = [":".join(str(numbers[k][1][code]) for k, code in enumerate(row)) for row in order]
    return pd.Series(pd.Categorical.from_codes(order.get_indexer(combined), categories=pd.Index(labels)))
