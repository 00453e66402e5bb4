"""Observed variables as numbers: response, prior weights, dispersion; checked before any work is done."""

from __future__ import annotations

import numpy as np
from pytensor.graph.basic import Variable as GraphVariable

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.describe import describe
from hlik.graph.families import distribution_name, is_zero
from hlik.graph.predictors import Predictor
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.maps import ThetaMap
from hlik.model import Response


def read_response(
    walker: Walker,
    rv: GraphVariable,
    predictor: Predictor,
    start: int,
    layout: ThetaLayout,
    weights: np.ndarray | None,
) -> Response:
    """The response `rv`, whose rows of the stacked predictor begin at `start`."""
    variable = describe(walker, rv)
    y = np.asarray(walker.value(rv), dtype=float).ravel()
    if y.size == 0:
        raise ModelError(f"Response {rv.name!r} has no observations.")
    weight = _prior_weights(rv.name, weights, variable.shape)
    rows = slice(start, start + y.size)
    common = {"variable": variable, "rows": rows, "distribution": distribution_name(rv)}
    if predictor.parts is None:
        return Response(**common, y=y, weight=weight, obstacle=predictor.obstacle)
    family = predictor.parts.family
    trials = None
    if predictor.parts.trials is not None:
        trials = np.broadcast_to(np.asarray(walker.value(predictor.parts.trials), float).ravel(), y.shape)
        y, weight = _proportions(rv.name, y, trials, weight)
    try:
        family.check_response(rv.name, y, weight)
    except ValueError as error:
        raise ModelError(str(error)) from None
    _check_constant(rv.name, family, y)
    dispersion, obstacle = _dispersion(walker, rv.name, predictor, layout)
    return Response(
        **common,
        y=y,
        weight=weight,
        family=family,
        link=predictor.link,
        dispersion=dispersion,
        trials=trials,
        obstacle=predictor.obstacle or obstacle,
    )


def _prior_weights(name: str, weights: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if weights is None:
        return np.ones(1)
    weight = np.asarray(weights, dtype=float)
    if weight.shape != shape:
        raise ModelError(f"weights[{name!r}] has shape {weight.shape}; the response has shape {shape}.")
    if not np.all(np.isfinite(weight)) or np.any(weight <= 0):
        worst = int(np.flatnonzero(~(weight.ravel() > 0))[0]) if np.any(~(weight > 0)) else 0
        raise ModelError(
            f"weights[{name!r}] must be positive and finite; row {worst} is {weight.ravel()[worst]}. "
            f"Leave rows out of the data instead of giving them no weight."
        )
    return weight.ravel()


def _proportions(
    name: str, counts: np.ndarray, trials: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if np.any(~(trials > 0)):
        row = int(np.flatnonzero(~(trials > 0))[0])
        raise ModelError(
            f"Response {name!r}: row {row} has n = {trials[row]:g} trials; n must be at least 1."
        )
    bad = ~((counts >= 0) & (counts <= trials) & (counts == np.round(counts)))
    if np.any(bad):
        row = int(np.flatnonzero(bad)[0])
        raise ModelError(
            f"Response {name!r}: row {row} is {counts[row]:g}; a count between 0 and n = {trials[row]:g} was expected."
        )
    return counts / trials, trials * weight


def _check_constant(name: str, family: object, y: np.ndarray) -> None:
    if family.has_dispersion and y.size > 1 and np.all(y == y[0]):  # type: ignore[attr-defined]
        raise ModelError(f"Response {name!r} is constant ({y[0]:g}): its dispersion cannot be estimated.")


def _dispersion(
    walker: Walker, name: str, predictor: Predictor, layout: ThetaLayout
) -> tuple[ThetaMap | None, str | None]:
    parts = predictor.parts
    assert parts is not None
    if parts.shift is not None and not _is_zero_form(walker.form(parts.shift)):
        return (
            None,
            f"response {name!r} has a shift parameter (alpha), which the exponential family does not have",
        )
    if parts.dispersion is None:
        return None, None
    found = layout.map_of(walker, parts.dispersion)
    if found is not None:
        return found, None
    others = sorted(fm.inputs_of(walker.form(parts.dispersion)) - set(layout.names))
    return None, (
        f"the dispersion of {name!r} depends on {others}, which enter its mean: write it so that the dispersion "
        f"(sigma**2 of a Normal, 1/alpha of a Gamma, 1/lam of a Wald) is a function of other parameters"
    )


def _is_zero_form(form: fm.Form) -> bool:
    return fm.is_constant(form) and is_zero(form)
