"""Fits of simulated responses, as tasks that can be sent to other processes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import arviz as az
import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.model.fgraph import clone_model

from hlik.errors import ConvergenceWarning, DataWarning, ModelError
from hlik.estimators.base import CONVERGED, RUNNING, Estimator
from hlik.estimators.eql import EQL
from hlik.estimators.maximise import Maximiser
from hlik.graph.arguments import as_pymc
from hlik.graph.penalised import read_penalised
from hlik.graph.read import read_model
from hlik.inference.restore import held_fixed, prior_weights, read_again
from hlik.inference.tables import model_of
from hlik.model import HierarchicalModel

FAILURES = (ModelError, np.linalg.LinAlgError, FloatingPointError, ArithmeticError, RuntimeError)


@dataclass(frozen=True)
class Task:
    """What every worker needs, pickled once: PyMC's models hold functions that plain pickling refuses."""

    content: bytes


@dataclass(frozen=True, eq=False)
class Content:
    """A model (as numbers where its families are known, else the PyMC model), an estimator, and how it was fitted."""

    model: HierarchicalModel | pm.Model
    estimator: Estimator
    start: dict[str, np.ndarray]
    random: list[str]
    fixed: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    priors: str
    names: list[str]


def packed(model: Any, idata: az.InferenceData, estimator: Estimator, names: list[str]) -> Task:
    """A fit as a task without responses; parameters without standard error (at a boundary) start anew."""
    read = read_again(model, idata)
    described = model_of(idata)
    start = {
        p["name"]: idata["estimates"][p["name"]].values
        for p in described["parameters"]
        if np.all(np.isfinite(idata["standard_errors"][p["name"]].values))
    }
    closed = all(r.term is None for r in read.responses) and isinstance(estimator, EQL | Maximiser)
    content = Content(
        model=_numbers(read) if closed else as_pymc(model),
        estimator=estimator,
        start=start,
        random=[effect["name"] for effect in described["random_effects"]],
        fixed=held_fixed(idata),
        weights=prior_weights(idata),
        priors=idata["fit"].attrs.get("priors", "ignore"),
        names=names,
    )
    return Task(cloudpickle.dumps(content))


def _numbers(read: HierarchicalModel) -> HierarchicalModel:
    """The model without what reporting needs."""
    return replace(read, forms={}, deterministics=(), graph_maps={}, constant_data={})


def refit(task: Task, responses: dict[str, np.ndarray]) -> np.ndarray:
    """Estimates of every set of responses, unconstrained, in the order of the names, and whether it converged.

    Shape (sets, parameters + 1); NaN and 0 where a set cannot be fitted.
    """
    content = _content(task.content)
    sets = len(next(iter(responses.values())))
    rows = []
    for k in range(sets):
        own = {name: values[k] for name, values in responses.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", DataWarning)
            rows.append(_one(content, own))
    size = max(row.size for row in rows)
    return np.array([row if row.size == size else np.append(np.full(size - 1, np.nan), 0.0) for row in rows])


@lru_cache(maxsize=2)
def _content(pickled: bytes) -> Content:
    return cloudpickle.loads(pickled)


def _one(content: Content, responses: dict[str, np.ndarray]) -> np.ndarray:
    try:
        if isinstance(content.model, HierarchicalModel):
            return _by_numbers(content, content.model, responses)
        return _by_graph(content, content.model, responses)
    except FAILURES:
        return np.zeros(0)


def _by_numbers(content: Content, model: HierarchicalModel, responses: dict[str, np.ndarray]) -> np.ndarray:
    changed = []
    for response in model.responses:
        y = np.asarray(responses[response.name], dtype=float).ravel()
        changed.append(replace(response, y=y if response.trials is None else y / response.trials))
    return _iterated(content, replace(model, responses=tuple(changed)))


def _iterated(content: Content, model: HierarchicalModel) -> np.ndarray:
    """The estimates alone: no standard errors, nothing reported."""
    estimator = content.estimator
    state = estimator.prepare(model, dict(content.start), np.random.default_rng(0))
    status = RUNNING
    for _ in range(estimator.max_iterations):
        state, _row = estimator.step(state)
        status = estimator.status(state)
        if status != RUNNING:
            break
    beta, theta = estimator.position(state)
    by_name = {p.variable.value_name: (beta if p.natural is None else theta)[p.index] for p in model.parameters}
    parts = [by_name[name] for name in content.names]  # a clone may have its variables in another order
    converged = status == CONVERGED or status.startswith("boundary")
    return np.concatenate([*parts, [float(converged)]])


def _by_graph(content: Content, model: pm.Model, responses: dict[str, np.ndarray]) -> np.ndarray:
    from hlik.fit import fit

    changed = with_responses(model, responses)
    arguments: dict[str, Any] = {"random": content.random, "fixed": content.fixed, "weights": content.weights}
    if isinstance(content.estimator, EQL | Maximiser):
        reader = read_penalised if content.priors == "penalise" else read_model
        return _iterated(content, reader(changed, **arguments))
    idata = fit(
        changed,
        content.estimator,
        **arguments,
        priors=content.priors,
        start=content.start,
        draws=0,
        progressbar=False,
        random_seed=0,
    )
    parts = [idata["unconstrained_estimates"][name].values.ravel() for name in content.names]
    status = str(idata["fit"].attrs["status"])
    return np.concatenate([*parts, [float(status == CONVERGED or status.startswith("boundary"))]])


def with_responses(model: pm.Model, responses: dict[str, np.ndarray]) -> pm.Model:
    """A clone of a model with other values of its observed variables."""
    clone = clone_model(model)
    for name, y in responses.items():
        rv = clone[name]
        old = clone.rvs_to_values[rv]
        new = pt.constant(np.asarray(y).astype(old.dtype), name=rv.name)
        clone.rvs_to_values[rv] = new
        clone.values_to_rvs[new] = rv
    return clone
