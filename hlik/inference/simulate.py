"""New responses from a fitted model."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.errors import ModelError
from hlik.graph.arguments import as_pymc
from hlik.inference.restore import estimated_v, prior_weights, read_again
from hlik.inference.tables import model_of
from hlik.model import HierarchicalModel, RandomEffect, Response

RANDOM = ("new", "conditional")


def simulate(
    model: Any,
    idata: az.InferenceData,
    draws: int = 1,
    *,
    random: str = "new",
    random_seed: int | np.random.Generator | None = None,
) -> xr.Dataset:
    """Draw responses from the model at its estimates.

    Parameters
    ----------
    model
        The model that was fitted; it is not changed.
    idata
        Its result.
    draws
        How many sets of responses.
    random
        ``"new"``: the random effects are drawn anew for each set, as for a parametric bootstrap;
        ``"conditional"``: they stay at their predictions.
    random_seed
        Seed.

    Returns
    -------
    xarray.Dataset
        A variable a response, dims (draw, ...), in the units of the observations (counts of a Binomial).

    Raises
    ------
    ModelError
        Where the fit is one of quasi-likelihood, which has no distribution to draw from.

    Notes
    -----
    The parameters are at their estimates: their uncertainty is not part of the draws. Families and random effects that
    hlik knows are drawn by NumPy; for others PyMC compiles the graph, which takes a second or two.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> idata = hlik.fit(model, progressbar=False)
    >>> hlik.simulate(model, idata, 200, random_seed=1)["y"].shape
    (200, 9)
    """
    if random not in RANDOM:
        raise ModelError(f"random={random!r}: expected 'new' or 'conditional'.")
    if not isinstance(draws, int | np.integer) or draws < 1:
        raise ModelError(f"draws must be a whole number, 1 or more; got {draws!r}.")
    read = read_again(model, idata)
    _check_likelihood(read, idata)
    rng = np.random.default_rng(random_seed)
    closed = all(r.family is not None and r.link is not None for r in read.responses) and (
        random == "conditional" or all(e.family is not None for e in read.random_effects)
    )
    found = _by_numpy(read, idata, draws, random, rng) if closed and read.theta_design is None else None
    if found is None:
        found = _by_pymc(model, idata, draws, random, rng)
    arrays = {}
    for name, values in found.items():
        y = idata["observed_data"][name]
        arrays[name] = xr.DataArray(values.reshape(draws, *y.shape), dims=("draw", *y.dims), coords=y.coords)
    return xr.Dataset(arrays)


def _check_likelihood(read: HierarchicalModel, idata: az.InferenceData) -> None:
    weighted = prior_weights(idata)
    for response in read.responses:
        if response.family is None or response.family.has_dispersion:
            continue
        if response.dispersion is not None or response.name in weighted:
            raise ModelError(
                f"Response {response.name!r} was fitted by quasi-likelihood (a dispersion or prior weights of a "
                f"{response.family.name} response), which has no distribution to draw from."
            )


def _by_numpy(
    read: HierarchicalModel, idata: az.InferenceData, draws: int, random: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    beta, theta, v = np.zeros(read.n_beta), np.zeros(read.n_theta), estimated_v(read, idata)
    for parameter in read.parameters:
        target = beta if parameter.natural is None else theta
        target[parameter.index] = np.ravel(idata["unconstrained_estimates"][parameter.variable.value_name].values)
    fixed = read.offset + read.X @ beta
    found = {response.name: np.empty((draws, response.size)) for response in read.responses}
    for draw in range(draws):
        if random == "new":
            for effect in read.random_effects:
                v[effect.index] = draw_v(effect, theta, rng)
        eta = fixed + read.Z @ v if v.size else fixed
        for response in read.responses:
            found[response.name][draw] = draw_response(response, eta[response.rows], theta, rng)
    return found


def draw_v(effect: RandomEffect, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of a random effect on the scale of v, shape (levels,)."""
    assert effect.family is not None
    assert effect.dispersion is not None
    lam = np.broadcast_to(effect.dispersion.value(theta), (effect.size,))
    if effect.family.name == "normal":
        return rng.normal(0.0, np.sqrt(lam))
    if effect.family.name == "gamma":
        # Gamma(a) = Gamma(a + 1) U^(1/a): its logarithm does not underflow for small shapes
        return np.log(rng.gamma(1 / lam + 1)) + lam * np.log(rng.uniform(size=lam.size)) + np.log(lam)
    if effect.family.name == "beta":
        one, other = (np.log(rng.gamma(0.5 / lam + 1)) + 2 * lam * np.log(rng.uniform(size=lam.size)) for _ in "ab")
        return one - other
    return rng.gamma(1 + 1 / lam, lam)  # inverse gamma: v = 1/u


def draw_response(response: Response, eta: np.ndarray, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of a response of a known family, in the units of the observations, shape (n,)."""
    assert response.family is not None
    assert response.link is not None
    mean, family = response.link.inverse(eta), response.family.name
    phi = np.ones(1) if response.dispersion is None else response.dispersion.value(theta)
    variance = phi / response.weight
    if family == "normal":
        return rng.normal(mean, np.sqrt(variance))
    if family == "poisson":
        return rng.poisson(mean).astype(float)
    if family in ("binomial", "bernoulli"):
        trials = 1 if response.trials is None else response.trials.astype(int)
        return rng.binomial(trials, mean).astype(float)
    if family == "gamma":
        return rng.gamma(1 / variance, mean * variance)
    return rng.wald(mean, 1 / variance)


def _by_pymc(
    model: Any, idata: az.InferenceData, draws: int, random: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """PyMC's own draws with the parameters (and effects) held at their estimates."""
    import pymc as pm

    described, pymc_model = model_of(idata), as_pymc(model)
    if weighted := prior_weights(idata):
        raise ModelError(f"Responses with prior weights ({', '.join(weighted)}) cannot be drawn by PyMC.")
    names = [p["name"] for p in described["parameters"]]
    if random == "conditional":
        names += [e["name"] for e in described["random_effects"]]
    values = {name: idata["estimates"][name].values for name in names if name in pymc_model.named_vars}
    held = pm.do(pymc_model, values)
    responses = [r["name"] for r in described["responses"]]
    seed = int(rng.integers(2**31))
    found = pm.draw([held[name] for name in responses], draws=draws, random_seed=seed)
    return {name: np.asarray(part).reshape(draws, -1) for name, part in zip(responses, found, strict=True)}
