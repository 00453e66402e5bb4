"""Wald tests of the fixed effects, a term at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import arviz as az
import numpy as np
import pandas as pd

from hlik.errors import ModelError
from hlik.inference.contrasts import joint_test
from hlik.inference.linear import ParameterNames

COLUMNS = ("statistic", "chi_squared", "df", "df_residual", "p_value")


def anova(
    idata: az.InferenceData, terms: Mapping[str, Sequence[str]] | None = None, *, df: float | None = None
) -> pd.DataFrame:
    """Joint Wald test of each term: that all its coefficients are zero, given the others (type III).

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    terms
        Labels of the coefficients of each term; as in `hlik.contrasts`. None: every variable of fixed effects is a
        term, and one whose labels are words has a term for each of them, levels in brackets left out:
        ``beta[extract[bean]]`` and ``beta[extract[cucumber]]`` are the term ``extract``.
    df
        Denominator degrees of freedom; None for the residual ones, ``numpy.inf`` for chi-squared tests.

    Returns
    -------
    pandas.DataFrame
        A row a term; columns ``statistic`` (F), ``chi_squared``, ``df``, ``df_residual``, ``p_value``.

    Raises
    ------
    ModelError
        Where the model has no fixed effects, or a label does not exist.

    Notes
    -----
    These are tests of coefficients: with interactions and treatment coding, a main effect's test is about the baseline
    of the other factor. `hlik.lr_test` compares two fits instead.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model() as model:
    ...     mean, dose = pm.Normal("mean", 0, 10), pm.Normal("dose", 0, 10, shape=2)
    ...     u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=4)
    ...     X = np.tile([[0, 0], [1, 0], [0, 1]], (4, 1))
    ...     mu = mean + X @ dose + u[np.repeat(np.arange(4), 3)]
    ...     _ = pm.Normal("y", mu, pm.HalfNormal("sigma", 1), observed=y)
    >>> hlik.anova(hlik.fit(model, progressbar=False))["df"].to_dict()
    {'mean': 1, 'dose': 2}
    """
    names = ParameterNames(idata)
    if not names.fixed:
        raise ModelError("The model has no fixed effects to test.")
    found = default_terms(names) if terms is None else _places(names, terms)
    rows = {}
    for term, places in found.items():
        matrix = np.eye(len(names.labels))[places]
        rows[term] = joint_test(idata, matrix, np.zeros(len(places)), df)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)).astype({"df": int}).rename_axis("term")


def _places(names: ParameterNames, terms: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    return {
        term: [names.place(label) for label in ([labels] if isinstance(labels, str) else labels)]
        for term, labels in terms.items()
    }


def default_terms(names: ParameterNames) -> dict[str, list[int]]:
    """Positions of each term's coefficients, by variable and word."""
    found: dict[str, list[int]] = {}
    for variable, places in zip(names.fixed_names, names.fixed, strict=True):
        for place in places:
            label = names.labels[place]
            inner = label[label.index("[") + 1 : -1] if label.endswith("]") else ""
            word = re.sub(r"\[[^\]]*\]", "", inner)
            is_word = bool(word) and not re.fullmatch(r"[-\d., ]+", word)
            several = places.size > 1
            found.setdefault(f"{variable}[{word}]" if is_word and several else variable, []).append(int(place))
    return found
