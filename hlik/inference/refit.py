"""The estimator of a result, made again from what the result says of it."""

from __future__ import annotations

import ast

import arviz as az

from hlik.errors import ModelError
from hlik.estimators.base import Estimator
from hlik.estimators.maximise import Maximiser


def estimator_of(idata: az.InferenceData) -> Estimator:
    """The estimator with the settings of a fit.

    Raises
    ------
    ModelError
        Where the settings cannot be told from the result (arrays, functions, executors): pass the estimator.
    """
    from hlik.fit import ESTIMATORS

    text, name = idata["fit"].attrs["estimator"], idata["fit"].attrs["estimator_name"]
    if name.lower() not in ESTIMATORS:
        raise ModelError(f"This result is of {text}, which hlik.fit does not know: pass estimator=.")
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        settings = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        return ESTIMATORS[name.lower()](**settings)
    except (SyntaxError, ValueError, AssertionError, TypeError):
        raise ModelError(f"The settings of {text} cannot be told from the result alone: pass estimator=.") from None


def maximiser_of(idata: az.InferenceData, purpose: str) -> Maximiser:
    """The estimator of a fit that maximised a likelihood in all parameters.

    Raises
    ------
    ModelError
        Where the fit did not: EQL solves estimating equations, Monte Carlo estimators know their likelihood with error.
    """
    name = idata["fit"].attrs["estimator_name"]
    estimator = None if name == "EQL" else estimator_of(idata)
    if not isinstance(estimator, Maximiser):
        raise ModelError(
            f"{purpose} needs a fit that maximised a likelihood; this one is by {name}. Fit with hlik.Laplace() or "
            f"hlik.AGQ()."
        )
    return estimator
