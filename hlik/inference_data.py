"""From a `Fit` to ArviZ's InferenceData: the only file that knows ArviZ's containers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik._version import __version__
from hlik.estimators.base import Estimate
from hlik.fit import Fit
from hlik.graph.describe import labels_of
from hlik.graph.find_link import linked
from hlik.inference.variance_components import variance_components
from hlik.maps import LinkMap
from hlik.model import HierarchicalModel, Parameter, Response, Variable
from hlik.block_effects import InverseMap
from hlik.report import Reported, Reporter
from hlik.report_draws import Drawer

CHAINS = 4
LARGEST_DRAWN = 2000  # elements of a variable up to which draws are made unless asked for


def to_inference_data(
    fit: Fit,
    *,
    draws: int,
    rng: np.random.Generator,
    seconds_reading: float,
    draw_large: bool = False,
    fixed: Mapping[str, Any] | None = None,
) -> az.InferenceData:
    """Pack a fit; the groups are those of the README's table.

    Parameters
    ----------
    fit
        What `hlik.fit.run` returned.
    draws
        Draws in all, in four chains, of the normal approximation; 0 for none.
    rng
        Where they come from.
    seconds_reading
        Time spent before the fit, for the record.
    draw_large
        Whether variables with more than 2,000 elements are drawn too.
    fixed
        Values at which parameters were held, for the record.
    """
    model = fit.estimate.model
    packer = _Packer(model)
    reporter = Reporter(fit.estimate)
    reported = reporter.all()
    groups: dict[str, xr.Dataset] = {}
    if draws:
        groups["posterior"] = _posterior(packer, reporter, draws, rng, draw_large)
    groups["estimates"] = packer.dataset({r.variable.name: (r.variable, r.estimate) for r in reported})
    groups["standard_errors"] = packer.dataset({r.variable.name: (r.variable, r.standard_error) for r in reported})
    groups["unconstrained_estimates"] = packer.unconstrained(reported, "unconstrained")
    groups["unconstrained_standard_errors"] = packer.unconstrained(reported, "unconstrained_error")
    groups["fit"] = _fit_group(fit, packer, seconds_reading, fixed or {})
    if fit.estimate.monte_carlo_covariance is not None:
        groups["monte_carlo_errors"] = _monte_carlo_errors(fit.estimate, packer)
    groups["history"] = _history(fit)
    groups["diagnostics"] = _diagnostics(fit, packer, reporter)
    groups["observed_data"] = packer.dataset({r.name: (r.variable, _observed(r)) for r in model.responses})
    if model.constant_data:
        groups["constant_data"] = packer.constant(model.constant_data)
    for name, variables in fit.estimate.groups.items():
        groups[name] = xr.Dataset(variables, attrs=_attributes())
    return az.InferenceData(attrs=_attributes(), **groups)  # type: ignore[arg-type]


def _attributes() -> dict[str, Any]:
    return {"inference_library": "hlik", "inference_library_version": __version__}


def _monte_carlo_errors(estimate: Estimate, packer: _Packer) -> xr.Dataset:
    """Monte Carlo standard errors of the parameters on their natural scale, by the delta method."""
    p, covariance = estimate.model.n_beta, estimate.monte_carlo_covariance
    assert covariance is not None
    simulated = dataclasses.replace(
        estimate, beta_covariance=covariance[:p, :p], theta_covariance=covariance[p:, p:], covariance=covariance
    )
    reported = Reporter(simulated).parameters()
    return packer.dataset({r.variable.name: (r.variable, r.standard_error) for r in reported})


def _observed(response: Any) -> np.ndarray:
    """The response as the user gave it: counts, not proportions, for a Binomial."""
    return response.y * response.trials if response.trials is not None else response.y


class _Packer:
    """Arrays with the dims and coords of a model's variables."""

    def __init__(self, model: HierarchicalModel):
        self.model = model

    def array(self, variable: Variable, values: np.ndarray, leading: tuple[str, ...] = ()) -> xr.DataArray:
        head = values.shape[: len(leading)]
        shape = (
            variable.shape
            if int(np.prod(variable.shape, dtype=int)) == values[..., :].size // max(int(np.prod(head, dtype=int)), 1)
            else variable.unconstrained_shape
        )
        dims = (
            variable.dims
            if len(shape) == len(variable.dims) and shape == variable.shape
            else tuple(f"{variable.value_name}_dim_{k}" for k in range(len(shape)))
        )
        coords = {d: self._coordinate(d, n) for d, n in zip(dims, shape, strict=True)}
        return xr.DataArray(values.reshape(head + shape), dims=leading + dims, coords=coords)

    def _coordinate(self, dim: str, size: int) -> np.ndarray:
        labels = self.model.coords.get(dim)
        return labels if labels is not None and len(labels) == size else np.arange(size)

    def dataset(self, items: dict[str, tuple[Variable, np.ndarray]], leading: tuple[str, ...] = ()) -> xr.Dataset:
        arrays = {name: self.array(variable, values, leading) for name, (variable, values) in items.items()}
        return xr.Dataset(arrays, attrs=_attributes())

    def unconstrained(self, reported: list[Reported], field: str) -> xr.Dataset:
        items = {
            r.variable.value_name: (r.variable, getattr(r, field)) for r in reported if r.unconstrained is not None
        }
        return self.dataset(items)

    def constant(self, data: dict[str, tuple[tuple[str, ...], np.ndarray]]) -> xr.Dataset:
        arrays = {
            name: xr.DataArray(
                values,
                dims=dims,
                coords={d: self._coordinate(d, n) for d, n in zip(dims, values.shape, strict=True)},
            )
            for name, (dims, values) in data.items()
        }
        return xr.Dataset(arrays, attrs=_attributes())


