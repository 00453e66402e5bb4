"""Parametric bootstrap: responses drawn from the fitted model, fitted again, on any executor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.errors import DataWarning, ModelError
from hlik.estimators.base import Estimator
from hlik.executors import check_executor, run_all
from hlik.inference.bootstrap_task import Task, packed, refit
from hlik.inference.refit import estimator_of
from hlik.inference.selection import select
from hlik.inference.simulate import simulate
from hlik.inference.tables import model_of
from hlik.links import LINKS
from hlik.progress import Progress

BLOCK = 10  # replicates a task; their random numbers belong to the block, whoever runs it


def bootstrap(
    model: Any,
    idata: az.InferenceData,
    n: int = 999,
    *,
    estimator: Estimator | None = None,
    executor: Executor | None = None,
    resume: az.InferenceData | None = None,
    progressbar: bool = True,
    random_seed: int | None = None,
) -> az.InferenceData:
    """Draw responses from the fitted model and fit each set again.

    Parameters
    ----------
    model
        The model that was fitted, with the data of the fit; it is not changed.
    idata
        Its result.
    n
        Replicates in all, those of `resume` included.
    estimator
        For the replicates; by default that of the fit, with its settings.
    executor
        A `concurrent.futures.Executor` whose workers fit the replicates (in pools of processes hlik is imported by
        each); None: this process, one after the other.
    resume
        What an earlier call returned, complete or interrupted: it is carried on, with its random numbers.
    progressbar
        Show the replicates done.
    random_seed
        Seed. The result depends on it and on `n` alone, not on the executor or on interruptions.

    Returns
    -------
    arviz.InferenceData
        The groups of `idata` and a group ``bootstrap``: the estimates of every parameter by ``replicate``, under its
        name (natural scale) and that of its value variable (unconstrained); ``converged``; NaN where a replicate could
        not be fitted. ``hlik.confint(result, method="percentile")`` and ``"basic"`` make intervals of it.

    Raises
    ------
    ModelError
        Where the fit is of quasi-likelihood, which cannot be drawn from, or an argument is wrong.

    Warns
    -----
    DataWarning
        Where Ctrl-C ended it before the last replicate, and where replicates failed.

    Notes
    -----
    Random effects are drawn anew in each replicate, parameters are at their estimates (Davison & Hinkley 1997, section
    4.2.3). Fits start from the estimates. A variance that a replicate estimates at zero counts as it is: percentiles
    then have an atom at zero. Cost: n fits; models of known families are read once, others (negative binomial, say)
    for each replicate.

    References
    ----------
    Davison, A. C. & Hinkley, D. V. (1997). Bootstrap Methods and their Application.

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
    >>> boot = hlik.bootstrap(model, idata, n=40, progressbar=False, random_seed=1)
    >>> boot["bootstrap"]["sigma"].shape
    (40,)
    >>> list(hlik.confint(boot, method="percentile").index)
    ['mean', 'sigma_u', 'sigma']
    """
    check_executor(executor, "bootstrap")
    if not isinstance(n, int | np.integer) or n < 1:
        raise ModelError(f"n must be a whole number, 1 or more; got {n!r}.")
    chosen = estimator_of(idata) if estimator is None else estimator
    done, entropy = _done(idata, resume, random_seed)
    names = [parameter["value_name"] for parameter in model_of(idata)["parameters"]]
    sizes = [int(idata["unconstrained_estimates"][name].size) for name in names]
    rows = list(done[:n])
    first = len(rows) // BLOCK
    rows = rows[: first * BLOCK]  # an incomplete block is drawn again, with the same numbers
    if len(rows) < n and resume is not None and len(done) >= n:
        rows = list(done[:n])
    task = packed(model, idata, chosen, names)
    interrupted = False
    try:
        with Progress("Bootstrap", int(n), progressbar) as progress:
            for _ in rows:
                progress.advance({})
            if len(rows) < n:
                for block in run_all(executor, refit, _tasks(model, idata, task, entropy, first, int(n))):
                    for row in block:
                        rows.append(row)
                        progress.advance({})
    except KeyboardInterrupt:
        interrupted = True
    rows = rows[: int(n)]
    found = np.array(rows, dtype=float).reshape(len(rows), sum(sizes) + 1)
    _warn(found, int(n), interrupted)
    result = idata.copy()
    if "bootstrap" in result.groups():
        del result["bootstrap"]
    result.add_groups({"bootstrap": _dataset(idata, found, names, sizes, entropy)})
    return result


def _done(idata: az.InferenceData, resume: az.InferenceData | None, random_seed: int | None) -> tuple[np.ndarray, int]:
    """Rows that an earlier call has, and the seed of all."""
    size = int(idata["fit"].sizes["parameter"]) + 1
    if resume is None:
        entropy = np.random.SeedSequence(random_seed).entropy
        assert isinstance(entropy, int)
        return np.zeros((0, size)), entropy
    if "bootstrap" not in resume.groups():
        raise ModelError("resume= takes what hlik.bootstrap returned: this has no group 'bootstrap'.")
    if not np.array_equal(resume["fit"]["mean_vector"].values, idata["fit"]["mean_vector"].values):
        raise ModelError("resume= is of another fit than the one given: its estimates differ.")
    group = resume["bootstrap"]
    entropy = int(group.attrs["random_seed"])
    if random_seed is not None and random_seed != entropy:
        raise ModelError(f"resume= was drawn with random_seed={entropy}; leave random_seed out to carry it on.")
    names = [parameter["value_name"] for parameter in model_of(idata)["parameters"]]
    parts = [group[name].values.reshape(group.sizes["replicate"], -1) for name in names]
    return np.hstack([*parts, group["converged"].values[:, None]]), entropy


def _tasks(
    model: Any, idata: az.InferenceData, task: Task, entropy: int, first: int, n: int
) -> Iterator[tuple[Task, dict[str, np.ndarray]]]:
    """Responses of every block, drawn here, with the block's own random numbers."""
    for block in range(first, -(-n // BLOCK)):
        rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(block,)))
        drawn = simulate(model, idata, BLOCK, random="new", random_seed=rng)
        wanted = min(BLOCK, n - block * BLOCK)
        yield task, {str(name): values.values[:wanted] for name, values in drawn.data_vars.items()}


