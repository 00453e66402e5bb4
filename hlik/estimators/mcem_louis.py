r"""Louis' identity, the last Newton step, and their Monte Carlo errors.

With g = dh/dpsi and the draws of v given y at psi (Louis 1982),

.. math:: I(\psi) = E(-\partial^2 h) - \mathrm{cov}(g), \qquad \ell'(\psi) = E(g), \qquad
          \hat\psi = \psi + I^{-1} E(g),

where ``cov(g) = sum_b cov(g_b)`` over independent blocks of random effects (the products of different blocks have
expectation zero, and are left out: they are noise only). The Monte Carlo covariance of the estimate is that of the mean
of the influences ``I^{-1} g``.

All of it holds for h of any completion of the data. With v itself the two parts of I may be a hundred times their
difference, as for an intercept and groups with many observations: each group then pins down the sum of both. Draws that
follow the fixed effects (`following`) leave little to subtract: g is then ``dh/dpsi + A' dh/dv`` with
``A = d v / d beta``, and ``dh/dv`` has mean zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.blocks import Blocks
from hlik.estimators.mcem_expect import Expected
from hlik.hlikelihood import HLikelihood
from hlik.importance_shift import Shift
from hlik.samplers.base import Draws

BATCHES = 16


@dataclass(frozen=True, eq=False)
class Louis:
    """Information and Newton's step at one psi.

    Attributes
    ----------
    information
        Of the observed data, (p + r, p + r); `information_mcse` its Monte Carlo standard errors.
    covariance
        Its inverse; NaN where it is not positive definite, and for elements of psi that are held.
    step
        ``I^-1 E(g)``, zero where it is not positive definite.
    mcse_covariance
        Monte Carlo covariance of the estimate.
    standard_error_mcse
        Monte Carlo standard errors of the standard errors.
    held_score, held_score_mcse
        For elements of psi that are held: the derivative of the log-likelihood along the maxima over the others,
        ``E(g_k) - I_ka I_aa^-1 E(g_a)``, and its Monte Carlo standard error; NaN for the others.
    slope
        ``cov(v, g)``, shape (q, p + r): the derivative of E(v | y) by psi.
    draws_needed
        Draws with which an information that is not positive definite would be told from a singular one.
    """

    information: np.ndarray
    information_mcse: np.ndarray
    covariance: np.ndarray
    step: np.ndarray
    mcse_covariance: np.ndarray
    standard_error_mcse: np.ndarray
    held_score: np.ndarray
    held_score_mcse: np.ndarray
    slope: np.ndarray
    draws_needed: int | None

    @property
    def is_positive_definite(self) -> bool:
        """Whether there are standard errors."""
        return self.draws_needed is None

    @property
    def standard_errors(self) -> np.ndarray:
        """Of psi, shape (p + r,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def mcse(self) -> np.ndarray:
        """Monte Carlo standard errors of psi."""
        return np.sqrt(np.diag(self.mcse_covariance))

    @property
    def worst_share(self) -> float:
        """The largest Monte Carlo error, of an estimate or of a standard error, as a share of its standard error."""
        worst = np.maximum(self.mcse, self.standard_error_mcse) / self.standard_errors
        return float(np.max(worst[np.isfinite(worst)], initial=0.0))

    @property
    def noise(self) -> float:
        """Expected length of the step at the maximum, in standard errors: Monte Carlo error alone."""
        return float(np.sqrt(max(np.nansum(self.information * self.mcse_covariance), 0.0)))

    @property
    def decrement(self) -> float:
        """Length of the step in standard errors."""
        return float(np.sqrt(max(self.step @ self.information @ self.step, 0.0)))


def louis_at(likelihood: HLikelihood, draws: Draws, beta: np.ndarray, theta: np.ndarray, active: np.ndarray) -> Louis:
    """Everything from one sample of v given y at (beta, theta); elements of psi that are not active are known."""
    columns = draws.columns
    shift = following(likelihood, columns.mean(axis=1), beta, theta)
    scores = Expected(likelihood, columns, shift).scores(beta, theta)
    mean = scores.mean(axis=1)
    batches = [Expected(likelihood, part, shift) for part in np.array_split(columns, BATCHES, axis=1)]
    share = np.array([batch.m for batch in batches]) / columns.shape[1]
    parts = _informations(likelihood, batches, share, beta, theta)
    information = np.einsum("b,bij->ij", share, np.array(parts))
    information_mcse = np.std(parts, axis=0, ddof=1) / np.sqrt(BATCHES)
    centred = columns - columns.mean(axis=1, keepdims=True)
    slope = centred @ (scores - mean[:, None]).T / columns.shape[1]
    if shift is not None:  # cov(v, A' dh/dv) = -A
        slope[:, : beta.size] += shift.slope
    size, own = mean.size, np.ix_(active, active)
    covariance, mcse_covariance = np.full((size, size), np.nan), np.full((size, size), np.nan)
    step, errors = np.zeros(size), np.full(size, np.nan)
    held_score, held_error = np.full(size, np.nan), np.full(size, np.nan)
    needed = None
    try:
        np.linalg.cholesky(information[own])
    except np.linalg.LinAlgError:
        needed = _needed(information[own], np.array([part[own] for part in parts]), draws.count)
    if needed is None and active.any():
        inverse = np.linalg.inv(information[own])
        covariance[own] = inverse
        step[active] = inverse @ mean[active]
        mcse_covariance[own] = draws.mean_covariance(inverse @ scores[active])
        change = np.array([np.diag(inverse @ (part - information)[own] @ inverse) for part in parts])
        errors[active] = np.std(change, axis=0, ddof=1) / np.sqrt(BATCHES) / (2 * np.sqrt(np.diag(inverse)))
    if needed is None and not active.all():
        across = information[np.ix_(~active, active)] @ (inverse if active.any() else np.zeros((0, 0)))
        along = scores[~active] - across @ scores[active]
        held_score[~active], held_error[~active] = along.mean(axis=1), np.sqrt(np.diag(draws.mean_covariance(along)))
    return Louis(
        information,
        information_mcse,
        covariance,
        step,
        mcse_covariance,
        errors,
        held_score,
        held_error,
        slope,
        needed,
    )


def following(likelihood: HLikelihood, v: np.ndarray, beta: np.ndarray, theta: np.ndarray) -> Shift | None:
    """How draws follow the fixed effects: as a maximum of h in v would with the curvature at `v`, shape (q,).

    None without fixed effects, and where h has no value there. Effects that must be positive stay.
    """
    point = likelihood.at(beta, v, theta)
    if not beta.size or point is None:
        return None
    try:
        factor = Profile(likelihood)._factor(point)[0].factor_z
    except ModeError:
        return None
    slope = -factor.solve(likelihood.Z.T @ (point.weight[:, None] * likelihood.X))
    for effect in likelihood.model.random_effects:
        if effect.family is not None and not np.all(effect.family.valid(np.array([-1.0, 0.0]))):
            slope[effect.index] = 0.0
    return Shift(beta.copy(), slope)


def _informations(
    likelihood: HLikelihood, batches: list[Expected], share: np.ndarray, beta: np.ndarray, theta: np.ndarray
) -> list[np.ndarray]:
    """Louis' information of every part of the draws, scores centred at the means of all."""
    blocks = Blocks.of(likelihood)
    sums = blocks.case_sums(), blocks.level_sums()
    moments = [batch.block_moments(beta, theta, *sums) for batch in batches]
    centre = np.einsum("s,skb->kb", share, np.array([first for first, _ in moments]))
    parts = []
    for batch, (first, second) in zip(batches, moments, strict=True):
        covariance = second - first @ centre.T - centre @ first.T + centre @ centre.T
        parts.append(-batch.derivatives(beta, theta)[1] - covariance)
    return parts


def _needed(information: np.ndarray, parts: np.ndarray, count: int) -> int:
    """Draws at which the least eigenvalue would lie two of its standard errors from where it is now."""
    values, vectors = np.linalg.eigh(information)
    u = vectors[:, 0]
    error = np.std(np.einsum("i,bij,j->b", u, parts, u), ddof=1) / np.sqrt(len(parts))
    return int(np.ceil(count * max((2 * error / max(abs(values[0]), 1e-3 * error)) ** 2, 4.0)))
