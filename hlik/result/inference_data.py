"""From a `Fit` to ArviZ's InferenceData: the only file that knows ArviZ's containers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.estimators.base import Estimate
from hlik.loop import Fit
from hlik.result.arrays import Packer, attributes
from hlik.result.diagnostics import diagnostics_group
from hlik.result.draws import Drawer
from hlik.result.fit_group import fit_group
from hlik.result.history import history_group
from hlik.result.report import Reporter

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
        What `hlik.loop.run` returned.
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
    packer = Packer(model)
    reporter = Reporter(fit.estimate)
    reported = reporter.all()
    groups: dict[str, xr.Dataset] = {}
    if draws:
        groups["posterior"] = _posterior(packer, reporter, draws, rng, draw_large)
    groups["estimates"] = packer.dataset({r.variable.name: (r.variable, r.estimate) for r in reported})
    groups["standard_errors"] = packer.dataset({r.variable.name: (r.variable, r.standard_error) for r in reported})
    groups["unconstrained_estimates"] = packer.unconstrained(reported, "unconstrained")
    groups["unconstrained_standard_errors"] = packer.unconstrained(reported, "unconstrained_error")
    groups["fit"] = fit_group(fit, packer, seconds_reading, fixed or {})
    if fit.estimate.monte_carlo_covariance is not None:
        groups["monte_carlo_errors"] = _monte_carlo_errors(fit.estimate, packer)
    groups["history"] = history_group(fit)
    groups["diagnostics"] = diagnostics_group(fit, packer, reporter)
    groups["observed_data"] = packer.dataset({r.name: (r.variable, _observed(r)) for r in model.responses})
    if model.constant_data:
        groups["constant_data"] = packer.constant(model.constant_data)
    for name, variables in fit.estimate.groups.items():
        groups[name] = xr.Dataset(variables, attrs=attributes())
    return az.InferenceData(attrs=attributes(), **groups)  # type: ignore[arg-type]


def _monte_carlo_errors(estimate: Estimate, packer: Packer) -> xr.Dataset:
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


def _posterior(
    packer: Packer, reporter: Reporter, draws: int, rng: np.random.Generator, draw_large: bool
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