def _warn(found: np.ndarray, n: int, interrupted: bool) -> None:
    failed = int(np.isnan(found[:, :-1]).any(axis=1).sum())
    if interrupted:
        warnings.warn(
            f"bootstrap: interrupted after {len(found)} of {n} replicates; hlik.bootstrap(..., resume=result) carries "
            "on.",
            DataWarning,
            stacklevel=3,
        )
    if failed:
        warnings.warn(f"bootstrap: {failed} of {len(found)} replicates could not be fitted.", DataWarning, stacklevel=3)


def _dataset(
    idata: az.InferenceData, found: np.ndarray, names: list[str], sizes: list[int], entropy: int
) -> xr.Dataset:
    replicate = np.arange(len(found))
    arrays, start = {}, 0
    chosen = {item.parameter["value_name"]: item for item in select(idata, None)}
    for name, size in zip(names, sizes, strict=True):
        own = idata["unconstrained_estimates"][name]
        values = found[:, start : start + size].reshape(len(found), *own.shape)
        arrays[name] = xr.DataArray(values, dims=("replicate", *own.dims), coords=dict(own.coords))
        item = chosen[name]
        if item.elementwise and item.name != name:
            natural = idata["estimates"][item.name]
            with np.errstate(all="ignore"):
                mapped = LINKS[item.parameter["scale"]].inverse(values)
            arrays[item.name] = xr.DataArray(mapped, dims=("replicate", *natural.dims), coords=dict(natural.coords))
        start += size
    arrays["converged"] = xr.DataArray(found[:, -1].astype(int), dims="replicate")
    attributes = {**idata["fit"].attrs, "random_seed": str(entropy)}
    kept = ("inference_library", "inference_library_version", "estimator", "random_seed")
    data = xr.Dataset(arrays, attrs={key: attributes[key] for key in kept if key in attributes})
    return data.assign_coords(replicate=replicate)
