r"""The augmented generalised linear model: responses and random effects fitted together, given the dispersions.

For fixed dispersions, EQL estimates of (beta, v) solve the mixed-model equations of the augmented data
(Lee & Nelder 1996, section 3)

.. math:: X'W(z - \eta) = 0, \qquad Z'W(z - \eta) + k'(v)/\lambda = 0,

with IWLS weights ``W = w (d mu / d eta)^2 / (phi V(mu))`` and the kernels k(v) of the random effects
(`hlik.random_families`). One iteration is a Fisher-scoring step with the bordered sparse matrix

.. math:: H = \begin{pmatrix} X'WX & X'WZ \\ Z'WX & Z'WZ + D \end{pmatrix}, \qquad D = -k''(v)/\lambda,

halved where the quasi-likelihood would fall or a mean would leave its range. With the observed weights
``-d2 l / d eta2`` in the place of W it is Newton's step; for canonical links the two are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from hlik.errors import ModelError
from hlik.linalg import Bordered, NotPositiveDefinite
from hlik.model import HierarchicalModel, Response
from hlik.precision import LOG_2PI, PrecisionPoint
from hlik.row_chunks import ARRAYS, of_rows, row_chunks

MAX_HALVINGS = 30
MAX_ETA_STEP = 5.0  # on the scale of a log or a logit: further away the quasi-likelihood may be flat
SCALED_LINKS = {"identity", "inverse", "inverse_squared", "sqrt"}  # predictors in the units of the data


@dataclass(frozen=True, eq=False)
class Dispersions:
    """phi of each response and lam of each term at one theta; arrays of size 1 or of the response or term.

    A term with a joint density has its precision among `precisions`, and 1 for lam: NaN where there is none that is
    positive definite.
    """

    phi: tuple[np.ndarray, ...]
    lam: tuple[np.ndarray, ...]
    precisions: tuple[PrecisionPoint | None, ...] = ()

    def valid(self) -> bool:
        """Whether all are positive and finite."""
        return all(bool(np.all(np.isfinite(part)) and np.all(part > 0)) for part in (*self.phi, *self.lam))


@dataclass(frozen=True, eq=False)
class Point:
    """The augmented model at one (beta, v): predictor, weights, scores, quasi-likelihood.

    `weight` and `score` have shape (N,), `random_score` shape (q,), `random_weight` has the values of D on its pattern
    (`HierarchicalModel.prior`): its diagonal, shape (q,), where no effects have a joint density;
    `objective` is ``-(sum(w d / phi) + sum(d(v) / lam)) / 2`` up to a function of y and phi, d(v) the deviances of the
    random effects.
    """

    beta: np.ndarray
    v: np.ndarray
    eta: np.ndarray
    mu: np.ndarray
    weight: np.ndarray
    score: np.ndarray
    random_weight: np.ndarray
    random_score: np.ndarray
    objective: float


def dispersions(model: HierarchicalModel, theta: np.ndarray) -> Dispersions:
    """Evaluate phi(theta) and lam(theta); phi is 1 where the family has none."""
    one = np.ones(1)
    phi = tuple(one if r.dispersion is None else r.dispersion.value(theta) for r in model.responses)
    if model.prior.matrix is None:
        return Dispersions(phi, tuple(e.dispersion.value(theta) for e in model.random_effects))  # type: ignore[union-attr]
    precisions = tuple(None if e.precision is None else e.precision.at(theta) for e in model.random_effects)
    lam = [
        e.dispersion.value(theta) if e.dispersion is not None else np.full(1, np.nan if found is None else 1.0)
        for e, found in zip(model.random_effects, precisions, strict=True)
    ]
    return Dispersions(phi, tuple(lam), precisions)


class AugmentedModel:
    """The augmented model of one `HierarchicalModel`; the sparse pattern is analysed once, here.

    Parameters
    ----------
    model
        A model without obstacles: every response and random effect has its family.
    """

    def __init__(self, model: HierarchicalModel):
        self.model = model
        self.system = model.system
        self.is_canonical = all(r.link == r.family.canonical_link for r in model.responses)  # type: ignore[union-attr]

    def with_model(self, model: HierarchicalModel) -> AugmentedModel:
        """Another model with the same design: the analysis of its pattern serves again."""
        other = copy(self)
        other.model = model
        return other

    def predictor(self, beta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``X @ beta + Z @ v + offset``, shape (N,)."""
        eta = self.model.offset + self.model.X @ beta
        return eta + self.model.Z @ v if v.size else eta

    def start_v(self) -> np.ndarray:
        """v at the mode of its density, shape (q,)."""
        v = np.zeros(self.model.n_random)
        for effect in self.model.random_effects:
            v[effect.index] = 0.0 if effect.family is None else effect.family.mode
        return v

    def at(self, beta: np.ndarray, v: np.ndarray, spread: Dispersions) -> Point | None:
        """The model at (beta, v); None where a mean or an effect is outside its range."""
        return self.at_predictor(beta, v, self.predictor(beta, v), spread)

    def at_predictor(self, beta: np.ndarray, v: np.ndarray, eta: np.ndarray, spread: Dispersions) -> Point | None:
        """As `at`, with the predictor already known."""
        mu, weight, score = np.empty_like(eta), np.empty_like(eta), np.empty_like(eta)
        objective = 0.0
        for response, phi in zip(self.model.responses, spread.phi, strict=True):
            rows, family, link = response.rows, response.family, response.link
            assert family is not None
            assert link is not None
            if not np.all(link.valid_eta(eta[rows])):
                return None
            for chunk in row_chunks(response.size, ARRAYS):
                among = slice(rows.start + chunk.start, rows.start + chunk.stop)
                y, part, w = response.y[chunk], eta[among], of_rows(response.weight, chunk)
                found = family.working(y, part, link, of_rows(phi, chunk), w)
                mu[among], weight[among], score[among] = found
                scale = w / of_rows(phi, chunk)
                kernel = family.kernel(y, part, found.mu, link)
                objective += float(kernel.sum() * scale[0] if scale.size == 1 else kernel @ scale)
            if not np.all(family.valid_mean(mu[rows])):
                return None
        random_weight, random_score = np.empty(self.model.prior.nnz), np.empty_like(v)
        for k, (effect, lam) in enumerate(zip(self.model.random_effects, spread.lam, strict=True)):
            own, term, entries = v[effect.index], effect.family, self.model.prior.entries[k]
            if effect.precision is not None:
                random_weight[entries] = spread.precisions[k].values  # type: ignore[union-attr]
                product = effect.precision.multiply(random_weight[entries], own)
                random_score[effect.index] = -product
                objective -= 0.5 * float(own @ product)
                continue
            assert term is not None
            if not np.all(term.valid(own)):
                return None
            curvature, slope = term.working(own)
            random_weight[entries], random_score[effect.index] = curvature / lam, slope / lam
            objective -= 0.5 * float(np.sum(term.deviance(own) / lam))
        if not np.isfinite(objective):
            return None
        return Point(beta, v, eta, mu, weight, score, random_weight, random_score, objective)

    def factor(self, point: Point) -> Bordered:
        """Factor H at a point; a singular H is a `ModelError` that names the column."""
        try:
            return self.system.factor(point.weight, point.random_weight)
        except NotPositiveDefinite as error:
            raise ModelError(self._singular_message(error)) from error

    def factor_observed(self, point: Point, spread: Dispersions) -> Bordered | None:
        """Factor the negative second derivative of h in (beta, v); None where it is not positive definite."""
        try:
            return self.system.factor(observed_weights(self.model, point, spread), point.random_weight)
        except NotPositiveDefinite:
            return None

    def _singular_message(self, error: NotPositiveDefinite) -> str:
        column = error.column
        if isinstance(column, tuple):
            return (
                f"The fixed effect {self.model.X_names[column[1]]!r} cannot be told from the others (X is rank "
                f"deficient, or the data are separated): drop a column or recode the factor."
            )
        for effect in self.model.random_effects:
            if effect.index.start <= column < effect.index.stop:
                return f"The information on level {column - effect.index.start} of {effect.name!r} is singular."
        return "The weighted design matrix is singular."

    def scores(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the quasi-likelihood with respect to beta, shape (p,), and v, shape (q,)."""
        beta_score = point.score @ self.model.X
        v_score = self.model.Z.T @ point.score + point.random_score if point.v.size else point.random_score
        return beta_score, v_score

    def _longest(self, d_eta: np.ndarray) -> float:
        """The part of a step by which no predictor on a scale of its own moves by more than `MAX_ETA_STEP`."""
        largest = 0.0
        for response in self.model.responses:
            if response.link.name not in SCALED_LINKS:  # type: ignore[union-attr]
                largest = max(largest, float(np.max(np.abs(d_eta[response.rows]), initial=0.0)))
        return min(1.0, MAX_ETA_STEP / largest) if largest > 0 else 1.0

    def step(
        self, point: Point, direction: tuple[np.ndarray, np.ndarray], spread: Dispersions, slope: float
    ) -> tuple[Point, float]:
        """Move along `direction`, halving until the quasi-likelihood does not fall (Armijo, 1e-4).

        `slope` is its derivative along the direction; a negative or tiny one means that the direction solves other
        equations (HL11) or rounding: then only the ranges are checked. Returns the new point and the step length.
        """
        d_beta, d_v = direction
        d_eta = self.model.X @ d_beta + (self.model.Z @ d_v if d_v.size else 0.0)
        length = self._longest(d_eta)
        tiny = 1e-9 * (1.0 + abs(point.objective))
        for _ in range(MAX_HALVINGS):
            new = self.at_predictor(
                point.beta + length * d_beta, point.v + length * d_v, point.eta + length * d_eta, spread
            )
            if new is not None and (
                slope <= tiny or new.objective >= point.objective + 1e-4 * length * slope - 1e-12 * abs(point.objective)
            ):
                return new, length
            length *= 0.5
        return point, 0.0


def observed_weights(model: HierarchicalModel, point: Point, spread: Dispersions) -> np.ndarray:
    """``-d2 l / d eta2`` of all rows, shape (N,): the expected weights where the link is canonical."""
    return -_eta_derivatives(model, point, spread, 2)


def observed_weight_slopes(model: HierarchicalModel, point: Point, spread: Dispersions) -> np.ndarray:
    """``-d3 l / d eta3`` of all rows, shape (N,)."""
    return -_eta_derivatives(model, point, spread, 3)


def _eta_derivatives(model: HierarchicalModel, point: Point, spread: Dispersions, order: int) -> np.ndarray:
    found = np.empty(model.n_rows)
    for response, phi in zip(model.responses, spread.phi, strict=True):
        assert response.family is not None
        assert response.link is not None
        kernel = response.family.kernel_derivatives(response.y, point.eta[response.rows], response.link, order)
        found[response.rows] = kernel[order - 1] * (response.weight / phi)
    return found


def deviance_components(response: Response, mu: np.ndarray) -> np.ndarray:
    """``w_i d(y_i, mu_i)`` of a response, shape (n,)."""
    assert response.family is not None
    return response.weight * response.family.unit_deviance(response.y, mu)


def random_deviances(model: HierarchicalModel, v: np.ndarray, spread: Dispersions) -> np.ndarray:
    """Deviance components ``2 (k(mode) - k(v))`` of all random effects, shape (q,).

    An effect with a joint density has the square of its deviation from what the others predict, in standard deviations:
    ``(Qv)_j^2 / Q_jj``.
    """
    parts = [np.zeros(0)]
    for k, effect in enumerate(model.random_effects):
        own = v[effect.index]
        if effect.precision is None:
            parts.append(effect.family.deviance(own))  # type: ignore[union-attr]
        else:
            values = spread.precisions[k].values  # type: ignore[union-attr]
            diagonal = values[effect.precision.pattern.diagonal_positions()]
            parts.append(effect.precision.multiply(values, own) ** 2 / diagonal)
    return np.concatenate(parts)


def random_log_density(model: HierarchicalModel, v: np.ndarray, spread: Dispersions) -> float:
    """``log f(v)`` of all random effects."""
    total = 0.0
    for k, effect in enumerate(model.random_effects):
        own = v[effect.index]
        if effect.precision is None:
            total += float(np.sum(effect.family.log_density(own, spread.lam[k])))  # type: ignore[union-attr]
        else:
            found = spread.precisions[k]
            assert found is not None
            form = float(own @ effect.precision.multiply(found.values, own))
            total += 0.5 * (found.logdet - own.size * LOG_2PI - form)
    return total


def response_deviances(model: HierarchicalModel, mu: np.ndarray) -> np.ndarray:
    """Deviance components of all responses, stacked, shape (N,)."""
    parts: Sequence[np.ndarray] = [deviance_components(response, mu[response.rows]) for response in model.responses]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
