r"""Profile likelihoods of Monte Carlo EM, from the score along the curve.

At the maximum with psi_k = c held, ``dl_k/dc = E(dh/dpsi_k | y)`` (Fisher's identity), which the last sample of a
constrained fit gives with a small error; where Newton's step of the others is not zero, less what that step changes,
``E(g_k) - I_{ka} I_{aa}^{-1} E(g_a)``. So the curve is the integral of these slopes,

.. math:: l_k(c) = l(\hat\psi) + \int_{\hat\psi_k}^{c} \frac{dl_k}{dc}\, dc,

by a cubic spline through them. Differences of log-likelihoods that are each known with an error would be far noisier.
The same sampler serves all points: compiled once, positions carried on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import arviz as az
import numpy as np
from scipy import optimize
from scipy.interpolate import CubicSpline

from hlik.estimators.base import RUNNING
from hlik.estimators.mcem_base import MonteCarloEM
from hlik.estimators.mcem_state import EMState, values_of
from hlik.graph.read import as_pymc
from hlik.inference.profiling import WIDEST, Curve
from hlik.inference.refit import estimator_of
from hlik.inference.restore import held_fixed, prior_weights, read_again
from hlik.samplers.source import Source

POINTS = 3  # of each side up to the quantile, at the least
MOST = 4  # times as many before a side is said to have no end
LEVEL = 1e-2  # rise of the log-likelihood over a standard error below which it is level


@dataclass(frozen=True, eq=False)
class MonteCarloCurve(Curve):
    """A profile with its Monte Carlo standard errors: of the log-likelihood less that of the estimate."""

    log_likelihood_mcse: np.ndarray


def is_monte_carlo(idata: az.InferenceData) -> bool:
    """Whether a result is by Monte Carlo EM or its stochastic approximation."""
    return "em" in idata.groups()


class MonteCarloProfiler:
    """Constrained maxima by Monte Carlo EM.

    Parameters
    ----------
    model
        The model of the fit.
    idata
        A result of `hlik.MCEM` or `hlik.SAEM`; its settings are used again, with a random seed of 0.
    """

    restricted = False

    def __init__(self, model: Any, idata: az.InferenceData):
        read = read_again(model, idata)
        weighted = bool(prior_weights(idata))
        self.model = replace(read, source=Source(as_pymc(model), held_fixed(idata), weighted=weighted))
        estimator = estimator_of(idata)
        assert isinstance(estimator, MonteCarloEM)
        self.settings = estimator
        rng = np.random.default_rng(0)
        self.first: EMState = estimator.prepare(self.model, values_of(idata, self.model), rng)
        self.psi = np.empty(read.n_beta + read.n_theta)
        for p in read.parameters:
            start = 0 if p.natural is None else read.n_beta
            own = np.ravel(idata["unconstrained_estimates"][p.variable.value_name].values)
            self.psi[start + p.index.start : start + p.index.stop] = own
        self.covariance = np.asarray(idata["fit"]["covariance_matrix"])
        self.best = float(idata["fit"]["log_likelihood"])

    def psi_index(self, index: slice, is_fixed_effect: bool, name: str) -> np.ndarray:
        """Places of a parameter's elements in psi."""
        return np.arange(index.start, index.stop) + (0 if is_fixed_effect else self.model.n_beta)

    def curve(self, k: int, quantile: float, points: int = 0) -> MonteCarloCurve:
        """The profile of psi[k] out to ``|zeta| = quantile`` on both sides, or until it is level."""
        error = float(np.sqrt(self.covariance[k, k]))
        if not np.isfinite(error) or (k >= self.model.n_beta and error > WIDEST):
            error = WIDEST
        step = quantile * error / max(points, POINTS)
        sides = [self._side(k, way * step, quantile, max(points, POINTS)) for way in (-1.0, 1.0)]
        value = np.concatenate([sides[0][0][::-1], self.psi[k : k + 1], sides[1][0]])
        slope = np.concatenate([sides[0][1][::-1], [0.0], sides[1][1]])
        slope_error = np.concatenate([sides[0][2][::-1], [0.0], sides[1][2]])
        centre = sides[0][0].size
        integral = CubicSpline(value, slope).antiderivative()
        offset = float(integral(self.psi[k]))
        log_likelihood = self.best + integral(value) - offset
        deviance = 2 * np.maximum(self.best - log_likelihood, 0.0)
        zeta = np.sign(value - self.psi[k]) * np.sqrt(deviance)
        ends = []
        for edge, inner in ((0, centre), (-1, centre)):
            if abs(zeta[edge]) < quantile:
                ends.append(np.inf * (1 if edge else -1))
                continue
            ends.append(
                optimize.brentq(
                    lambda c: 2 * (offset - float(integral(c))) - quantile**2, value[inner], value[edge], xtol=1e-8
                )
            )
        errors = _integral_errors(value, slope_error, centre)
        return MonteCarloCurve(value, zeta, log_likelihood, ends[0], ends[1], errors)

    def _side(self, k: int, step: float, quantile: float, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, slopes of the profile there, and their errors, in the order away from the estimate."""
        found: list[tuple[float, float, float]] = []
        state, psi, drop, last = self.first, self.psi.copy(), 0.0, 0.0
        for _ in range(MOST * points):
            psi = self._predicted(k, psi[k] + step, psi)
            state = self._constrained(state, k, psi)
            assert state.louis is not None
            slope, error = float(state.louis.held_score[k]), float(state.louis.held_score_mcse[k])
            found.append((float(psi[k]), slope, error))
            psi = state.psi.copy()
            drop -= 0.5 * (last + slope) * step
            last = slope
            if drop > 0.5 * (1.1 * quantile) ** 2 or abs(slope * step * points) < LEVEL:
                break
        values, slopes, errors = np.array(found).T
        return values, slopes, errors

    def _predicted(self, k: int, at: float, psi: np.ndarray) -> np.ndarray:
        """The others moved along their regression on psi[k]."""
        ratio = self.covariance[:, k] / self.covariance[k, k]
        moved = psi + np.where(np.isfinite(ratio), ratio, 0.0) * (at - psi[k])
        moved[k] = at
        return moved

    def _constrained(self, state: EMState, k: int, psi: np.ndarray) -> EMState:
        """The fit with psi[k] held, from psi."""
        p, held = self.model.n_beta, np.arange(psi.size) == k
        state = replace(state, beta=psi[:p].copy(), theta=psi[p:].copy(), held=held, phase="em", iteration=0, small=0)
        draws = self.settings.draws if state.draws is None else max(self.settings.draws, state.draws.count // 4)
        state = replace(state, polished=0, louis=None, memory=(), gone=(), released=(), stopped="", next_draws=draws)
        for _ in range(self.settings.max_iterations):
            state, _row = self.settings.step(state)
            if self.settings.status(state) != RUNNING:
                break
        return state


def _integral_errors(value: np.ndarray, error: np.ndarray, centre: int) -> np.ndarray:
    """Monte Carlo standard errors of the integrals from the centre, by the weights of the trapezoidal rule."""
    found = np.zeros(value.size)
    for way in (-1, 1):
        stop = 0 if way < 0 else value.size - 1
        done = 0.0
        for at in range(centre + way, stop + way, way):
            half = 0.5 * abs(value[at] - value[at - way])
            found[at] = np.sqrt(done + (half * error[at]) ** 2)
            beyond = 0.5 * abs(value[at + way] - value[at]) if at != stop else 0.0
            done += ((half + beyond) * error[at]) ** 2
    return found
