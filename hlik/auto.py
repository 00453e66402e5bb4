"""`hlik.fit(model, "auto")`: a fast estimator first, checked by importance sampling, a better one where needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import arviz as az
import numpy as np

from hlik.accuracy import Accuracy, check_accuracy
from hlik.errors import ConvergenceWarning, ModelError
from hlik.estimators.base import CONVERGED
from hlik.estimators.eql import EQL
from hlik.estimators.laplace import Laplace
from hlik.estimators.mcem import MCEM
from hlik.estimators.mcla import MCLA
from hlik.model import HierarchicalModel


def fit_automatically(
    model: Any,
    read: HierarchicalModel,
    fit_with: Callable[[Any, Mapping[str, Any] | None], az.InferenceData],
    *,
    start: Mapping[str, Any] | None,
    random_seed: int | np.random.Generator | None,
) -> az.InferenceData:
    """The result of the estimator that the check leads to; ``fit.attrs["auto"]`` says what was done, and why.

    Parameters
    ----------
    model, read
        The user's model, and its reading.
    fit_with
        Fits by an estimator, from starting values.
    """
    if is_exact(read):
        idata = fit_with(EQL(), start)
        return _noted(idata, "EQL, which is restricted maximum likelihood for normal responses with normal effects")
    first = _first(read)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        idata = fit_with(first, start)
    story = [f"{first.name} first"]
    try:
        found = _check(model, idata, random_seed)
    except ModelError as error:
        _warn_again(caught)
        return _noted(idata, *story, f"not checked: {error}")
    if found.level == "clean":
        _warn_again(caught)
        return _noted(idata, *story, *found.verdict)
    story += found.verdict
    begin = start_from(idata, read)
    if found.level != "unknown":
        story.append("so MCLA, from there")
        idata = _quietly(fit_with, MCLA(), begin)
        if str(idata["fit"].attrs["status"]).startswith((CONVERGED, "boundary")):
            return _noted(idata, *story)
        story.append(f"MCLA {idata['fit'].attrs['status']}")
    better = MCEM()
    if better.obstacles(read):
        return _noted(idata, *story, "MCEM cannot serve: " + "; ".join(better.obstacles(read)))
    story.append("so MCEM, from there")
    return _noted(fit_with(better, begin), *story)


def is_exact(read: HierarchicalModel) -> bool:
    """Whether EQL is restricted maximum likelihood: normal responses on the identity link, normal effects."""
    normal_responses = all(
        r.family is not None and r.family.name == "normal" and r.link is not None and r.link.name == "identity"
        for r in read.responses
    )
    normal_effects = all(e.family is not None and e.family.name == "normal" for e in read.random_effects)
    return normal_responses and normal_effects and not EQL().obstacles(read)


def _first(read: HierarchicalModel) -> EQL | Laplace:
    reasons = []
    choices: tuple[EQL | Laplace, ...] = (Laplace(), EQL())
    for estimator in choices:
        obstacles = estimator.obstacles(read)
        if not obstacles:
            return estimator
        reasons.append(f"{estimator.name} cannot fit this model: " + "; ".join(obstacles))
    raise ModelError(". ".join(reasons) + ".")


def _check(model: Any, idata: az.InferenceData, random_seed: int | np.random.Generator | None) -> Accuracy:
    seed = random_seed if random_seed is None or isinstance(random_seed, np.random.Generator) else int(random_seed)
    return check_accuracy(model, idata, random_seed=seed)


def start_from(idata: az.InferenceData, read: HierarchicalModel) -> dict[str, Any]:
    """The parameters' estimates as starting values, where they are finite."""
    values = {p.name: idata["estimates"][p.name].values for p in read.parameters}
    return {name: value for name, value in values.items() if np.all(np.isfinite(value)) and np.all(value != 0)}


def _quietly(
    fit_with: Callable[[Any, Mapping[str, Any] | None], az.InferenceData], estimator: Any, start: dict[str, Any]
) -> az.InferenceData:
    """A fit whose failure leads on, without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit_with(estimator, start)


def _warn_again(caught: list[warnings.WarningMessage]) -> None:
    for one in caught:
        warnings.warn(one.message, one.category, stacklevel=5)


def _noted(idata: az.InferenceData, *story: str) -> az.InferenceData:
    idata["fit"].attrs["auto"] = "; ".join(story)
    return idata
