"""`from_formula`: a formula and a data frame become a PyMC model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm

from hlik.errors import ModelError
from hlik.formula import frame
from hlik.formula.build import build
from hlik.formula.design import Choices, predictor
from hlik.formula.effects import RandomDistribution
from hlik.formula.spec import ModelSpec
from hlik.formula.split import ParsedFormula, parse


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
    chosen = Choices(dict(random or {}), random_formulas)
    mean, mean_design = predictor(parsed, rows, names, chosen, "")
    dispersion_spec, dispersion_design = None, None
    if spread is not None:
        dispersion_spec, dispersion_design = predictor(spread, rows, names, chosen, "dispersion_")
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
    model.formula_frame = rows[[column for column in rows.columns if column in needed]]
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
