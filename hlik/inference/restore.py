"""A fit put together again from its InferenceData and its model: numbers, factored information, joint errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import arviz as az
import numpy as np
import scipy.sparse as sp

from hlik.adjusted_profile import Profile
from hlik.augmented import AugmentedModel, dispersions
from hlik.delta_method import delta_variance
from hlik.errors import ModelError
from hlik.estimators.laplace_finish import full_information
from hlik.estimators.quasi_dispersion import with_quasi_dispersion
from hlik.graph.penalised import read_penalised
from hlik.graph.read import as_pymc, read_model
from hlik.hlikelihood import HLikelihood
from hlik.inference.refit import maximiser_of
from hlik.inference.tables import model_of
from hlik.linalg import NotPositiveDefinite
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel
from hlik.scale_mixture import ScaleMixture, mixed_effects

RELATIVE = "(relative variances given)"  # what `hlik.graph.wide_terms` adds to the name of a distribution
STEP = 1e-3  # standard errors of theta, for central differences of the mode


@dataclass(frozen=True, eq=False)
class Restored:
    r"""The estimate of a fit, with the joint uncertainty of fixed effects, random effects and dispersions.

    With psi = (beta, theta) of covariance `covariance` and ``v = v(psi) + e``, e of precision C = Z'WZ + D,

    .. math:: \mathrm{cov}(\beta, v, \theta) = G\, \mathrm{cov}(\psi)\, G' + \mathrm{cov}(e), \qquad
              dv/d\beta = -C^{-1} Z'WX.

    Where the fit maximised p_v(h), jointly in beta and theta, dv/dtheta counts too (Kristensen et al. 2016); in a
    restricted likelihood (EQL, REML) theta counts as known in beta and v.

    Attributes
    ----------
    model
        The model as it was fitted, quasi-dispersions included.
    beta, v, theta
        Estimates, unconstrained; shapes (p,), (q,), (r,).
    covariance
        Of (beta, theta), shape (p + r, p + r).
    information
        The factored H at the estimate.
    moving
        Gives the random effects at other parameters; None: their mode in h.
    """

    model: HierarchicalModel
    beta: np.ndarray
    v: np.ndarray
    theta: np.ndarray
    covariance: np.ndarray
    information: Bordered
    is_joint: bool
    moving: Profile | None = None

    @cached_property
    def v_by_theta(self) -> np.ndarray:
        """dv/dtheta of the mode of h with beta held, shape (q, r); zero where theta counts as known."""
        slopes = np.zeros((self.v.size, self.theta.size))
        if not (self.is_joint and self.v.size):
            return slopes
        profile = Profile(HLikelihood(self.model)) if self.moving is None else self.moving
        errors = np.sqrt(np.diag(self.covariance)[self.beta.size :])
        for k in np.flatnonzero(np.isfinite(errors) & (errors > 0)):
            ends = []
            for sign in (1.0, -1.0):
                theta = self.theta.copy()
                theta[k] += sign * STEP * errors[k]
                ends.append(profile.mode(np.concatenate([self.beta, theta]), self.beta, self.v).point.v)
            slopes[:, k] = (ends[0] - ends[1]) / (2 * STEP * errors[k])
        return slopes

    def error(self, TX: np.ndarray, TZ: sp.csr_array, T_theta: np.ndarray) -> np.ndarray:
        """``sqrt diag(T cov T')`` for rows T = [TX TZ T_theta] of (beta, v, theta), shape (m,)."""
        return np.sqrt(self.variance(TX, TZ, T_theta))

    def variance(self, TX: np.ndarray, TZ: sp.csr_array, T_theta: np.ndarray) -> np.ndarray:
        """``diag(T cov T')``, shape (m,)."""
        if not TZ.nnz:
            return delta_variance(np.hstack([TX, T_theta]), self.covariance)
        direct = np.hstack([TX - TZ @ self.information.B, T_theta + TZ @ self.v_by_theta])
        return delta_variance(direct, self.covariance) + self.information.factor_z.quadratic(TZ)


def restore(model: Any, idata: az.InferenceData) -> Restored:
    """Read the model once more and factor its information at the estimate.

    Raises
    ------
    ModelError
        Where the result is not one of this model with these data.
    """
    read = read_again(model, idata)
    beta, theta = np.zeros(read.n_beta), np.zeros(read.n_theta)
    for parameter in read.parameters:
        target = beta if parameter.natural is None else theta
        target[parameter.index] = np.ravel(idata["unconstrained_estimates"][parameter.variable.value_name].values)
    v = estimated_v(read, idata)
    covariance = idata["fit"]["covariance_matrix"].values
    attributes = idata["fit"].attrs
    is_expected = attributes["estimator_name"] == "EQL" and read.double is None
    likelihood, moving = (None, None) if is_expected else _given_scales(read, idata)
    if likelihood is None:
        information = _expected(read, beta, v, theta)
    elif read.kinks:  # the curvature of h is not what errors come from
        moving = maximiser_of(idata, "Errors").profile(likelihood)
        mode = moving.mode(np.concatenate([beta, theta]), beta, v)
        information = full_information(likelihood, mode)
    else:
        information = _observed(likelihood, beta, v, theta)
    return Restored(read, beta, v, theta, covariance, information, bool(attributes["theta_in_effects"]), moving)


def _given_scales(read: HierarchicalModel, idata: az.InferenceData) -> tuple[HLikelihood, Profile | None]:
    """h as the errors of the effects come from it: given the mean scales of multivariate t effects, where it has them.

    With them comes the profile that was maximised, whose random effects are means over the scales.
    """
    likelihood = HLikelihood(read)
    if not mixed_effects(read):
        return likelihood, None
    mixture = ScaleMixture(likelihood)
    names, data = list(mixture.named(mixture.weights)), idata["fit"]
    if not all(name in data for name in names):  # of another estimator
        return likelihood, None
    mixture.condition(np.array([float(data[name]) for name in names]))
    return mixture.conditional, maximiser_of(idata, "Scales").profile(likelihood)


def estimated_v(read: HierarchicalModel, idata: az.InferenceData) -> np.ndarray:
    """v of a result in the order of the model; scores for terms with more effects than observations."""
    v = np.zeros(read.n_random)
    for effect in read.random_effects:
        own = np.ravel(idata["diagnostics"][f"{effect.name}_v"].values)
        v[effect.index] = own if effect.wide is None else effect.wide.scores(own)
    return v


def read_again(model: Any, idata: az.InferenceData) -> HierarchicalModel:
    """The model of a result, as it was fitted."""
    described = model_of(idata)
    names = [effect["name"] for effect in described["random_effects"]]
    pymc_model = as_pymc(model)
    if missing := sorted(set(names) - set(pymc_model.named_vars)):
        raise ModelError(f"This result is not of this model: the model has no {missing}.")
    reader = read_penalised if idata["fit"].attrs.get("priors") == "penalise" else read_model
    arguments: dict[str, Any] = {"random": names, "fixed": held_fixed(idata), "weights": prior_weights(idata)}
    given = relative_variances(idata)
    if given:
        product = read_model(pymc_model, **arguments, relative_variances=given)
        arguments["relative_variances"] = _without_own_factors(product, given)
    read = reader(pymc_model, **arguments)
    read = _with_quasi_dispersions(read, described)
    _check_same(read, idata, described)
    return read


def _without_own_factors(product: HierarchicalModel, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `hem` gave, of stored relative variances, which are products with factors that the graph may have.

    `product` is the model read with the stored ones, so that its own factors count twice there.
    """
    found = {}
    for effect in product.random_effects:
        if effect.name in given and effect.wide is not None and effect.wide.weight is not None:
            stored = given[effect.name]
            own = np.divide(effect.wide.weight, stored, out=np.ones_like(stored), where=stored > 0)
            found[effect.name] = stored / own
    return found


def held_fixed(idata: az.InferenceData) -> dict[str, np.ndarray]:
    """Values at which parameters were held."""
    return {k: np.asarray(value, float) for k, value in json.loads(idata["fit"].attrs.get("fixed", "{}")).items()}


def prior_weights(idata: az.InferenceData) -> dict[str, np.ndarray]:
    """Prior weights that were given to `fit`, by response."""
    names = [response["name"] for response in model_of(idata)["responses"]]
    found = {name: f"{name}_prior_weight" for name in names}
    return {name: idata["diagnostics"][key].values for name, key in found.items() if key in idata["diagnostics"]}


def relative_variances(idata: az.InferenceData) -> dict[str, np.ndarray]:
    """Relative variances that `hem` gave to the elements of random effects, by name; not those of the graph."""
    given = [e["name"] for e in model_of(idata)["random_effects"] if e["distribution"].endswith(RELATIVE)]
    return {name: np.ravel(idata["diagnostics"][f"{name}_relative_variance"].values) for name in given}


def _with_quasi_dispersions(read: HierarchicalModel, described: dict[str, Any]) -> HierarchicalModel:
    here = {parameter.name for parameter in read.parameters}
    added = [p["name"] for p in described["parameters"] if p["name"] not in here]
    if not added:
        return read
    wanted = {f"{r.name}_dispersion": r.name for r in read.responses}
    if not set(added) <= set(wanted):
        raise ModelError(f"This result is not of this model: the model has no {sorted(set(added) - set(wanted))}.")
    return with_quasi_dispersion(read, {wanted[name]: "estimate" for name in added})


def _check_same(read: HierarchicalModel, idata: az.InferenceData, described: dict[str, Any]) -> None:
    parameters = {p.name: p.variable.value_name for p in read.parameters}
    if parameters != {p["name"]: p["value_name"] for p in described["parameters"]}:
        raise ModelError(
            f"This result is not of this model: its parameters are {[p['name'] for p in described['parameters']]}, "
            f"the model's {sorted(parameters)}."
        )
    for parameter in read.parameters:
        name = parameter.variable.value_name
        if idata["unconstrained_estimates"][name].size != parameter.index.stop - parameter.index.start:
            raise ModelError(f"This result is not of this model: {parameter.name!r} has another size there.")
    effects = {e.name: (e.variable.value_name, e.levels) for e in read.random_effects}
    if effects != {e["name"]: (e["value_name"], e["levels"]) for e in described["random_effects"]}:
        raise ModelError(
            f"This result is not of this model: its random effects are {described['random_effects']}, the model's "
            f"{effects}."
        )
    for name, (_, value) in read.constant_data.items():
        then = idata["constant_data"][name].values if "constant_data" in idata.groups() else None
        if then is None or then.shape != value.shape or not np.array_equal(then, value, equal_nan=True):
            raise ModelError(
                f"The container {name!r} holds other data than when this result was fitted: pass the model as it was "
                f"fitted; new data go to predict(..., data=...)."
            )
    for response in read.responses:
        found = np.ravel(idata["observed_data"][response.name].values)
        counts = response.y if response.trials is None else response.y * response.trials
        if found.shape != counts.shape or not np.allclose(found, counts, rtol=1e-8):
            raise ModelError(
                f"This result was fitted to other data of {response.name!r} than the model holds now: pass the model "
                f"as it was fitted; new data go to predict(..., data=...)."
            )


def _expected(read: HierarchicalModel, beta: np.ndarray, v: np.ndarray, theta: np.ndarray) -> Bordered:
    """H with the expected weights, as EQL has it."""
    augmented = AugmentedModel(read)
    point = augmented.at(beta, v, dispersions(read, theta))
    if point is None:
        raise ModelError("The model has no value at the estimates of this result: it is not of this model.")
    return augmented.factor(point)


def _observed(likelihood: HLikelihood, beta: np.ndarray, v: np.ndarray, theta: np.ndarray) -> Bordered:
    """H with the observed weights."""
    profile = Profile(likelihood, integrate_beta=True)
    point = likelihood.at(beta, v, theta)
    if point is None:
        raise ModelError("The model has no value at the estimates of this result: it is not of this model.")
    try:
        return profile.system.factor(point.weight, point.random_weight)
    except NotPositiveDefinite as error:
        raise ModelError(f"The information on the random effects is singular at these estimates: {error}") from error
