"""The linear predictor of a formula: its fixed columns, and a random term for each part of its bars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hlik.errors import ModelError
from hlik.formula import frame
from hlik.formula.effects import RandomDistribution
from hlik.formula.frame import Design
from hlik.formula.groups import Factor
from hlik.formula.spec import Fixed, PredictorSpec, RandomTerm
from hlik.formula.split import GroupBlock, ParsedFormula


@dataclass(frozen=True)
class FormulaDesign:
    """How the columns of a formula model are made from a data frame: kept with the model for new data.

    `blocks` holds one (factor, design of the left side, names of the terms) for each pair of brackets.
    """

    prefix: str
    fixed: Design
    blocks: tuple[tuple[Factor, Design, tuple[RandomTerm, ...]], ...]


@dataclass
class Choices:
    """Arguments by group or by term; each must meet a term."""

    random: dict[str, RandomDistribution]
    dispersion: dict[str, ParsedFormula]

    def __post_init__(self) -> None:
        self.seen: set[str] = set()

    def distribution(self, keys: tuple[str, ...]) -> RandomDistribution:
        self.seen.update(keys)
        return next((self.random[key] for key in keys if key in self.random), "normal")

    def formula(self, keys: tuple[str, ...]) -> ParsedFormula | None:
        return next((self.dispersion[key] for key in keys if key in self.dispersion), None)

    def check_used(self) -> None:
        for argument, given in (("random", self.random), ("random_dispersion", self.dispersion)):
            unknown = [key for key in given if key not in self.seen]
            if unknown:
                raise ModelError(
                    f"{argument}= names {unknown[0]!r}, which is no group or term of the formula; "
                    f"there are {sorted(self.seen)}."
                )


def predictor(
    parsed: ParsedFormula, rows: pd.DataFrame, names: Any, chosen: Choices, prefix: str
) -> tuple[PredictorSpec, FormulaDesign]:
    """The predictor that a formula says, with what makes its columns from new data."""
    fixed = frame.evaluate(parsed.fixed, rows, names)
    terms: list[RandomTerm] = []
    blocks = []
    for block in parsed.blocks:
        factor, codes = Factor.of(block.factor, rows)
        design = frame.evaluate(block.effects, rows, names)
        made = [
            _chosen(term, chosen, prefix, rows, codes, names)
            for term in random_terms(block, factor, design, codes)
        ]  # fmt: skip
        terms += made
        blocks.append((factor, design, tuple(made)))
    spec = PredictorSpec(Fixed(fixed.X, fixed.terms, fixed.offset), tuple(terms), prefix)
    return spec, FormulaDesign(prefix, fixed, tuple(blocks))


def random_terms(block: GroupBlock, factor: Factor, design: Design, codes: np.ndarray) -> list[RandomTerm]:
    """The terms of one pair of brackets: one if its columns are correlated, else one for each term of the left side."""
    if design.offset is not None or not design.terms:
        raise ModelError(f"({block.effects} | {block.group}): the left side of the bar must have columns, no offset.")
    base = RandomTerm("", block.group, factor.levels, codes=codes)
    if block.correlated and design.X.shape[1] > 1:
        labels = tuple(label for term in design.terms for label in _labels(term.name, term.labels))
        name = "+".join(term.name for term in design.terms if term.name != "Intercept") or "1"
        name = f"{name}|{block.group}"
        return [replace(base, name=name, labels=labels, columns=design.X, wide=True, correlated=True)]
    terms = []
    for term in design.terms:
        if term.name == "Intercept":
            terms.append(replace(base, name=f"1|{block.group}"))
            continue
        columns = design.X[:, term.columns]
        labels = term.labels or (term.name,)
        terms.append(
            replace(
                base,
                name=f"{term.name}|{block.group}",
                labels=labels,
                columns=columns,
                wide=term.labels is not None,
            )
        )
    return terms


def _labels(name: str, labels: tuple[str, ...] | None) -> list[str]:
    return [name] if labels is None else [f"{name}[{label}]" for label in labels]


def _chosen(
    term: RandomTerm, chosen: Choices, prefix: str, rows: pd.DataFrame, codes: np.ndarray, names: Any
) -> RandomTerm:
    keys = (prefix + term.name, prefix + term.group)
    distribution, formula = chosen.distribution(keys), chosen.formula(keys)
    if formula is None:
        return replace(term, distribution=distribution)
    if formula.blocks:
        raise ModelError(f"random_dispersion of {term.name!r}: random effects cannot stand in it.")
    design = frame.evaluate(formula.fixed, rows, names)
    return replace(term, distribution=distribution, dispersion=_by_level(design, term, codes))


def _by_level(design: Design, term: RandomTerm, codes: np.ndarray) -> Fixed:
    """The rows of a design, one a level; refuse columns that change within one."""
    first = np.zeros(len(term.levels), int)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    X, offset = design.X[first], None if design.offset is None else design.offset[first]
    for fixed in design.terms:
        if not np.allclose(design.X[:, fixed.columns], X[codes, fixed.columns], rtol=1e-12, atol=0):
            raise ModelError(
                f"random_dispersion of {term.name!r}: {fixed.name!r} changes within a level of {term.group!r}; it must "
                f"be a property of the level."
            )
    return Fixed(X, design.terms, offset)
