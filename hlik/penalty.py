"""Densities of parameters as a penalty on the log-likelihood: where it is kept, and the model without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hlik.model import HierarchicalModel


@dataclass(frozen=True, eq=False)
class Penalty:
    """The last extra terms of a model, which stand for the densities of its parameters.

    Attributes
    ----------
    terms
        One a parameter (`hlik.terms.ResponseTerm`).
    first_row
        Where their rows of the stacked predictor begin: they are the last.
    obstacles
        Why closed-form estimators cannot serve the model without them.
    """

    terms: tuple[Any, ...]
    first_row: int
    obstacles: tuple[str, ...]

    def value(self, eta: np.ndarray, theta: np.ndarray) -> float:
        """The log density of the parameters."""
        return float(sum(term.value(eta, theta) for term in self.terms))


def unpenalised(model: HierarchicalModel) -> HierarchicalModel:
    """The model without the densities of its parameters; itself where there are none."""
    penalty = model.penalty
    if penalty is None:
        return model
    rows = slice(0, penalty.first_row)
    return replace(
        model,
        X=model.X[rows],
        Z=model.Z[rows],
        offset=model.offset[rows],
        theta_design=None if model.theta_design is None else model.theta_design[rows],
        extra_terms=model.extra_terms[: len(model.extra_terms) - len(penalty.terms)],
        obstacles=penalty.obstacles,
        penalty=None,
    )
