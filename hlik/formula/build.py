"""From a `ModelSpec` to a `pymc.Model` with data containers, dims and coords."""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.sparse
import pytensor.tensor as pt

from hlik.errors import ModelError
from hlik.formula.effects import EffectShape, write_effect
from hlik.formula.families import INVERSE_LINKS, Observed, family_of
from hlik.formula.frame import FixedTerm
from hlik.formula.spec import Fixed, ModelSpec, PredictorSpec, RandomTerm, variable_name
from hlik.links import LINKS

ROWS = "__obs__"
"""Dimension of the observations, named as in Bambi."""


def build(spec: ModelSpec) -> pm.Model:
    """The PyMC model."""
    family, link = family_of(
        spec.family,
        spec.link,
        trials=spec.trials is not None,
        weights=spec.weights is not None,
        dispersion=spec.dispersion is not None,
    )
    _check_weights(spec)
    location, spread = _link_scale(spec, link)
    with pm.Model(coords={ROWS: spec.rows}) as model:
        eta = _predictor(spec.mean, location, spread, spec.noncentered)
        log_dispersion = None
        if spec.dispersion is not None:
            log_dispersion = _predictor(spec.dispersion, 0.0, 1.0, spec.noncentered)
        observed = Observed(
            name=variable_name("", spec.name),
            y=spec.y,
            mean=INVERSE_LINKS[link](eta),
            trials=None if spec.trials is None else pm.Data("trials", spec.trials, dims=ROWS),
            log_dispersion=log_dispersion,
            weights=1.0 if spec.weights is None else pm.Data("weights", spec.weights, dims=ROWS),
            spread=float(np.std(spec.y)) or 1.0,
            dims=ROWS,
        )
        family.write(observed)
    return model


def _check_weights(spec: ModelSpec) -> None:
    if spec.weights is None:
        return
    bad = np.flatnonzero(~((spec.weights > 0) & np.isfinite(spec.weights)))
    if bad.size:
        raise ModelError(
            f"weights must be positive and finite; row {spec.rows[bad[0]]!r} has {spec.weights[bad[0]]:g}. Leave rows "
            "out of the data instead of giving them no weight."
        )


def _link_scale(spec: ModelSpec, link: str) -> tuple[float, float]:
    """Middle and spread of the linear predictor, for priors."""
    y = spec.y if spec.trials is None else spec.y / np.maximum(spec.trials, 1)
    if link == "identity":
        return float(np.mean(y)), float(np.std(y)) or 1.0
    if link in ("logit", "probit", "cloglog", "loglog", "cauchit"):
        return 0.0, 1.0
    middle = float(LINKS[link].link(np.asarray(max(float(np.mean(y)), 1e-3))))
    return middle, 1.0 if link == "log" else abs(middle) or 1.0


def _predictor(spec: PredictorSpec, location: float, spread: float, noncentered: bool) -> Any:
    """One linear predictor: offset + X beta + sum of the random terms."""
    eta = _fixed(spec.fixed, spec.prefix, location, spread)
    for term in spec.random:
        v = _random(term, spec.prefix, spread, noncentered)
        eta = v if eta is None else eta + v
    return pt.zeros(len(spec.fixed.X)) if eta is None else eta


def _fixed(fixed: Fixed, prefix: str, location: float, spread: float, dims: str = ROWS) -> Any:
    """Offset + X beta; None where there is neither."""
    model = pm.modelcontext(None)
    offset = None if fixed.offset is None else pm.Data(f"{prefix}offset", fixed.offset, dims=dims)
    if not fixed.terms:
        return offset
    model.add_coord(f"{prefix}coef", [label for term in fixed.terms for label in _coefficients(term)])
    X = pm.Data(f"{prefix}X", fixed.X, dims=(dims, f"{prefix}coef"))
    betas = []
    for term in fixed.terms:
        name = variable_name(prefix, term.name)
        _check_name(name)
        middle = location if term.name == "Intercept" else 0.0
        scale = 2.5 * spread / _spreads(fixed.X[:, term.columns])
        if term.labels is None:
            betas.append(pm.Normal(name, middle, float(scale[0]))[None])
        else:
            model.add_coord(f"{name}_dim", list(term.labels))
            betas.append(pm.Normal(name, middle, scale, dims=f"{name}_dim"))
    product = X @ (betas[0] if len(betas) == 1 else pt.concatenate(betas))
    return product if offset is None else offset + product


def _coefficients(term: FixedTerm) -> list[str]:
    return [term.name] if term.labels is None else [f"{term.name}[{label}]" for label in term.labels]


def _random(term: RandomTerm, prefix: str, spread: float, noncentered: bool) -> Any:
    model = pm.modelcontext(None)
    name, levels = variable_name(prefix, term.name), f"{term.group}__factor_dim"
    _check_name(name)
    if levels not in model.coords:
        model.add_coord(levels, term.levels)
    dims: tuple[str, ...] = (levels,)
    if term.wide:
        columns = f"{name}__expr_dim"
        model.add_coord(columns, list(term.labels))
        dims = (levels, columns) if term.correlated else (columns, levels)
    k = len(term.labels)
    spreads = 2.5 * spread / (np.ones(k) if term.columns is None else _spreads(term.columns))
    shape = EffectShape(name, dims, k, term.correlated, spreads, noncentered)
    v = write_effect(shape, term.distribution, _log_dispersion(term, name, levels))
    if term.Z is not None:
        Z = pm.Data(f"{name}_Z", term.Z)
        if isinstance(term.Z, np.ndarray):
            return Z @ v
        return pytensor.sparse.structured_dot(Z, v[:, None])[:, 0]
    index = f"{term.group}__index"
    codes = model[index] if index in model.named_vars else pm.Data(index, term.codes, dims=ROWS)
    if term.columns is None:
        return v[codes]
    if not term.wide:
        return v[codes] * pm.Data(f"{name}_data", term.columns[:, 0], dims=ROWS)
    values = pm.Data(f"{name}_data", term.columns, dims=(ROWS, columns))
    return pt.sum((v[codes] if term.correlated else v[:, codes].T) * values, axis=1)


def _log_dispersion(term: RandomTerm, name: str, levels: str) -> Any:
    if term.dispersion is None:
        return None
    return _fixed(term.dispersion, f"{name}_dispersion_", 0.0, 1.0, dims=levels)


def _spreads(X: np.ndarray) -> np.ndarray:
    """Standard deviations of the columns; of a constant column its size."""
    deviations = X.std(axis=0)
    constant = deviations < 1e-12
    return np.where(constant, np.maximum(np.abs(X).max(axis=0, initial=0.0), 1e-12), deviations)


def _check_name(name: str) -> None:
    if name in pm.modelcontext(None).named_vars:
        raise ModelError(
            f"two terms of the model have the name {name!r}: write each term once (a grouping factor may stand in "
            f"several brackets with different left sides)."
        )
