"""What is predicted, read from the model at the data of a prediction and matched with the fit by names and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.at_data import Target, model_at, read_target
from hlik.graph.describe import labels_of
from hlik.graph.find_link import linked
from hlik.graph.forms import Affine, Mapped
from hlik.graph.levels import Levels
from hlik.graph.read import as_pymc
from hlik.inference.prediction_density import DensityTerm
from hlik.inference.prediction_field import FieldTerm
from hlik.inference.prediction_terms import Term
from hlik.inference.prediction_wide import WideEffectTerm
from hlik.inference.predictor import Predictor
from hlik.inference.restore import Restored, held_fixed
from hlik.inference.tables import model_of, response_label
from hlik.links import LINKS
from hlik.model import RandomEffect, Variable
from hlik.result.scales import derivative

PARTS = ("observed", "unobserved")  # of a masked response, as PyMC calls them


def read_predictor(
    model: Any,
    idata: az.InferenceData,
    fitted: Restored,
    data: Mapping[str, Any] | pd.DataFrame | pm.Model | None,
    coords: Mapping[str, Any],
    response: str | None,
) -> Predictor:
    """Read what is predicted at the data."""
    pymc_model = as_pymc(model)
    name = _chosen(pymc_model, idata, response)
    resized = data is not None or bool(coords)
    if isinstance(data, pm.Model):
        here = _other(data, idata, name, coords)
    elif resized:
        values, labels = _containers(pymc_model, data)
        here = model_at(pymc_model, values, labels | dict(coords))
    else:
        here = pymc_model
    described = model_of(idata)
    theta = [p.name for p in fitted.model.dispersion_parameters if p.name in pymc_model.named_vars]
    target = read_target(
        here,
        name,
        random=[effect["name"] for effect in described["random_effects"]],
        theta=theta,
        fixed=held_fixed(idata),
        resized=resized,
    )
    _check_parameters(fitted, target)
    terms = _terms(fitted, target, resized)
    return Predictor(name, target, _labels(name, target), terms, *_functions(name, target))


def _other(model: pm.Model, idata: az.InferenceData, name: str, coords: Mapping[str, Any]) -> pm.Model:
    """The same model built with other data."""
    if coords:
        raise ModelError("coords= goes with new values of containers; a model that is passed as data has its own.")
    described = model_of(idata)
    needed = [name, *(p["name"] for kind in ("parameters", "random_effects") for p in described[kind])]
    needed += list(held_fixed(idata))
    quasi = {f"{response['name']}_dispersion" for response in described["responses"]}
    if missing := [wanted for wanted in needed if wanted not in model.named_vars and wanted not in quasi]:
        raise ModelError(f"The model that was passed as data has no {', '.join(map(repr, missing))}.")
    return model


def _chosen(model: Any, idata: az.InferenceData, response: str | None) -> str:
    described = model_of(idata)["responses"]
    names = [response_label(r) for r in described]
    if response is None:
        if len(names) > 1:
            raise ModelError(f"The model has several responses, {', '.join(names)}: say which with response=.")
        return names[0]
    others = [d.name for d in model.deterministics if d.name not in names]
    others += [f"{response_label(r)}_{part}" for r in described if r.get("missing") for part in PARTS]
    if response not in names + others:
        raise ModelError(f"No response or Deterministic is called {response!r}: there are {names + others}.")
    return response


def _containers(model: Any, data: Mapping[str, Any] | pd.DataFrame | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of data containers, and labels of dims: of a formula model as its formula codes the data frame."""
    if data is None:
        return {}, {}
    if not isinstance(data, pd.DataFrame):
        return dict(data), {}
    from hlik.formula.new_data import has_formula, new_data

    if has_formula(model):
        coded = new_data(model, data)
        return dict(coded.values), dict(coded.coords)
    names = [variable.name for variable in model.data_vars if variable.name in data.columns]
    if not names:
        raise ModelError(
            f"No column of the DataFrame ({', '.join(map(str, data.columns))}) is a pm.Data container of the model: "
            f"these are {[v.name for v in model.data_vars]}."
        )
    return {name: data[name].to_numpy() for name in names}, {}


def _check_parameters(fitted: Restored, target: Target) -> None:
    for parameter in fitted.model.parameters:
        there = target.labels.get(parameter.name)
        if there is not None and len(there) != parameter.index.stop - parameter.index.start:
            raise ModelError(
                f"Parameter {parameter.name!r} has {len(there)} elements at these data, and "
                f"{parameter.index.stop - parameter.index.start} in the fit: only random effects can have new levels."
            )


def _terms(fitted: Restored, target: Target, resized: bool) -> tuple[Term, ...]:
    """The random effects at the data, their columns one after the other."""
    found: list[Term] = []
    for levels in target.effects:
        effect = next(e for e in fitted.model.random_effects if e.name == levels.name)
        place = _matched(fitted, effect, levels)
        begin = found[-1].columns.stop if found else 0
        if effect.wide is not None:
            score = np.arange(effect.index.start, effect.index.stop)
            columns = slice(begin, begin + score.size)
            found.append(WideEffectTerm(effect, levels, np.ones(score.size, bool), score, columns, resized, place))
            continue
        kind = _kind(effect)
        position = np.where(place >= 0, place + effect.index.start, 0)
        found.append(kind(effect, levels, place >= 0, position, slice(begin, begin + place.size), resized))
    return tuple(found)


def _kind(effect: RandomEffect) -> type[Term]:
    """How levels that the fit did not have are treated."""
    if effect.family is not None:
        return Term
    single = effect.degrees is not None and effect.degrees.blocks.shape[1] == 1
    return DensityTerm if effect.precision is None or single else FieldTerm


def _matched(fitted: Restored, effect: RandomEffect, levels: Levels) -> np.ndarray:
    """For each level at the data its number in the fit, -1 for new ones."""
    old = labels_of(fitted.model.coords, effect.variable, effect.name)
    if tuple(old) == levels.labels:
        return np.arange(effect.levels)
    if effect.variable.shape != effect.variable.unconstrained_shape:
        raise ModelError(f"The levels of {effect.name!r} sum to zero: it cannot have others than those of the fit.")
    return pd.Index(old).get_indexer(pd.Index(levels.labels))


def _functions(name: str, target: Target) -> tuple[Affine | None, Any, Any, Any]:
    """The affine form, and mu(eta), its slope, and eta(mu); identities where there is no single predictor."""
    form = target.form
    identity = LINKS["identity"]
    if target.graph is not None:
        return None, identity.inverse, np.ones_like, identity.link
    found = linked(form)
    if found is not None:
        affine, link = found
        return (
            fm.broadcast(affine, target.shape),
            link.inverse,
            lambda eta: np.broadcast_to(link.inverse_derivatives(eta, 1)[1], np.shape(eta)),
            link.link,
        )
    assert isinstance(form, Mapped)
    affine = fm.broadcast(form.affine, target.shape)

    def no_inverse(mu: np.ndarray) -> np.ndarray:
        raise ModelError(f"The link of {name!r} is not known to hlik: its average has no scale of the predictor.")

    return affine, form.function, lambda eta: derivative(form, eta), no_inverse


def _labels(name: str, target: Target) -> list[str]:
    variable = Variable(name, name, target.shape, target.dims, target.shape)
    return labels_of(target.coords, variable, name)
