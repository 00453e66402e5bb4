"""Observed variables as numbers: response, prior weights, dispersion; checked before any work is done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytensor.scalar as ps
from pytensor.graph.basic import Variable as GraphVariable

from hlik.errors import ModelError
from hlik.families import ResponseFamily
from hlik.graph import forms as fm
from hlik.graph.describe import describe, distribution_name, listed
from hlik.graph.families import is_zero
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
    variable, name = describe(walker, rv), str(rv.name)
    y = np.asarray(walker.value(_as_given(walker.observed[rv])), dtype=float).ravel()
    if y.size == 0:
        raise ModelError(f"Response {name!r} has no observations.")
    weight = _prior_weights(name, weights, variable.shape)
    if weights is not None and (predictor.parts is None or predictor.affine is None):
        raise ModelError(f"weights[{name!r}]: {predictor.obstacle}, and only those can take prior weights.")
    response = Response(
        variable,
        slice(start, start + y.size),
        distribution_name(rv),
        y,
        weight,
        link=predictor.link,
        obstacle=predictor.obstacle,
    )
    parts = predictor.parts
    if parts is None:
        _check_finite(name, y)
        return response
    trials = None
    if parts.trials is not None:
        _check_finite(name, y)
        trials = np.broadcast_to(np.asarray(walker.value(parts.trials), float), variable.shape).ravel()
        y, weight = _proportions(name, y, trials, weight)
    parts.family.check_response(name, y, weight)
    _check_constant(name, parts.family, y)
    dispersion, obstacle = _dispersion(walker, name, predictor, layout, variable.shape)
    return replace(
        response,
        y=y,
        weight=weight,
        family=parts.family,
        dispersion=dispersion,
        trials=trials,
        obstacle=predictor.obstacle or obstacle,
    )


def _as_given(data: GraphVariable) -> GraphVariable:
    """The data of a container before PyMC makes them whole numbers, so that 2.5 and NaN are seen."""
    while data.owner is not None and isinstance(getattr(data.owner.op, "scalar_op", None), ps.Cast):
        data = data.owner.inputs[0]
    return data


def _prior_weights(name: str, weights: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if weights is None:
        return np.ones(1)
    weight = np.asarray(weights, dtype=float)
    if weight.shape != shape:
        raise ModelError(f"weights[{name!r}] has shape {weight.shape}; the response has shape {shape}.")
    bad = ~(np.isfinite(weight) & (weight > 0)).ravel()
    if np.any(bad):
        row = int(np.argmax(bad))
        raise ModelError(
            f"weights[{name!r}] must be positive and finite; row {row} is {weight.ravel()[row]:g}. Leave rows out "
            f"of the data instead of giving them no weight."
        )
    return weight.ravel()


def _check_finite(name: str, y: np.ndarray) -> None:
    bad = ~np.isfinite(y)
    if np.any(bad):
        row = int(np.argmax(bad))
        raise ModelError(
            f"Response {name!r}: row {row} is {y[row]:g} ({int(bad.sum())} of {y.size} are missing or infinite). "
            f"Leave these rows out, or give PyMC a masked array: hlik then leaves them out."
        )


def _proportions(
    name: str, counts: np.ndarray, trials: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    bad = ~((trials > 0) & np.isfinite(trials))
    if np.any(bad):
        row = int(np.argmax(bad))
        raise ModelError(
            f"Response {name!r}: row {row} has n = {trials[row]:g} trials; n must be at least 1. Leave the row out."
        )
    bad = ~((counts >= 0) & (counts <= trials) & (counts == np.round(counts)))
    if np.any(bad):
        row = int(np.argmax(bad))
        raise ModelError(
            f"Response {name!r}: row {row} is {counts[row]:g}; a whole number between 0 and n = {trials[row]:g} was "
            f"expected."
        )
    return counts / trials, trials * weight


def _check_constant(name: str, family: ResponseFamily, y: np.ndarray) -> None:
    if family.has_dispersion and y.size > 1 and np.all(y == y[0]):
        raise ModelError(
            f"Response {name!r} is constant (all {y.size} values are {y[0]:g}): there is no variation to explain."
        )


def _dispersion(
    walker: Walker, name: str, predictor: Predictor, layout: ThetaLayout, shape: tuple[int, ...]
) -> tuple[ThetaMap | None, str | None]:
    """phi as a function of theta, or why it is none."""
    parts = predictor.parts
    assert parts is not None
    if parts.shift is not None and not _is_zero_form(walker.form(parts.shift)):
        return None, f"response {name!r} has a shift (alpha), which the exponential family does not have"
    if parts.dispersion is None:
        return None, None
    own_mean = frozenset() if predictor.affine is None else predictor.affine.inputs
    shared, effects = predictor.other_inputs & own_mean, predictor.other_effects - own_mean
    if shared:
        what = f"{listed(sorted(shared))}, as its mean does"
    elif effects:
        what = f"random effect {listed(sorted(effects))}"
    else:
        return layout.map_of(walker, parts.dispersion, shape, positive=True), None
    return None, (
        f"the dispersion of {name!r} ({parts.dispersion_name}) depends on {what}: EQL needs dispersions that are "
        f"functions of parameters of their own"
    )


def _is_zero_form(form: fm.Form) -> bool:
    return fm.is_constant(form) and is_zero(form)