def _posterior(
    packer: _Packer, reporter: Reporter, draws: int, rng: np.random.Generator, draw_large: bool
) -> xr.Dataset:
    own = reporter.estimate.v_chains
    chains, per_chain = (CHAINS, -(-draws // CHAINS)) if own is None else own.shape[:2]
    largest = np.iinfo(np.int64).max if draw_large else LARGEST_DRAWN
    found, skipped = Drawer(reporter).draws(chains * per_chain, rng, int(largest))
    if own is not None:
        real = Drawer(reporter).effects_at(own.reshape(chains * per_chain, -1))
        found |= {name: values for name, values in real.items() if name in found}
    model = packer.model
    variables = {v.name: v for v in (*(p.variable for p in model.parameters), *model.deterministics)}
    variables |= {e.name: e.variable for e in model.random_effects}
    items = {name: (variables[name], values.reshape(chains, per_chain, -1)) for name, values in found.items()}
    data = packer.dataset(items, leading=("chain", "draw"))
    data = data.assign_coords(chain=np.arange(chains), draw=np.arange(per_chain))
    data.attrs["drawn_from"] = "normal approximation on the unconstrained scale"
    if own is not None:
        data.attrs["drawn_from"] += "; random effects: the chains of the last sample, given the parameters' estimates"
    if reporter.estimate.v_draws is not None:
        data.attrs["drawn_from"] += "; random effects from their distribution given the responses at the estimate"
    if skipped:
        data.attrs["not_drawn"] = (
            f"{', '.join(skipped)}: more than {LARGEST_DRAWN} elements; hlik.fit(..., draw_large=True) draws them"
        )
    return data


def _fit_group(fit: Fit, packer: _Packer, seconds_reading: float, fixed: Mapping[str, Any]) -> xr.Dataset:
    estimate, model = fit.estimate, packer.model
    labels, mean = [], []
    for parameter in (*model.fixed_effects, *model.dispersion_parameters):
        source = estimate.beta if parameter.natural is None else estimate.theta
        labels += labels_of(model.coords, parameter.variable, parameter.variable.value_name)
        mean.append(source[parameter.index])
    p = model.n_beta
    covariance = np.zeros((p + model.n_theta,) * 2)
    covariance[:p, :p], covariance[p:, p:] = estimate.beta_covariance, estimate.theta_covariance
    if estimate.covariance is not None:
        covariance = estimate.covariance
    components, variance, gradient = variance_components(model, estimate.beta, estimate.theta)
    data = xr.Dataset(
        {
            "mean_vector": ("parameter", np.concatenate(mean) if mean else np.zeros(0)),
            "covariance_matrix": (("parameter", "parameter_2"), covariance),
            "variance_components": (("response", "component"), variance),
            "variance_gradient": (("response", "component", "parameter"), gradient),
            **_covariances(model, estimate.theta),
            **{name: ((), value) for name, value in estimate.scalars.items()},
        },
        coords={
            "parameter": labels,
            "parameter_2": labels,
            "response": [response.name for response in model.responses],
            "component": components,
        },
    )
    data.attrs = {
        **_attributes(),
        "status": fit.status,
        "converged": int(fit.converged),
        "estimator": settings_of(fit.estimator),
        "fixed": json.dumps({name: np.asarray(value).tolist() for name, value in fixed.items()}),
        "estimator_name": fit.estimator.name,
        "likelihood": estimate.likelihood,
        "priors": "ignore" if model.penalty is None else "penalise",
        "theta_in_effects": int(estimate.v_by_theta is not None),
        "fixed_design": _fingerprint(model.X),
        "n_iterations": len(fit.history),
        "seconds": fit.seconds,
        "seconds_reading": seconds_reading,
        "model": json.dumps(describe_model(model)),
    }
    return data


def _fingerprint(X: np.ndarray) -> str:
    """A digest of the fixed-effects design: restricted likelihoods compare only where it is the same."""
    return hashlib.blake2b(np.ascontiguousarray(X).tobytes(), digest_size=16).hexdigest()


def _covariances(model: HierarchicalModel, theta: np.ndarray) -> dict[str, Any]:
    """Covariance matrices of correlated effects in blocks, by term."""
    found = {}
    for effect in model.random_effects:
        coefficients = None if effect.precision is None else effect.precision.coefficients
        if isinstance(coefficients, InverseMap):
            matrix = coefficients.covariance.value(theta).reshape(coefficients.order, coefficients.order)
            found[f"{effect.name}_covariance"] = ((f"{effect.name}_row", f"{effect.name}_column"), matrix)
    return found


def settings_of(estimator: Any) -> str:
    """``EQL(tol=1e-06)``: an estimator with the settings that differ from its defaults."""
    changed = [
        f"{field.name}={_short(getattr(estimator, field.name))}"
        for field in dataclasses.fields(estimator)
        if field.init and field.repr and not _is_default(getattr(estimator, field.name), field.default)
    ]
    return f"{estimator.name}({', '.join(changed)})"


def _is_default(value: Any, default: Any) -> bool:
    return isinstance(value, type(default)) and not isinstance(value, dict) and value == default


def _short(value: Any) -> str:
    """Settings in print; mappings with arrays by their keys."""
    return f"{{{', '.join(repr(key) for key in value)}: ...}}" if isinstance(value, dict) else repr(value)


def describe_model(model: HierarchicalModel) -> dict[str, Any]:
    """What tables print about a model, as plain data."""
    return {
        "responses": [
            {
                "name": r.name,
                **_missing(model, r.name),
                "distribution": r.distribution,
                "family": r.family.name if r.family else None,
                "link": r.link.name if r.link else None,
                "n": r.size,
                "dims": list(r.variable.dims),
            }
            for r in model.responses
        ],
        "random_effects": [
            {
                "name": e.name,
                "distribution": e.distribution,
                "family": e.family.name if e.family else None,
                "scale": _scale_of_effect(model, e.name),
                "levels": e.levels,
                "value_name": e.variable.value_name,
            }
            for e in model.random_effects
        ],
        "parameters": [
            {"name": p.name, "role": p.role, "value_name": p.variable.value_name, "scale": _interval_scale(p)}
            for p in model.parameters
        ],
        "deterministics": [d.name for d in model.deterministics],
    }


def _missing(model: HierarchicalModel, name: str) -> dict[str, Any]:
    """The name that the user gave to a response, and how many of its values are missing."""
    for part in model.unobserved:
        if name == f"{part.response}_observed":
            return {"label": part.response, "missing": int(part.missing.sum())}
    return {"label": name, "missing": 0}


def _scale_of_effect(model: HierarchicalModel, name: str) -> str | None:
    """The link from a random effect to its value variable; None where that is not elementwise."""
    found = linked(model.forms[name])
    return None if found is None else found[1].name


def _interval_scale(parameter: Parameter) -> str:
    """The link on whose scale an interval is made: that of the value variable where it is elementwise."""
    natural = parameter.natural
    inner = getattr(natural, "inner", natural)
    return inner.link.name if isinstance(inner, LinkMap) else "identity"


def _history(fit: Fit) -> xr.Dataset:
    """One row an iteration: the unconstrained parameters, and what the estimator told of its steps."""
    model = fit.estimate.model
    iteration = np.arange(1, len(fit.history) + 1)
    variables: dict[str, Any] = {}
    for parameter in model.parameters:
        path = fit.beta_path if parameter.natural is None else fit.theta_path
        variable = parameter.variable
        dims = tuple(f"{variable.value_name}_dim_{k}" for k in range(len(variable.unconstrained_shape)))
        part = path[:, parameter.index].reshape((len(path), *variable.unconstrained_shape))
        variables[variable.value_name] = (("iteration", *dims), part)
    for key in fit.history[0] if fit.history else ():
        variables[key] = ("iteration", np.array([row[key] for row in fit.history]))
    return xr.Dataset(variables, coords={"iteration": iteration}, attrs=_attributes())


def _diagnostics(fit: Fit, packer: _Packer, reporter: Reporter) -> xr.Dataset:
    """Per response and per term, ``<name>_<quantity>``; without closed forms only the random effects' v."""
    estimate, model = fit.estimate, packer.model
    found = estimate.diagnostics
    items: dict[str, tuple[Variable, np.ndarray]] = {}
    per_term = {"v": estimate.v, "v_se": estimate.v_se}
    if found is not None:
        per_response = {
            "linear_predictor": found.eta,
            "fitted": found.fitted,
            "leverage": found.leverage,
            "deviance": found.deviance,
            "dispersion": found.dispersion,
            "residual_deviance": found.residual_deviance,
            "residual_pearson": found.residual_pearson,
            "residual_studentised": found.residual_studentised,
        }
        per_term |= {
            "leverage": found.random_leverage,
            "deviance": found.random_deviance,
            "dispersion": found.random_dispersion,
        }
        for response in model.responses:
            for quantity, values in per_response.items():
                items[f"{response.name}_{quantity}"] = (response.variable, values[response.rows])
    for effect in model.random_effects:
        if effect.name in reporter.wide:
            found_of = reporter.wide[effect.name].diagnostics()
            items |= {f"{effect.name}_{quantity}": (effect.variable, values) for quantity, values in found_of.items()}
            continue
        for quantity, values in per_term.items():
            items[f"{effect.name}_{quantity}"] = (effect.variable, values[effect.index])
    for response in model.responses:
        items |= _weights(response)
    items |= _of_missing(reporter)
    return packer.dataset(items)


def _of_missing(reporter: Reporter) -> dict[str, tuple[Variable, np.ndarray]]:
    """The part of the uncertainty of missing values that is theirs: the standard deviation given all parameters."""
    model = reporter.model
    known = [part for part in model.unobserved if part.variable.name in model.forms]
    return {f"{part.variable.name}_sd": (part.variable, np.sqrt(reporter.own_variance(part))) for part in known}


def _weights(response: Response) -> dict[str, tuple[Variable, np.ndarray]]:
    """The trials of a Binomial, and prior weights where `fit` was given any."""
    items = {}
    if response.trials is not None:
        items[f"{response.name}_trials"] = (response.variable, response.trials)
    weight = response.weight if response.trials is None else response.weight / response.trials
    if weight.size == response.size and np.any(weight != 1.0):
        items[f"{response.name}_prior_weight"] = (response.variable, weight)
    return items


def history(idata: az.InferenceData) -> az.InferenceData:
    """The path of a fit as an InferenceData, one chain, a draw an iteration, for `az.plot_trace`.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.

    Returns
    -------
    arviz.InferenceData
        Group ``posterior`` with dims chain (one) and draw (iterations).

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> idata = hlik.fit(model, progressbar=False)
    >>> hlik.history(idata).posterior.sizes["draw"] == idata.fit.attrs["n_iterations"]
    True
    """
    path = idata["history"]
    data = path.rename({"iteration": "draw"}).expand_dims(chain=[0]).transpose("chain", "draw", ...)
    return az.InferenceData(posterior=data)
