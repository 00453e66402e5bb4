"""Linear functions of a fit's parameters: their names resolved to rows over `idata.fit.parameter`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import arviz as az
import numpy as np

from hlik.errors import ModelError
from hlik.inference.tables import model_of


class ParameterNames:
    """The elements of a fit's parameter vector, found by label, or by coordinate where one fixed effect has it.

    ``"beta[RR]"`` and, if no other fixed effect has that label, ``"RR"`` are the same element.
    """

    def __init__(self, idata: az.InferenceData):
        self.labels = [str(label) for label in idata["fit"]["parameter"].values]
        described = model_of(idata)["parameters"]
        self.fixed = [self._place(p["value_name"]) for p in described if p["role"] == "fixed effect"]
        self.fixed_names = [p["name"] for p in described if p["role"] == "fixed effect"]
        self._by_name = {label: k for k, label in enumerate(self.labels)}
        for short, places in self._short_labels().items():
            if len(places) == 1:
                self._by_name.setdefault(short, places[0])

    def _place(self, value_name: str) -> np.ndarray:
        own = re.compile(re.escape(value_name) + r"(\[.*\])?$")
        return np.array([k for k, label in enumerate(self.labels) if own.match(label)], dtype=int)

    def _short_labels(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place in self.fixed_places:
            label = self.labels[place]
            if label.endswith("]"):
                found.setdefault(label[label.index("[") + 1 : -1], []).append(int(place))
        return found

    @property
    def fixed_places(self) -> np.ndarray:
        """Positions of all fixed effects."""
        return np.concatenate(self.fixed) if self.fixed else np.zeros(0, dtype=int)

    def place(self, name: str) -> int:
        """Position of one element."""
        if name not in self._by_name:
            raise ModelError(f"No parameter is called {name!r}; the labels are {', '.join(self.labels)}.")
        return self._by_name[name]

    def row(self, weights: Mapping[str, float]) -> np.ndarray:
        """A linear combination as a row, shape (P,)."""
        row = np.zeros(len(self.labels))
        for name, weight in weights.items():
            row[self.place(name)] += float(weight)
        return row

    def rows(self, asked: Any, argument: str) -> tuple[list[str], np.ndarray]:
        """Names and rows of ``{name: {label: weight}}``, of a list of labels, or of a matrix over the fixed effects."""
        if isinstance(asked, Mapping):
            return [str(name) for name in asked], np.array([self.row(weights) for weights in asked.values()])
        if isinstance(asked, Sequence) and all(isinstance(name, str) for name in asked):
            return list(asked), np.array([self.row({name: 1.0}) for name in asked])
        matrix = np.atleast_2d(np.asarray(asked, dtype=float))
        places = self.fixed_places
        if matrix.shape[1] != places.size:
            names = ", ".join(self.labels[k] for k in places)
            raise ModelError(
                f"{argument}: a matrix needs a column for each of the {places.size} fixed effects ({names}); got shape "
                f"{matrix.shape}."
            )
        rows = np.zeros((len(matrix), len(self.labels)))
        rows[:, places] = matrix
        return [self._written(row) for row in rows], rows

    def _written(self, row: np.ndarray) -> str:
        """``beta[a] - 0.5 beta[b]``."""
        parts: list[str] = []
        for k in np.flatnonzero(row):
            size = "" if abs(row[k]) == 1 else f"{abs(row[k]):g} "
            sign = ("-" if row[k] < 0 else "") if not parts else ("- " if row[k] < 0 else "+ ")
            parts.append(f"{sign}{size}{self.labels[k]}")
        return " ".join(parts)
