"""Pointwise log-likelihoods, for `arviz.loo` and `arviz.compare`."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import pymc as pm
import xarray as xr

from hlik.adjusted_profile import ModeError
from hlik.batch import Batch
from hlik.errors import ModelError
from hlik.estimators.agq_profile import QuadratureProfile
from hlik.graph.describe import labels_of
from hlik.graph.read import as_pymc
from hlik.hlikelihood import HLikelihood
from hlik.inference.restore import read_again
from hlik.inference.unconstrain import unconstrained_draws
from hlik.model import HierarchicalModel

KINDS = ("conditional", "marginal")
MOST_NODES = 5000  # of a block: 9 nodes a coordinate up to three effects


def pointwise_log_likelihood(
    model: Any,
    idata: az.InferenceData,
    kind: str = "conditional",
    *,
    posterior: az.InferenceData | None = None,
    points: int = 9,
) -> az.InferenceData:
    r"""Log-likelihoods of the parts of the data at every draw, so that `az.loo` and `az.compare` work.

    Parameters
    ----------
    model
        The model that was fitted.
    idata
        Its result.
    kind
        ``"conditional"``
            ``log f(y_i | v, psi)`` of every observation, at draws of the random effects: leaving out single
            observations of groups that stay.
        ``"marginal"``
            ``log \int f(y_g | v_g, psi) f(v_g | psi) dv_g`` of every group: leaving out whole groups. Groups are the
            sets of observations that random effects link; their integrals are by adaptive Gauss-Hermite quadrature.
    posterior
        Draws of the same model by `pm.sample`; None for the draws of `idata`.
    points
        Nodes a coordinate of the quadrature; 1 is Laplace's approximation.

    Returns
    -------
    arviz.InferenceData
        Groups ``posterior`` and ``observed_data``, and ``log_likelihood``: a variable a response, or, for "marginal",
        the variable ``marginal`` with dims (chain, draw, group), labelled by the first random effect of each group.

    Raises
    ------
    ModelError
        Where the draws lack a variable, or all observations are one group (crossed effects).

    Notes
    -----
    The draws of a likelihood fit are those of its normal approximation: `az.loo` then approximates leaving out by
    importance sampling from it. "marginal" costs a mode a draw, some milliseconds: of long chains
    (Monte Carlo EM) take some draws, ``posterior=idata.isel(draw=slice(None, None, 10))``.

    References
    ----------
    Merkle, E. C., Furr, D. & Rabe-Hesketh, S. (2019). Bayesian comparison of latent variable models. Psychometrika 84.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> idata = hlik.fit(model, progressbar=False, draws=40, random_seed=1)
    >>> hlik.pointwise_log_likelihood(model, idata, "marginal")["log_likelihood"]["marginal"].shape
    (4, 10, 3)
    """
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r}: expected 'conditional' or 'marginal'.")
    if not isinstance(points, int | np.integer) or points < 1:
        raise ModelError(f"points must be a whole number, 1 or more; got {points!r}.")
    read = read_again(model, idata)
    source = idata if posterior is None else posterior
    draws = _draws(as_pymc(model), read, source, with_effects=kind == "conditional")
    chains, length = source["posterior"].sizes["chain"], source["posterior"].sizes["draw"]
    likelihood = HLikelihood(read)
    if kind == "conditional":
        found = _conditional(read, likelihood, draws, idata, (chains, length))
    else:
        found = {"marginal": _marginal(read, likelihood, draws, points, (chains, length))}
    labels = {"chain": source["posterior"]["chain"].values, "draw": source["posterior"]["draw"].values}
    data = xr.Dataset(found).assign_coords(labels)
    return az.InferenceData(posterior=source["posterior"], log_likelihood=data, observed_data=idata["observed_data"])


class _Draws:
    """(beta, theta) and, where asked for, v at every draw; shapes (S, ...)."""

    def __init__(self, read: HierarchicalModel, size: int):
        self.beta, self.theta = np.zeros((size, read.n_beta)), np.zeros((size, read.n_theta))
        self.v = np.zeros((size, read.n_random))


def _draws(model: pm.Model, read: HierarchicalModel, source: az.InferenceData, with_effects: bool) -> _Draws:
    if "posterior" not in source.groups():
        raise ModelError("There are no draws: fit with draws=1000, or pass posterior=pm.sample(model=model).")
    posterior = source["posterior"]
    size = posterior.sizes["chain"] * posterior.sizes["draw"]
    found = _Draws(read, size)
    for parameter in read.parameters:
        target = found.beta if parameter.natural is None else found.theta
        target[:, parameter.index] = unconstrained_draws(model, posterior, parameter.name)
    if not with_effects:
        return found
    for effect in read.random_effects:
        if effect.location is not None or effect.root is not None or effect.wide is not None:
            raise ModelError(f"Draws of random effect {effect.name!r} are not deviations: kind='marginal' needs none.")
        own = unconstrained_draws(model, posterior, effect.name)
        if effect.scale_map is not None:
            own = own * np.array([effect.scale_map.value(theta) for theta in found.theta])
        found.v[:, effect.index] = own
    return found


def _conditional(
    read: HierarchicalModel, likelihood: HLikelihood, draws: _Draws, idata: az.InferenceData, shape: tuple[int, int]
) -> dict[str, xr.DataArray]:
    size = len(draws.beta)
    values = {response.name: np.empty((size, response.size)) for response in read.responses}
    for s in range(size):
        batch = Batch.at(likelihood, draws.beta[s], draws.v[s][:, None], draws.theta[s])
        for response, cases in zip(read.responses, batch.responses, strict=False):
            values[response.name][s] = np.broadcast_to(cases.value, (response.size, 1))[:, 0]
    found = {}
    for name, value in values.items():
        y = idata["observed_data"][name]
        found[name] = xr.DataArray(value.reshape(*shape, *y.shape), dims=("chain", "draw", *y.dims), coords=y.coords)
    return found


def _marginal(
    read: HierarchicalModel, likelihood: HLikelihood, draws: _Draws, points: int, shape: tuple[int, int]
) -> xr.DataArray:
    profile = QuadratureProfile(likelihood, 1)
    if profile.blocks.size.size < 2:
        raise ModelError(
            "All observations are one group, as with crossed random effects: there is no group to leave out. "
            "kind='conditional' leaves out single observations."
        )
    if points**profile.blocks.largest > MOST_NODES:
        raise ModelError(
            f"The largest group has {profile.blocks.largest} random effects, whose quadrature takes "
            f"{points}**{profile.blocks.largest} points: pass points=1, Laplace's approximation."
        )
    if points > 1:
        profile = QuadratureProfile(likelihood, points)
    values, v = np.empty((len(draws.beta), profile.blocks.size.size)), likelihood.start_v()
    for s, (beta, theta) in enumerate(zip(draws.beta, draws.theta, strict=True)):
        try:
            mode = profile.mode(np.concatenate([beta, theta]), beta, v)
        except ModeError as error:
            raise ModelError(f"No mode of the random effects at draw {s}: {error}.") from error
        logdet = np.log(np.diagonal(mode.root, axis1=1, axis2=2)).sum(axis=1)
        values[s] = mode.log_sum[:-1] + 0.5 * np.log(2.0) * profile.blocks.size + logdet
        v = mode.point.v
    first = np.zeros(profile.blocks.size.size, dtype=int)
    first[profile.blocks.member[::-1]] = np.arange(read.n_random)[::-1]
    labels = np.array([label for e in read.random_effects for label in labels_of(read.coords, e.variable, e.name)])
    return xr.DataArray(values.reshape(*shape, -1), dims=("chain", "draw", "group"), coords={"group": labels[first]})
