"""`inspect`: how hlik reads a model, in print."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hlik.fit import ESTIMATORS
from hlik.graph.read import read_model
from hlik.maps import ConstantMap, LinkMap, ThetaMap
from hlik.model import HierarchicalModel, Parameter, RandomEffect, Response

SCALES = {"identity": "{}", "log": "log {}", "logit": "logit {}", "inverse": "1/{}"}
WORDS = {"log": "log-linear", "identity": "linear", "inverse": "linear on the inverse"}
WIDTH = 110


@dataclass(frozen=True, eq=False)
class Inspection:
    """How hlik reads a model: print it.

    Attributes
    ----------
    responses, random_effects, parameters
        One dictionary each: name, family, link, scale, levels, role ...
    estimators
        For each estimator the reasons why it does not apply; empty where it does.
    left_out
        Free variables that are not part of the likelihood.
    predicted
        Missing values of masked responses: not part of it either, and predicted.
    """

    responses: tuple[dict[str, Any], ...]
    random_effects: tuple[dict[str, Any], ...]
    parameters: tuple[dict[str, Any], ...]
    estimators: dict[str, list[str]]
    left_out: tuple[str, ...] = ()
    predicted: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = ["Responses"]
        for r in self.responses:
            link = f", link {r['link']}" if r["link"] else ""
            missing = f", {r['missing']:,} of {r['observations'] + r['missing']:,} missing" if r["missing"] else ""
            lines.append(f"  {r['name']}: {r['distribution']}{link}, {r['observations']:,} observations{missing}")
            lines.append(f"    predictor: {r['predictor']}")
            lines.append(f"    dispersion: {r['dispersion']}")
        lines.append("Random effects")
        for e in self.random_effects:
            lines.append(
                f"  {e['name']}: {e['distribution']}, {e['levels']:,} levels, v = {e['scale']} "
                f"({e['value_variable']}), {e['entries_per_row']:.3g} entries a row"
            )
            lines.append(f"    dispersion: {e['dispersion']}")
        if not self.random_effects:
            lines.append("  none")
        lines.append("Parameters")
        lines += [f"  {p['name']}: {p['role']}, shape {p['shape']}" for p in self.parameters]
        if self.left_out:
            lines += ["Left out (no observed value depends on them)", f"  {', '.join(self.left_out)}"]
        if self.predicted:
            lines += ["Predicted (missing values of responses)", f"  {', '.join(self.predicted)}"]
        lines += ["Estimators", *self._verdicts()]
        return "\n".join(lines)

    __repr__ = __str__

    def _verdicts(self) -> list[str]:
        """For each estimator whether it applies, why not, and what to do where only some do."""
        lines = []
        for name, reasons in self.estimators.items():
            lines.append(f"  {name}: " + ("does not apply, because" if reasons else "applies"))
            for reason in reasons:
                lines += textwrap.wrap(
                    reason, WIDTH, initial_indent="    - ", subsequent_indent="      ", break_on_hyphens=False
                )
        able = [name.lower() for name, reasons in self.estimators.items() if not reasons]
        if not able:
            lines.append("Change what is said above; none of the estimators can fit the model as it is.")
        elif len(able) < len(self.estimators):
            lines.append(f'To fit the model as it is: hlik.fit(model, "{able[0]}")')
        return lines


def inspect(model: Any, *, random: Sequence[str] | None = None, fixed: Mapping[str, Any] | None = None) -> Inspection:
    """Tell how hlik reads a model, without fitting it.

    Parameters
    ----------
    model
        A `pymc.Model` or a Bambi model; it is not changed.
    random, fixed
        As in `hlik.fit`.

    Returns
    -------
    Inspection
        For each response its family, link and predictor; for each random effect its distribution, the scale of
        v, its levels and sparsity; parameters with their roles; for each estimator whether it applies.

    Raises
    ------
    ModelError
        Where roles cannot be told, naming the variable and the argument to pass.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 2)]), observed=[1, 0, 2, 3, 1, 1])
    >>> print(hlik.inspect(model))
    Responses
      y: Poisson, link log, 6 observations
        predictor: beta + u
        dispersion: 1
    Random effects
      u: Normal, 3 levels, v = u (u), 1 entries a row
        dispersion: log-linear in sigma
    Parameters
      beta: fixed effect, shape ()
      sigma: dispersion parameter, shape ()
    Estimators
      EQL: applies
      Laplace: applies
      HL: applies
      AGQ: applies
      MCEM: applies
      MCLA: applies
      SAEM: applies
    """
    read = read_model(model, random=random, fixed=fixed)
    return Inspection(
        responses=tuple(_response(read, response) for response in read.responses),
        random_effects=tuple(_random_effect(read, effect) for effect in read.random_effects),
        parameters=tuple(_parameter(parameter) for parameter in read.parameters),
        estimators={estimator().name: estimator().obstacles(read) for estimator in ESTIMATORS.values()},
        left_out=tuple(name for name in read.left_out if name not in read.forms),
        predicted=tuple(part.variable.name for part in read.unobserved if part.variable.name in read.forms),
    )


def _parameter(parameter: Parameter) -> dict[str, Any]:
    variable = parameter.variable
    return {
        "name": parameter.name,
        "role": parameter.role,
        "shape": variable.shape,
        "value_variable": variable.value_name,
    }


def _response(model: HierarchicalModel, response: Response) -> dict[str, Any]:
    size = response.size
    blocks = [slice(start, start + size) for start in range(response.rows.start, response.rows.stop, size)]
    predictors = [" + ".join(_terms(model, rows)) or "0" for rows in blocks]
    distinct = "; ".join(dict.fromkeys(predictors)) or "none that is linear"
    count = f" ({len(blocks)} predictors)" if len(set(predictors)) < len(blocks) else ""
    masked = {f"{part.response}_observed": part for part in model.unobserved}.get(response.name)
    return {
        "name": response.name if masked is None else masked.response,
        "missing": 0 if masked is None else int(masked.missing.sum()),
        "distribution": response.distribution,
        "family": response.family.name if response.family else "none",
        "link": response.link.name if response.link else None,
        "observations": response.size,
        "predictor": distinct + count,
        "dispersion": _response_dispersion(model, response),
    }


def _terms(model: HierarchicalModel, rows: slice) -> list[str]:
    """Names of the variables in one predictor."""
    terms = [p.name for p in model.fixed_effects if np.any(model.X[rows, p.index])]
    if model.theta_design is not None:
        moved = np.any(model.theta_design[rows], axis=0)
        terms += [p.name for p in model.dispersion_parameters if np.any(moved[p.index])]
    columns = np.unique(model.Z[rows].indices)
    for effect in model.random_effects:
        index = effect.index
        if np.any((columns >= index.start) & (columns < index.stop)):
            terms.append(effect.name)
    return terms + ["offset"] * bool(np.any(model.offset[rows]))


def _second_predictor(model: HierarchicalModel, name: str) -> str | None:
    """The linear predictor of a dispersion with random effects (double HGLM)."""
    if model.double is None:
        return None
    design = replace(model, X=model.double.X, Z=model.double.Z, offset=model.double.offset, theta_design=None)
    for predictor in model.double.predictors:
        if predictor.name == name:
            return f"link {predictor.link.name}, predictor {' + '.join(_terms(design, predictor.rows))}"
    return None


def _response_dispersion(model: HierarchicalModel, response: Response) -> str:
    second = _second_predictor(model, response.name)
    if second is not None:
        return second
    if response.dispersion is not None:
        return describe_map(response.dispersion, model)
    return "1" if response.family is not None and not response.family.has_dispersion else "part of the distribution"


def _random_effect(model: HierarchicalModel, effect: RandomEffect) -> dict[str, Any]:
    stop = model.responses[-1].rows.stop
    entries = model.Z[:stop].indices
    inside = np.count_nonzero((entries >= effect.index.start) & (entries < effect.index.stop))
    observations = sum(response.size for response in model.responses)
    return {
        "name": effect.name,
        "distribution": effect.distribution,
        "levels": effect.levels,
        "scale": _scale(effect),
        "value_variable": effect.variable.value_name,
        "entries_per_row": inside / observations,
        "dispersion": _random_dispersion(model, effect),
    }


def _random_dispersion(model: HierarchicalModel, effect: RandomEffect) -> str:
    second = _second_predictor(model, effect.name)
    if second is not None:
        return second
    if effect.precision is not None:
        return f"{effect.precision.description}: {describe_map(effect.precision.coefficients, model)}"
    return "unknown" if effect.dispersion is None else describe_map(effect.dispersion, model)


def _scale(effect: RandomEffect) -> str:
    """v in terms of the effect's own name."""
    if effect.scale_map is not None:
        return f"{effect.name} * its scale"
    if effect.root is not None:
        return f"a root of its covariance matrix times {effect.name}"
    if effect.location is not None:
        return f"{effect.name} - its mean"
    if effect.precision is not None:
        return effect.name
    if effect.family is None:
        return "its value variable"
    scale = "log" if effect.distribution == "LogNormal" else effect.family.scale
    return SCALES[scale].format(effect.name)


def describe_map(found: ThetaMap, model: HierarchicalModel) -> str:
    """How a dispersion depends on the parameters, in words."""
    if isinstance(found, ConstantMap):
        return f"{found.values[0]:g}" if found.size == 1 else "known, one value each"
    linked = isinstance(found, LinkMap)
    matrix = found.matrix if isinstance(found, LinkMap) else found.jacobian(np.full(model.n_theta, 0.1))
    moved = np.any(matrix != 0, axis=0)
    names = ", ".join(p.name for p in model.dispersion_parameters if np.any(moved[p.index]))
    each = "" if found.size == 1 else ", one value each"
    if not linked:
        return f"a function of {names}{each}"
    word = WORDS.get(found.link.name, f"linear on the {found.link.name} link")  # type: ignore[attr-defined]
    return f"{word} in {names}{each}"
