"""`fit`: reads and checks a model, runs the estimator (`hlik.loop`), and packs the result (`hlik.result`)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hlik.errors import ConvergenceWarning, ModelError
from hlik.estimators.agq import AGQ
from hlik.estimators.base import Estimator
from hlik.estimators.eql import EQL
from hlik.estimators.hl import HL
from hlik.estimators.laplace import Laplace
from hlik.estimators.mcem import MCEM
from hlik.estimators.mcem_state import values_of
from hlik.estimators.mcla import MCLA
from hlik.estimators.saem import SAEM
from hlik.loop import run
from hlik.model import HierarchicalModel
from hlik.samplers.source import Source

ESTIMATORS: dict[str, type] = {
    "eql": EQL,
    "laplace": Laplace,
    "hl": HL,
    "agq": AGQ,
    "mcem": MCEM,
    "mcla": MCLA,
    "saem": SAEM,
}


def as_estimator(estimator: str | Estimator) -> Estimator:
    """An estimator from its lower-case name, or itself."""
    if isinstance(estimator, str):
        if estimator.lower() not in ESTIMATORS:
            raise ModelError(f"No estimator is called {estimator!r}; there are {sorted(ESTIMATORS)}.")
        return ESTIMATORS[estimator.lower()]()
    if isinstance(estimator, type):
        raise ModelError(f"estimator must be an object: write {estimator.__name__}() with its brackets.")
    if not hasattr(estimator, "prepare"):
        raise ModelError(
            f"estimator must be a name, {sorted(ESTIMATORS)}, or an object such as hlik.EQL(); got {estimator!r}."
        )
    return estimator


def fit(
    model: Any,
    estimator: str | Estimator = "eql",
    *,
    random: Sequence[str] | None = None,
    priors: str = "ignore",
    fixed: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    draws: int = 1000,
    draw_large: bool = False,
    progressbar: bool = True,
    random_seed: int | np.random.Generator | None = None,
) -> Any:
    """Fit a PyMC model by likelihood.

    Parameters
    ----------
    model
        A `pymc.Model`, or a Bambi model. It is never changed.
    estimator
        A settings object such as ``hlik.EQL(correction="HL11")``; its lower-case name means its defaults.
        ``"auto"``: Laplace or EQL first, checked by `hlik.check_accuracy`, then MCLA or MCEM where the check says so;
        ``idata.fit.attrs["auto"]`` tells what was done and why.
    random
        Names of the random effects, where they cannot be told from the graph: all other free variables are then
        parameters.
    priors
        ``"ignore"``: densities of parameters do not count, as in likelihood. ``"penalise"``: their log densities, on
        the natural scale as the model states them (no Jacobian of a transform), are added to the log-likelihood that
        is maximised; ``log_likelihood`` is then the penalised one, and ``unpenalised_log_likelihood`` and all other
        criteria leave the densities out. For `Laplace` and `AGQ`.
    fixed
        Values on the natural scale, by name, at which parameters are held.
    weights
        Prior weights by response name, in the shape of the response: the variance of observation i is divided by
        its weight (for counts and binary data: the observation counts that many times).
    start
        Starting values on the natural scale, by name, in the shape of the parameter; or a result to go on from, also
        one read from NetCDF: Monte Carlo EM takes its chains and number of draws too.
    draws
        Draws in all of the normal approximation that the result's ``posterior`` group holds, in four chains;
        0 for none.
    draw_large
        Draw variables with more than 2,000 elements too (the result says which were left out).
    progressbar
        Show a progress bar for fits that take longer than half a second.
    random_seed
        Seed of the draws.

    Returns
    -------
    arviz.InferenceData
        Groups as the README lists them; ``idata.fit.attrs["status"]`` says how the fit ended.

    Raises
    ------
    ModelError
        Where the model, the data or an argument cannot be fitted, naming the variable and the way out.

    Warns
    -----
    ConvergenceWarning
        Where the fit ended otherwise than converged.

    Notes
    -----
    The model is read without compiling anything where its families are known. See the estimators for what is
    maximised, what it costs and when it is biased.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(4), 3)
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model() as model:
    ...     mean = pm.Normal("mean", 0, 10)
    ...     sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma_u, shape=4)
    ...     _ = pm.Normal("y", mean + u[group], sigma, observed=y)
    >>> idata = hlik.fit(model, progressbar=False)
    >>> idata.fit.attrs["status"]
    'converged'
    >>> round(float(idata.estimates["sigma"]), 4)
    0.3416
    """
    from hlik.graph.penalised import read_penalised
    from hlik.graph.read import as_pymc, read_model

    _check_arguments(priors, draws)
    if isinstance(estimator, str) and estimator.lower() == "auto":
        return _automatic(model, random, priors, fixed, weights, start, draws, draw_large, progressbar, random_seed)
    chosen = as_estimator(estimator)
    if priors == "penalise" and not isinstance(chosen, Laplace | AGQ):
        raise ModelError(f"priors='penalise' is for hlik.Laplace() and hlik.AGQ(), not for {chosen.name}.")
    began = time.perf_counter()
    reader = read_model if priors == "ignore" else read_penalised
    read = reader(as_pymc(model), random=random, fixed=fixed, weights=weights)
    return fit_read(
        model,
        read,
        chosen,
        began=began,
        start=start,
        fixed=fixed,
        draws=draws,
        draw_large=draw_large,
        progressbar=progressbar,
        random_seed=random_seed,
        weighted=bool(weights),
    )


def _automatic(
    model: Any,
    random: Sequence[str] | None,
    priors: str,
    fixed: Mapping[str, Any] | None,
    weights: Mapping[str, Any] | None,
    start: Mapping[str, Any] | None,
    draws: int,
    draw_large: bool,
    progressbar: bool,
    random_seed: int | np.random.Generator | None,
) -> Any:
    """The estimator that a check of a first one leads to: see `hlik.auto`."""
    from hlik.auto import fit_automatically
    from hlik.graph.read import as_pymc, read_model

    if priors != "ignore":
        raise ModelError('estimator="auto" is for priors="ignore".')

    def fit_with(estimator: Any, begin: Mapping[str, Any] | None) -> Any:
        return fit(
            model,
            estimator,
            random=random,
            fixed=fixed,
            weights=weights,
            start=begin,
            draws=draws,
            draw_large=draw_large,
            progressbar=progressbar,
            random_seed=random_seed,
        )

    read = read_model(as_pymc(model), random=random, fixed=fixed, weights=weights)
    return fit_automatically(model, read, fit_with, start=start, random_seed=random_seed)


def fit_read(
    model: Any,
    read: HierarchicalModel,
    chosen: Estimator,
    *,
    began: float,
    start: Mapping[str, Any] | None,
    fixed: Mapping[str, Any] | None,
    draws: int,
    draw_large: bool,
    progressbar: bool,
    random_seed: int | np.random.Generator | None,
    weighted: bool = False,
) -> Any:
    """Fit a model whose reading began at `began` (seconds of `time.perf_counter`); the rest is as in `fit`."""
    from hlik.checks import check_data
    from hlik.graph.read import as_pymc
    from hlik.inference.unknown_families import add_distributions
    from hlik.result.inference_data import to_inference_data

    read = replace(read, source=Source(as_pymc(model), fixed, weighted=weighted))
    obstacles = chosen.obstacles(read)
    if obstacles:
        raise ModelError(f"{chosen.name} cannot fit this model: " + "; ".join(obstacles) + ".")
    check_data(read)
    seconds_reading = time.perf_counter() - began
    rng = np.random.default_rng(random_seed)
    start = values_of(start, read) if hasattr(start, "groups") else start
    result = run(read, chosen, start=start, rng=rng, progressbar=progressbar)
    if not result.converged:
        warnings.warn(f"{chosen.name}: {result.status}.", ConvergenceWarning, stacklevel=3)
    idata = to_inference_data(
        result, draws=draws, rng=rng, seconds_reading=seconds_reading, draw_large=draw_large, fixed=fixed
    )
    add_distributions(model, read, idata, fixed)
    return idata


def _check_arguments(priors: str, draws: int) -> None:
    if priors not in ("ignore", "penalise"):
        raise ModelError(f"priors={priors!r}: expected 'ignore' or 'penalise'.")
    if not isinstance(draws, int | np.integer) or draws < 0:
        raise ModelError(f"draws must be a whole number, 0 or more; got {draws!r}.")
