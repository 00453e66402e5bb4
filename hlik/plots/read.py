"""What the pictures need, taken from an InferenceData; names are checked here, before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.errors import ModelError
from hlik.inference.residuals import residuals
from hlik.inference.tables import model_of, response_label
from hlik.plots.quantiles import scaled_deviance

Names = str | Sequence[str] | None

SCALES = {"identity": "{}", "log": "log({})", "logit": "logit({})", "inverse": "1/{}"}
"""How v is written, by the scale of the random effect's family."""


@dataclass(frozen=True, eq=False)
class ResponseDiagnostics:
    """One response, flattened: all arrays of shape (n,)."""

    name: str
    predictor: np.ndarray
    predictor_label: str
    residual: np.ndarray
    """Studentised deviance residuals; quantile residuals where the family has no deviance."""
    leverage: np.ndarray
    deviance: np.ndarray
    """d / (phi (1 - h))."""
    binary: bool
    """Whether all observed values are 0 or 1."""
    where: xr.DataArray
    """An array of the response's shape and coordinates, for labels."""
    by_quantiles: bool = False
    """Whether the residuals are quantile residuals; `leverage` and `deviance` are then empty."""


@dataclass(frozen=True, eq=False)
class TermDiagnostics:
    """Leverages and deviance components of one random-effect term, shape (q,)."""

    name: str
    leverage: np.ndarray
    deviance: np.ndarray
    where: xr.DataArray


@dataclass(frozen=True, eq=False)
class Term:
    """The predictions of one random-effect term on the scale of v, shape (q,)."""

    name: str
    label: str
    """v in terms of u: ``log(u)``."""
    centre: float
    """v of an effect that changes nothing."""
    v: np.ndarray
    v_se: np.ndarray
    where: xr.DataArray


def response_diagnostics(idata: az.InferenceData, response: Names = None) -> list[ResponseDiagnostics]:
    """The chosen responses, all of them by default."""
    described = {response_label(r): r for r in model_of(idata)["responses"]}
    chosen = _choose(list(described), response, "response")
    return [_response(idata, described[name]) for name in chosen]


def term_diagnostics(idata: az.InferenceData, term: Names = None) -> list[TermDiagnostics]:
    """Leverages and deviances of the chosen random-effect terms, all of them by default."""
    return [_term_diagnostics(idata, name) for name in _term_names(idata, term)]


def terms(idata: az.InferenceData, term: Names = None) -> list[Term]:
    """Predictions of the chosen random-effect terms, all of them by default."""
    described = {e["name"]: e for e in model_of(idata)["random_effects"]}
    found = []
    for name in _term_names(idata, term):
        value_name, scale = described[name]["value_name"], described[name]["scale"]
        estimate = idata["unconstrained_estimates"][value_name]
        found.append(
            Term(
                name=name,
                label=SCALES[scale].format(name) if scale in SCALES else value_name,
                centre=1.0 if scale == "inverse" else 0.0,
                v=np.ravel(estimate.values),
                v_se=np.ravel(idata["unconstrained_standard_errors"][value_name].values),
                where=estimate,
            )
        )
    return found


def level_labels(where: xr.DataArray, positions: np.ndarray, longest: int = 24) -> list[str]:
    """Coordinates of the elements at flat positions, joined by commas, in about `longest` letters."""
    if not where.dims:
        return ["" for _ in positions]
    coords = [where.coords[d].values if d in where.coords else np.arange(where.sizes[d]) for d in where.dims]
    places = np.unravel_index(np.asarray(positions, int), where.shape)
    each = max(longest // len(coords), 3)
    return [
        ", ".join(shortened(str(c[i]), each) for c, i in zip(coords, place, strict=True))
        for place in zip(*places, strict=True)
    ]


def shortened(text: str, longest: int) -> str:
    """The text with its middle replaced by an ellipsis: names often differ at one of their ends."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _term_names(idata: az.InferenceData, term: Names) -> list[str]:
    return _choose([e["name"] for e in model_of(idata)["random_effects"]], term, "random effect")


def _choose(names: list[str], asked: Names, kind: str) -> list[str]:
    if asked is None:
        return names
    chosen = [asked] if isinstance(asked, str) else list(asked)
    for name in chosen:
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "the model has none"
            raise ModelError(f"No {kind} is called {name!r}: {there}.")
    if not chosen:
        raise ModelError(f"No {kind} was asked for: pass a name of {', '.join(names)}, or None for all.")
    return chosen


def _response(idata: az.InferenceData, described: dict[str, Any]) -> ResponseDiagnostics:
    name, link = described["name"], described["link"]
    if "diagnostics" in idata.groups() and f"{name}_cdf" in idata["diagnostics"]:
        return replace(_by_quantiles(idata, name), name=response_label(described))
    where = _diagnostic(idata, name, "residual_studentised")
    observed = idata["observed_data"][name].values
    scale = f" ({link} scale)" if link and link != "identity" else ""
    return ResponseDiagnostics(
        name=response_label(described),
        predictor=np.ravel(_diagnostic(idata, name, "linear_predictor").values),
        predictor_label=f"linear predictor{scale}",
        residual=np.ravel(where.values),
        leverage=np.ravel(_diagnostic(idata, name, "leverage").values),
        deviance=_scaled(idata, name),
        binary=bool(np.all((observed == 0) | (observed == 1))),
        where=where,
    )


def _by_quantiles(idata: az.InferenceData, name: str) -> ResponseDiagnostics:
    """Quantile residuals against the fitted mean, or against the row where PyMC does not know the mean."""
    where = residuals(idata, "quantile", response=name, random_seed=0)
    fitted = idata["diagnostics"].get(f"{name}_fitted")
    nothing = np.zeros(0)
    return ResponseDiagnostics(
        name=name,
        predictor=np.arange(where.size, dtype=float) if fitted is None else np.ravel(fitted.values),
        predictor_label="observation" if fitted is None else "fitted mean",
        residual=np.ravel(where.values),
        leverage=nothing,
        deviance=nothing,
        binary=False,
        where=where,
        by_quantiles=True,
    )


def _term_diagnostics(idata: az.InferenceData, name: str) -> TermDiagnostics:
    if "diagnostics" in idata.groups() and f"{name}_leverage" not in idata["diagnostics"]:
        if f"{name}_v" in idata["diagnostics"]:  # a fit without closed forms: no augmented model, no leverages
            return TermDiagnostics(name, np.zeros(0), np.zeros(0), idata["diagnostics"][f"{name}_v"])
    where = _diagnostic(idata, name, "leverage")
    return TermDiagnostics(name, np.ravel(where.values), _scaled(idata, name), where)


def _scaled(idata: az.InferenceData, name: str) -> np.ndarray:
    parts = [np.ravel(_diagnostic(idata, name, part).values) for part in ("deviance", "dispersion", "leverage")]
    return scaled_deviance(*parts)


def _diagnostic(idata: az.InferenceData, name: str, quantity: str) -> xr.DataArray:
    if "diagnostics" not in idata.groups():
        estimator = idata["fit"].attrs.get("estimator_name", "its estimator")
        raise ModelError(
            f"This result has no group 'diagnostics': {estimator} computes none. hlik.plot_ranef needs none; "
            "hlik.fit(model, 'eql') computes them."
        )
    key = f"{name}_{quantity}"
    if key not in idata["diagnostics"]:
        raise ModelError(f"The group 'diagnostics' of this result has no {key!r}.")
    return idata["diagnostics"][key]
