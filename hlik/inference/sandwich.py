r"""Cluster-robust (sandwich) standard errors by groups of observations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hlik.adjusted_profile import Mode, Profile, prior_inverse
from hlik.batch import Batch
from hlik.blocks import Blocks
from hlik.errors import ModelError
from hlik.estimators.agq_profile import QuadratureProfile, case_blocks
from hlik.estimators.kinked_profile import KinkedProfile
from hlik.hlikelihood import HLikelihood
from hlik.inference.refit import estimator_of
from hlik.inference.restore import Restored, restore

STEP = 1e-3  # standard errors, for central differences of the groups' log-likelihoods
SOLVED = 1e-3  # standard errors: the step that the scores of all groups together may ask for
ESTIMATORS = "hlik.Laplace(), hlik.AGQ(), hlik.EQL() or hlik.HL(0, 1)"


def sandwich(model: Any, idata: az.InferenceData, group: ArrayLike) -> pd.DataFrame:
    r"""Covariance matrix of the estimates that does not trust the model within groups.

    Parameters
    ----------
    model
        The model that was fitted, with one response.
    idata
        Its result by `hlik.Laplace` or `hlik.AGQ`, for all parameters; by `hlik.EQL`, ``Laplace(reml=True)`` or
        ``HL(0, 1)``, ``HL(0, 2)`` for the fixed effects.
    group
        A label for every observation, in the order of the response. Observations of different groups must share no
        random effect.

    Returns
    -------
    pandas.DataFrame
        Shape (parameters, parameters), on the unconstrained scale, labelled as `hlik.vcov`; standard errors are the
        roots of its diagonal. NaN for parameters at a boundary, and for dispersion parameters where the estimator has
        no scores of them by group.

    Raises
    ------
    ModelError
        Where groups share random effects, the labels do not fit the response, or the estimator has no scores by group.

    Notes
    -----
    .. math:: A^{-1} \Big(\sum_g s_g s_g'\Big) A^{-1}

    with A the negative Hessian of the log-likelihood that the fit maximised, p_v(h) or the quadrature's, and s_g the
    score of group g's part of it (White 1982; Liang & Zeger 1986), for all parameters at once.

    A restricted likelihood is no sum over groups. EQL, ``Laplace(reml=True)`` and HL(0, .) find the fixed effects by
    ``X' dh/deta = 0`` at the mode of h in v: s_g is group g's part of that, A the Schur complement
    ``X'WX - X'WZ C^-1 Z'WX``, and dispersions count as known. For normal responses s_g is
    ``X_g' V_g^-1 (y_g - X_g beta)``.

    It is right in large numbers of groups also where variances or correlations within groups are not those of the
    model, as long as what the parameters mean is; it is too small for few groups (no correction for them is made).
    Cost: two Newton searches (or quadratures) a parameter, no loop over groups; one factorisation for fixed effects.

    References
    ----------
    White, H. (1982). Econometrica 50, 1-25.
    Liang, K.-Y. & Zeger, S. L. (1986). Biometrika 73, 13-22.

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
    >>> idata = hlik.fit(model, "laplace", progressbar=False)
    >>> float(np.sqrt(hlik.sandwich(model, idata, group).loc["mean", "mean"]).round(3))
    0.522
    """
    fitted = restore(model, idata)
    labels = [str(label) for label in idata["fit"]["parameter"].values]
    profile = _profile(idata, fitted)
    groups = Groups.of(fitted, np.asarray(group))
    scores, bread = _all_scores(fitted, groups, profile) if profile is not None else _mean_scores(fitted, groups)
    active = np.isfinite(np.diag(bread))
    used = np.where(np.outer(active, active), bread, 0.0)
    covariance = used @ scores @ scores.T @ used
    covariance[~active, :], covariance[:, ~active] = np.nan, np.nan
    return pd.DataFrame(covariance, index=labels, columns=labels)


def _profile(idata: az.InferenceData, fitted: Restored) -> Profile | None:
    """The log-likelihood that was maximised, a sum over groups; None where only the fixed effects have scores."""
    name, attributes = idata["fit"].attrs["estimator_name"], idata["fit"].attrs
    refused = ModelError(
        f"sandwich: {attributes['estimator']} has no scores by group: fit with {ESTIMATORS}."
        if attributes.get("priors", "ignore") == "ignore"
        else "sandwich: the densities of parameters belong to no group: fit with priors='ignore'."
    )
    if attributes.get("priors", "ignore") != "ignore" or name not in ("EQL", "Laplace", "AGQ", "HL"):
        raise refused
    estimator: Any = estimator_of(idata)
    if name in ("Laplace", "AGQ") and attributes["likelihood"] != "p_bv_h":
        profile = estimator.profile(HLikelihood(fitted.model))
        if type(profile) in (Profile, QuadratureProfile, KinkedProfile):
            return profile
        raise ModelError("sandwich: the scale of one multivariate t density belongs to all groups at once.")
    if getattr(estimator, "correction", None) or getattr(estimator, "mean", 0):
        raise refused
    return None


@dataclass(frozen=True, eq=False)
class Groups:
    """Which group every case, row of the design, block and random effect belongs to.

    Attributes
    ----------
    count
        Number of groups.
    case, row, block
        Shapes (cases,), (M,) and (B,); `effect` (q,).
    alone
        Cases without random effects, bool.
    """

    likelihood: HLikelihood
    count: int
    case: np.ndarray
    row: np.ndarray
    block: np.ndarray
    effect: np.ndarray
    alone: np.ndarray

    @classmethod
    def of(cls, fitted: Restored, group: np.ndarray) -> Groups:
        """Groups from the labels of observations."""
        model, likelihood = fitted.model, HLikelihood(fitted.model)
        if len(model.responses) != 1:
            raise ModelError("sandwich takes models with one response.")
        response = model.responses[0]
        if group.shape != response.variable.shape and group.shape != (response.size,):
            raise ModelError(
                f"group has shape {group.shape}; the response {response.name!r} has {response.variable.shape}."
            )
        names, member = np.unique(group.ravel(), return_inverse=True)
        blocks = Blocks.of(likelihood)
        count = blocks.size.size
        of_case = case_blocks(likelihood, blocks.local_design(likelihood.Z)[1][: likelihood.n_rows], count)
        own = of_case[: response.size]
        low, high = np.full(count + 1, names.size), np.full(count + 1, -1)
        np.minimum.at(low, own, member)
        np.maximum.at(high, own, member)
        shared = np.append((high > low)[:count], False)
        if shared.any():
            effect = next(e for e in model.random_effects if shared[blocks.member[e.index]].any())
            raise ModelError(
                f"Levels of the random effect {effect.name!r} belong to several groups, which are then not "
                f"independent: pass larger groups."
            )
        if np.any(of_case[response.size :] == count):
            raise ModelError("sandwich: a potential that no random effect enters belongs to no group.")
        block = np.maximum(high[:count], 0)
        case = np.concatenate([member, block[of_case[response.size :]]])
        return cls(likelihood, names.size, case, _rows(likelihood, case), block, block[blocks.member], of_case == count)

    def sums(self, place: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums over groups, shape (groups,)."""
        return np.bincount(place, values, minlength=self.count)


def _rows(likelihood: HLikelihood, case: np.ndarray) -> np.ndarray:
    """What belongs to the case of every row of the design, pair rows included, (M,)."""
    row, pairs, start = np.zeros(likelihood.n_rows, int), [], 0
    for term in likelihood.terms:
        own, k = case[start : start + term.n], term.n_predictors
        row[term.rows] = np.tile(own, k)
        pairs += [own] * (k * (k - 1) // 2)
        start += term.n
    return np.concatenate([row, *pairs])


def _mean_scores(fitted: Restored, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the fixed effects by group, (p + r, groups), and their inverse information, NaN for dispersions."""
    model, p = fitted.model, fitted.beta.size
    if model.theta_design is not None:
        raise ModelError(
            f"sandwich: a parameter is both mean and dispersion: fit with {ESTIMATORS.split(', hlik.E')[0]}."
        )
    point = groups.likelihood.at(fitted.beta, fitted.v, fitted.theta)
    if point is None:
        raise ModelError("sandwich: h has no value at the estimates.")
    size = p + fitted.theta.size
    scores, bread = np.zeros((size, groups.count)), np.full((size, size), np.nan)
    rows = groups.row[: point.score.size]
    for k in range(p):
        scores[k] = groups.sums(rows, model.X[:, k] * point.score)
    bread[:p, :p] = fitted.information.inverse_x
    total = scores[:p].sum(axis=1)
    if total @ bread[:p, :p] @ total > SOLVED**2:
        raise ModelError("sandwich: the scores of the fixed effects do not add up to zero: the fit did not converge.")
    return scores, bread


def _all_scores(fitted: Restored, groups: Groups, profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all parameters by group, (p + r, groups), by central differences, and the inverse information."""
    psi = np.concatenate([fitted.beta, fitted.theta])
    errors = np.sqrt(np.diag(fitted.covariance))
    scores = np.zeros((psi.size, groups.count))
    by_group = _LaplaceValues(fitted, groups, profile) if type(profile) is Profile else _BlockValues(groups, profile)
    for k in np.flatnonzero(np.isfinite(errors) & (errors > 0)):
        move = np.zeros(psi.size)
        move[k] = STEP * errors[k]
        ends = [profile.mode(psi + sign * move, fitted.beta, fitted.v) for sign in (1.0, -1.0)]
        scores[k] = by_group.difference(*ends) / (2 * move[k])
    return scores, fitted.covariance


class _BlockValues:
    """Differences of the log integrals of groups of blocks."""

    def __init__(self, groups: Groups, profile: Profile):
        assert isinstance(profile, QuadratureProfile | KinkedProfile)
        self.groups, self.profile = groups, profile

    def difference(self, up: Mode, down: Mode) -> np.ndarray:
        """Shape (groups,)."""
        groups, profile = self.groups, self.profile
        found = groups.sums(groups.block, profile.block_values(up) - profile.block_values(down))
        if groups.alone.any():
            cases = _case_values(groups.likelihood, up)[0] - _case_values(groups.likelihood, down)[0]
            found += groups.sums(groups.case[groups.alone], cases[groups.alone])
        return found


class _LaplaceValues:
    """Differences of p_v(h) by groups; the log-determinant through the inverse at the estimate."""

    def __init__(self, fitted: Restored, groups: Groups, profile: Profile):
        self.groups = groups
        psi = np.concatenate([fitted.beta, fitted.theta])
        bordered = profile.mode(psi, fitted.beta, fitted.v).bordered
        self.kappa, self.kappa_v = bordered.row_quadratics(), prior_inverse(groups.likelihood, bordered)
        pattern = groups.likelihood.prior_pattern
        self.entry = groups.effect
        if pattern is not None:
            columns = np.repeat(np.arange(groups.effect.size), np.diff(pattern.indptr))
            self.entry = groups.effect[pattern.indices]
            self.kappa_v = np.where(pattern.indices == columns, 1.0, 2.0) * self.kappa_v

    def difference(self, up: Mode, down: Mode) -> np.ndarray:
        """Shape (groups,)."""
        groups = self.groups
        cases, levels = (
            a - b for a, b in zip(*(_case_values(groups.likelihood, end) for end in (up, down)), strict=True)
        )
        weight, random_weight = up.point.weight - down.point.weight, up.point.random_weight - down.point.random_weight
        log_det = groups.sums(groups.row, self.kappa * weight) + groups.sums(self.entry, self.kappa_v * random_weight)
        return groups.sums(groups.case, cases) + groups.sums(groups.effect, levels) - 0.5 * log_det


def _case_values(likelihood: HLikelihood, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of cases and of levels, (cases,) and (q,)."""
    point = mode.point
    batch = Batch.at(likelihood, point.beta, point.v[:, None], point.theta)
    levels = np.broadcast_to(batch.level_values(), (point.v.size, 1))
    return batch.case_values()[:, 0], levels[:, 0]
