"""`from_formula`: a formula and a data frame become a PyMC model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm

from hlik.errors import ModelError
from hlik.formula import frame
from hlik.formula.build import build
from hlik.formula.effects import RandomDistribution
from hlik.formula.frame import Design
from hlik.formula.groups import Factor
from hlik.formula.spec import Fixed, ModelSpec, PredictorSpec, RandomTerm
from hlik.formula.split import GroupBlock, ParsedFormula, parse


@dataclass(frozen=True)
class FormulaDesign:
    """How the columns of a formula model are made from a data frame: kept with the model for new data.

    `blocks` holds one (factor, design of the left side, names of the terms) for each pair of brackets.
    """

    prefix: str
    fixed: Design
    blocks: tuple[tuple[Factor, Design, tuple[RandomTerm, ...]], ...]


def from_formula(
    formula: str,
    data: pd.DataFrame,
    *,
    family: str = "gaussian",
    link: str | None = None,
    trials: Any = None,
    random: Mapping[str, RandomDistribution] | None = None,
    dispersion: str | None = None,
    random_dispersion: Mapping[str, str] | None = None,
    weights: Any = None,
    missing: str = "drop",
    noncentered: bool = False,
    env: int = 0,
) -> pm.Model:
    """Write a mixed model as a formula and get the PyMC model of it.

    Parameters
    ----------
    formula
        ``response ~ fixed effects + (effects | group)``. Fixed effects and the left sides of bars as in `formulae`:
        ``+ - * : /``, factors coded against their first level, ``log``, ``scale``, ``bs``, ``poly``, ``C``, ``I``,
        ``offset(log(n))``. ``(1 | g)``: an intercept for each level of g; ``(x | g)``: intercepts and slopes,
        correlated; ``(x || g)``: independent; ``(0 + x | g)``: slopes only; ``(1 | g/h)``: g and h within g.
        The response of binary data may be a factor with two levels (the last one counts as success, as in R) or
        ``y[level]``; that of binomial data ``p(successes, trials)`` or successes with `trials`.
    data
        One row for each observation. It is not changed.
    family
        Bambi's names: gaussian, t, bernoulli, binomial, beta_binomial, poisson, negativebinomial, gamma, wald,
        exponential, beta, weibull, zero_inflated_poisson, zero_inflated_binomial, zero_inflated_negativebinomial.
    link
        identity, log, logit, probit, cloglog, loglog, cauchit, inverse, sqrt or inverse_squared. Default: as in R and
        Bambi (gamma: inverse, wald: inverse_squared).
    trials
        Column, number or array of the numbers of trials.
    random
        Distributions of random effects, by group (``{"plate": "beta"}``) or by term (``{"1|plate": "beta"}``):
        ``"normal"`` (default), ``"gamma"`` (v = log u, mean of u 1), ``"beta"`` (v = logit u, mean 1/2),
        ``"inverse_gamma"`` (v = 1/u, mean of u 1), ``"t"``, ``"t(10)"`` with known degrees of freedom, or a function
        of name and dims that makes the variable and returns v.
    dispersion
        A one-sided formula of the log of the dispersion: of sigma**2 for gaussian and t, of 1/alpha for gamma and
        negativebinomial, 1/lam for wald, 1/kappa for beta and beta_binomial. It may have random effects.
    random_dispersion
        One-sided formulas of the log of the dispersion of random effects (of sigma**2, or of lam), by group or by
        term. Their variables must be constant within each level.
    weights
        Column or array of prior weights: the dispersion of observation i is divided by its weight. For families
        without a dispersion, pass them to `hlik.fit`.
    missing
        ``"drop"``: leave out rows with a missing value in a column that the model uses, with a `DataWarning` that
        counts them; ``"error"``: refuse them.
    noncentered
        Write normal effects as sigma times a standard normal variable, which samples better where the data say
        little about each level. The likelihood fit is the same.
    env
        Levels of the call stack to go up for functions that the formula uses.

    Returns
    -------
    pymc.Model
        With a variable for each term under the names that Bambi gives them: ``Intercept``, ``x``,
        ``extract`` (one entry a level), ``1|g`` and ``1|g_sigma`` (or ``1|g_lam``), ``sigma`` and so on; variables of
        the dispersion begin with ``dispersion_``; a ``/`` in a term becomes ``÷``. Correlated effects ``(x | g)`` are
        ``x|g``, with standard deviations ``x|g_chol_stds`` and correlations ``x|g_chol_corr``. Design matrices and
        level numbers are `pm.Data`. The priors are weak, on the scale of the data; likelihood fits ignore them.

    Raises
    ------
    ModelError
        Where formula, data or arguments do not make a model, with the piece in question.

    Warns
    -----
    DataWarning
        Where rows with missing values are left out.

    See Also
    --------
    from_matrices : the same from design matrices.
    hglm : this and `hlik.fit` in one call.

    Examples
    --------
    >>> import hlik, numpy as np, pandas as pd
    >>> data = pd.DataFrame({"r": [5, 8, 11, 2, 3, 9, 6, 7], "n": [10, 12, 14, 9, 8, 15, 9, 10],
    ...                      "dose": [0.0, 1, 2, 0, 1, 2, 1, 2], "plate": list("aabbccdd")})
    >>> model = hlik.from_formula("r ~ dose + (1 | plate)", data, family="binomial", trials="n")
    >>> [variable.name for variable in model.free_RVs]
    ['Intercept', 'dose', '1|plate_sigma', '1|plate']
    >>> idata = hlik.fit(model, progressbar=False)
    >>> round(float(idata.estimates["dose"]), 3)
    0.7
    """
    parsed = parse(formula)
    spread = parse(dispersion, "dispersion", one_sided=True) if dispersion is not None else None
    names = frame.environment(env + 1)
    random_formulas = {key: parse(text, "random_dispersion", True) for key, text in (random_dispersion or {}).items()}
    needed = _needed([parsed, spread, *random_formulas.values()], trials, weights)
    rows = frame.complete_rows(data, needed, missing, names)
    name, y, counted = _response(parsed.response, rows, names, family)
    chosen = _Choices(dict(random or {}), random_formulas)
    mean, mean_design = _predictor(parsed, rows, names, chosen, "")
    dispersion_spec, dispersion_design = None, None
    if spread is not None:
        dispersion_spec, dispersion_design = _predictor(spread, rows, names, chosen, "dispersion_")
    chosen.check_used()
    given = frame.column(trials, rows, data.index, "trials")
    if given is not None and counted is not None:
        raise ModelError(f"the response {parsed.response} has its trials already: leave trials= out.")
    spec = ModelSpec(
        name=name,
        y=y,
        mean=mean,
        family=family,
        link=link,
        rows=rows.index.to_numpy(),
        dispersion=dispersion_spec,
        trials=counted if counted is not None else given,
        weights=frame.column(weights, rows, data.index, "weights"),
        noncentered=noncentered,
    )
    model = build(spec)
    model.formula_designs = tuple(design for design in (mean_design, dispersion_design) if design is not None)
    return model


def _needed(formulas: list[ParsedFormula | None], trials: Any, weights: Any) -> set[str]:
    """Variables of all formulas and arguments."""
    needed = {*frame.names_of(trials), *frame.names_of(weights)}
    for parsed in formulas:
        if parsed is None:
            continue
        text = f"{parsed.response} ~ {parsed.fixed}" if parsed.response else parsed.fixed
        needed |= frame.variables(text)
        for block in parsed.blocks:
            needed |= frame.variables(block.effects) | set(block.factor)
    return needed


def _response(text: str, rows: pd.DataFrame, names: Any, family: str) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Name, values and trials of the response."""
    response = frame.evaluate_response(text, rows, names)
    values = np.asarray(response.design_matrix)
    if response.kind == "proportion":
        return text, values[:, 0], values[:, 1].astype(float)
    if response.kind == "categoric":
        if family != "bernoulli":
            raise ModelError(f"response {text!r} is a factor, which goes with family='bernoulli'; got {family!r}.")
        if response.levels is None:
            return text.split("[")[0].strip(), values.reshape(len(rows)), None
        if len(response.levels) != 2:
            raise ModelError(f"response {text!r} must have two levels; it has {list(response.levels)}.")
        return text, values[:, 1], None
    if values.ndim > 1 and values.shape[1] != 1:
        raise ModelError(f"response {text!r} must be one column; it has {values.shape[1]}.")
    y = values.reshape(len(rows))
    if not np.all(np.isfinite(y.astype(float))):
        raise ModelError(f"response {text!r} is not finite in row {rows.index[~np.isfinite(y.astype(float))][0]!r}.")
    return text, y.astype(int) if y.dtype == bool else y, None


@dataclass
class _Choices:
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


def _predictor(
    parsed: ParsedFormula, rows: pd.DataFrame, names: Any, chosen: _Choices, prefix: str
) -> tuple[PredictorSpec, FormulaDesign]:
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
    term: RandomTerm, chosen: _Choices, prefix: str, rows: pd.DataFrame, codes: np.ndarray, names: Any
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
