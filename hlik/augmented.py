r"""The augmented generalised linear model: responses and random effects fitted together, given the dispersions.

For fixed dispersions, EQL estimates of (beta, v) solve the mixed-model equations of the augmented data
(Lee & Nelder 1996, section 3)

.. math:: X'W(z - \eta) = 0, \qquad Z'W(z - \eta) + k'(v)/\lambda = 0,

with IWLS weights ``W = w (d mu / d eta)^2 / (phi V(mu))`` and the kernels k(v) of the random effects
(`hlik.random_families`). One iteration is a Fisher-scoring step with the bordered sparse matrix

.. math:: H = \begin{pmatrix} X'WX & X'WZ \\ Z'WX & Z'WZ + D \end{pmatrix}, \qquad D = -k''(v)/\lambda,

halved where the quasi-likelihood would fall or a mean would leave its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hlik.errors import ModelError
from hlik.linalg import Bordered, BorderedSystem, NotPositiveDefinite
from hlik.model import HierarchicalModel, Response

MAX_HALVINGS = 30
TINY_SLOPE = 1e-10  # log-likelihood units: nothing left to gain


@dataclass(frozen=True, eq=False)
class Dispersions:
    """phi of each response and lam of each term at one theta; arrays of size 1 or of the response or term."""

    phi: tuple[np.ndarray, ...]
    lam: tuple[np.ndarray, ...]

    def valid(self) -> bool:
        """Whether all are positive and finite."""
        return all(bool(np.all(np.isfinite(part)) and np.all(part > 0)) for part in (*self.phi, *self.lam))


@dataclass(frozen=True, eq=False)
class Point:
    """The augmented model at one (beta, v): predictor, means, weights and scores.

    `weight` and `score` have shape (N,), `random_weight` (the diagonal of D) and `random_score` shape (q,).
    """

    beta: np.ndarray
    v: np.ndarray
    eta: np.ndarray
    mu: np.ndarray
    weight: np.ndarray
    score: np.ndarray
    random_weight: np.ndarray
    random_score: np.ndarray


def dispersions(model: HierarchicalModel, theta: np.ndarray) -> Dispersions:
    """Evaluate phi(theta) and lam(theta); phi is 1 where the family has none."""
    one = np.ones(1)
    phi = tuple(one if r.dispersion is None else r.dispersion.value(theta) for r in model.responses)
    return Dispersions(phi, tuple(e.dispersion.value(theta) for e in model.random_effects))  # type: ignore[union-attr]


class AugmentedModel:
    """The augmented model of one `HierarchicalModel`; the sparse pattern is analysed once, here.

    Parameters
    ----------
    model
        A model without obstacles: every response and random effect has its family.
    """

    def __init__(self, model: HierarchicalModel):
        self.model = model
        self.system = BorderedSystem(model.X, model.Z)

    def predictor(self, beta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``X @ beta + Z @ v + offset``, shape (N,)."""
        eta = self.model.offset + self.model.X @ beta
        return eta + self.model.Z @ v if v.size else eta

    def start_v(self) -> np.ndarray:
        """v at the mode of its density, shape (q,)."""
        v = np.zeros(self.model.n_random)
        for effect in self.model.random_effects:
            v[effect.index] = effect.family.mode  # type: ignore[union-attr]
        return v

    def at(self, beta: np.ndarray, v: np.ndarray, spread: Dispersions) -> Point | None:
        """The model at (beta, v); None where a mean or an effect is outside its range."""
        return self.at_predictor(beta, v, self.predictor(beta, v), spread)

    def at_predictor(
        self, beta: np.ndarray, v: np.ndarray, eta: np.ndarray, spread: Dispersions
    ) -> Point | None:
        """As `at`, with the predictor already known."""
        mu, weight, score = np.empty_like(eta), np.empty_like(eta), np.empty_like(eta)
        for response, phi in zip(self.model.responses, spread.phi, strict=True):
            rows, family, link = response.rows, response.family, response.link
            assert family is not None
            assert link is not None
            part = eta[rows]
            if not np.all(link.valid_eta(part)):
                return None
            mu[rows], weight[rows], score[rows] = family.working(response.y, part, link, phi, response.weight)
            if not np.all(family.valid_mean(mu[rows])):
                return None
        random_weight, random_score = np.empty_like(v), np.empty_like(v)
        for effect, lam in zip(self.model.random_effects, spread.lam, strict=True):
            own, term = v[effect.index], effect.family
            assert term is not None
            if not np.all(term.valid(own)):
                return None
            curvature, slope = term.working(own)
            random_weight[effect.index], random_score[effect.index] = curvature / lam, slope / lam
        finite = np.isfinite(score.sum()) and np.isfinite(weight.sum()) and np.isfinite(random_score.sum())
        return Point(beta, v, eta, mu, weight, score, random_weight, random_score) if finite else None

    def objective(self, point: Point, spread: Dispersions) -> float:
        """The quasi-likelihood ``-(sum w d / phi + sum d(v) / lam) / 2``: zero where all deviances are."""
        total = 0.0
        for response, phi in zip(self.model.responses, spread.phi, strict=True):
            total -= 0.5 * float(np.sum(deviance_components(response, point.mu[response.rows]) / phi))
        for effect, lam in zip(self.model.random_effects, spread.lam, strict=True):
            total -= 0.5 * float(np.sum(effect.family.deviance(point.v[effect.index]) / lam))  # type: ignore[union-attr]
        return total

    def factor(self, point: Point) -> Bordered:
        """Factor H at a point; a singular H is a `ModelError` that names the column."""
        try:
            return self.system.factor(point.weight, point.random_weight)
        except NotPositiveDefinite as error:
            raise ModelError(self._singular_message(error)) from error

    def _singular_message(self, error: NotPositiveDefinite) -> str:
        column = error.column
        if isinstance(column, tuple):
            return (
                f"The fixed effect {self.model.X_names[column[1]]!r} cannot be told from the others (X is rank "
                f"deficient, or the data are separated): drop a column or recode the factor."
            )
        for effect in self.model.random_effects:
            if effect.index.start <= column < effect.index.stop:
                return (
                    f"The information on level {column - effect.index.start} of {effect.name!r} is singular."
                )
        return "The weighted design matrix is singular."

    def scores(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the quasi-likelihood with respect to beta, shape (p,), and v, shape (q,)."""
        beta_score = point.score @ self.model.X
        v_score = self.model.Z.T @ point.score + point.random_score if point.v.size else point.random_score
        return beta_score, v_score

    def step(
        self, point: Point, direction: tuple[np.ndarray, np.ndarray], spread: Dispersions, slope: float
    ) -> tuple[Point, float]:
        """Move along `direction`, halving until the step is acceptable; the new point and the step length.

        `slope` is the derivative of the quasi-likelihood along the direction. A step is acceptable where that has
        fallen by a tenth or more (curvature condition; for log-concave models the quasi-likelihood has then risen),
        or else where the quasi-likelihood has risen (Armijo, 1e-4), which costs a pass over the deviances. A negative
        or tiny slope means that the direction solves other equations (HL11), or rounding: then only ranges count.
        """
        d_beta, d_v = direction
        d_eta = self.model.X @ d_beta + (self.model.Z @ d_v if d_v.size else 0.0)
        length = 1.0
        for _ in range(MAX_HALVINGS):
            moved = point.beta + length * d_beta, point.v + length * d_v, point.eta + length * d_eta
            new = self.at_predictor(*moved, spread)
            if new is not None:
                after = float(d_eta @ new.score + d_v @ new.random_score)
                if slope <= TINY_SLOPE or abs(after) <= 0.9 * slope or self._rises(point, new, spread, length * slope):
                    return new, length
            length *= 0.5
        return point, 0.0

    def _rises(self, point: Point, new: Point, spread: Dispersions, expected: float) -> bool:
        before = self.objective(point, spread)
        return self.objective(new, spread) >= before + 1e-4 * expected - 1e-12 * abs(before)


def deviance_components(response: Response, mu: np.ndarray) -> np.ndarray:
    """``w_i d(y_i, mu_i)`` of a response, shape (n,)."""
    assert response.family is not None
    return response.weight * response.family.unit_deviance(response.y, mu)


def random_deviances(model: HierarchicalModel, v: np.ndarray) -> np.ndarray:
    """Deviance components ``2 (k(mode) - k(v))`` of all random effects, shape (q,)."""
    parts = [effect.family.deviance(v[effect.index]) for effect in model.random_effects]  # type: ignore[union-attr]
    return np.concatenate(parts) if parts else np.zeros(0)


def response_deviances(model: HierarchicalModel, mu: np.ndarray) -> np.ndarray:
    """Deviance components of all responses, stacked, shape (N,)."""
    parts: Sequence[np.ndarray] = [
        deviance_components(response, mu[response.rows]) for response in model.responses
    ]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
