r"""The h-likelihood ``h = sum l_i(eta_i, theta) + sum log f(v_j; theta)`` and its derivatives, exact and observed.

Everything that Laplace-type methods need of a model comes from here, in three calls:

* `HLikelihood.at`: h, its score in the rows of eta and in v, and the observed weights ``W = -l''``, ``D = -(log f)''``;
* `HLikelihood.curvature_slopes`: derivatives of ``-1/2 (sum kappa_i W_i + sum kappa_j D_j)`` with respect to eta, v
  and theta for given kappa, which is how a log-determinant changes;
* `HLikelihood.theta_score`: d/dtheta of ``h + c' dh/d(eta, v)`` for given c, with which implicit derivatives close.

A response with several predictors (mean, dispersion, zero part) has a symmetric block of weights an observation.
Its off-diagonal ``W_ab`` enters through an extra row ``t_a + t_b`` of the design, since
``W_ab (t_a t_b' + t_b t_a') = W_ab [(t_a + t_b)(t_a + t_b)' - t_a t_a' - t_b t_b']``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import scipy.sparse as sp

from hlik.linalg import BorderedSystem
from hlik.model import HierarchicalModel, RandomEffect
from hlik.structured_terms import StructuredTerm
from hlik.student_terms import StudentTerm
from hlik.terms import FamilyTerm, FlatTerm, RandomTerm, ResponseTerm

AnyRandomTerm = RandomTerm | StructuredTerm | StudentTerm | FlatTerm


@dataclass(frozen=True, eq=False)
class HPoint:
    """h and its derivatives at one (beta, v, theta).

    `score` (N,) is dh/d eta; `weight` (M,) the weights of the design's rows, pair rows included; `random_score` and
    `random_weight` the first and negative second derivatives of the random effects' log density, (q,) and (nnz,): the
    values of D on `HLikelihood.prior_pattern`, which are its diagonal (q,) where no effects have a joint density.
    """

    beta: np.ndarray
    v: np.ndarray
    theta: np.ndarray
    eta: np.ndarray
    h: float
    score: np.ndarray
    weight: np.ndarray
    random_score: np.ndarray
    random_weight: np.ndarray


class HLikelihood:
    """h of one model, over the rows of its stacked predictors.

    Attributes
    ----------
    X, Z
        The design with pair rows appended: shapes (M, p) and (M, q), M >= N.
    prior
        The pattern of D.
    """

    def __init__(self, model: HierarchicalModel):
        self.model = model
        self.terms: list[ResponseTerm] = [
            response.term if response.term is not None else FamilyTerm(response) for response in model.responses
        ]
        self.terms += model.extra_terms
        self.random_terms = [_random_term(effect) for effect in model.random_effects]
        self.prior = model.prior
        self.pairs = _pair_rows(self.terms)
        self.X, self.Z = _with_pairs(model, self.pairs)
        self.n_rows = model.n_rows

    @property
    def prior_pattern(self) -> sp.csc_array | None:
        """The lower triangle of the pattern of D, (q, q); None where it is diagonal."""
        return self.prior.matrix

    @cached_property
    def system(self) -> BorderedSystem:
        """The pattern of H in (beta, v), analysed once: the model's own where no pair rows are added."""
        if not self.pairs:
            return self.model.system
        return BorderedSystem(self.X, self.Z, self.prior_pattern, weights_may_be_negative=True)

    def predictor(self, beta: np.ndarray, v: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """``X @ beta + Z @ v + T @ theta + offset``, shape (N,)."""
        eta = self.model.offset + self.model.X @ beta
        if self.model.theta_design is not None:
            eta = eta + self.model.theta_design @ theta
        return eta + self.model.Z @ v if v.size else eta

    def start_v(self) -> np.ndarray:
        """v at the mode of its density, shape (q,)."""
        v = np.zeros(self.model.n_random)
        for effect, term in zip(self.model.random_effects, self.random_terms, strict=True):
            v[effect.index] = term.mode
        return v

    def at(self, beta: np.ndarray, v: np.ndarray, theta: np.ndarray, eta: np.ndarray | None = None) -> HPoint | None:
        """h and its derivatives; None where they are not finite or a value is out of range."""
        if eta is None:
            eta = self.predictor(beta, v, theta)
        score, weight = np.zeros(self.n_rows), np.zeros(self.Z.shape[0])
        h, start = 0.0, self.n_rows
        for term in self.terms:
            local = term.local(eta, theta)
            if local is None:
                return None
            h += local.value
            score[term.rows] = local.score.ravel()
            start = _scatter(weight, term, local.weight, start)
        random_score, random_weight = np.zeros(v.size), np.zeros(self.prior.nnz)
        for effect, random, entries in self._random():
            found = random.local(v[effect.index], theta)
            if found is None:
                return None
            value, random_score[effect.index], random_weight[entries] = found
            h += value
        if not (np.isfinite(h) and np.all(np.isfinite(score)) and np.all(np.isfinite(weight))):
            return None
        return HPoint(beta, v, theta, eta, h, score, weight, random_score, random_weight)

    def _random(self) -> Iterator[tuple[RandomEffect, AnyRandomTerm, slice]]:
        """Every random effect, its term of h and its entries of D."""
        return zip(self.model.random_effects, self.random_terms, self.prior.entries, strict=True)

    def value(self, beta: np.ndarray, v: np.ndarray, theta: np.ndarray, eta: np.ndarray) -> float:
        """h alone; -inf out of range."""
        total = 0.0
        for term in self.terms:
            total += term.value(eta, theta)
        for effect, random in zip(self.model.random_effects, self.random_terms, strict=True):
            total += random.value(v[effect.index], theta)
        return total if np.isfinite(total) else -np.inf

    def positive_random_weight(self, point: HPoint) -> np.ndarray:
        """D with its negative parts left out or turned round: positive definite."""
        weight = point.random_weight.copy()
        for effect, random, entries in self._random():
            if isinstance(random, StudentTerm):
                weight[entries] = random.positive_weight(point.v[effect.index], point.theta)
        weight[self.prior.diagonal] = np.abs(weight[self.prior.diagonal])
        return weight

    def curvature_slopes(
        self, point: HPoint, kappa: np.ndarray, kappa_v: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of ``-1/2 (kappa' W + kappa_v' D)`` with respect to eta (N,), v (q,) and theta (r,).

        `kappa` (M,) has the quadratic forms ``t' H^-1 t`` of the design's rows, `kappa_v` the v block of H^-1 on the
        pattern of D; ``kappa_v' D`` stands for the trace, in which off-diagonal entries count twice.
        """
        s_eta, s_v, s_theta = np.zeros(self.n_rows), np.zeros(point.v.size), np.zeros(point.theta.size)
        start = self.n_rows
        for term in self.terms:
            blocks, start = _gather(kappa, term, start)
            slope, theta_slope = term.curvature_slopes(point.eta, point.theta, blocks)
            s_eta[term.rows] = slope.ravel()
            s_theta += theta_slope
        for effect, random, entries in self._random():
            index = effect.index
            s_v[index], theta_slope = random.curvature_slopes(point.v[index], point.theta, kappa_v[entries])
            s_theta += theta_slope
        return s_eta, s_v, s_theta

    def theta_score(self, point: HPoint, c_eta: np.ndarray, c_v: np.ndarray) -> np.ndarray:
        """``d/dtheta [h + c_eta' dh/deta + c_v' dh/dv]`` with eta and v held fixed, shape (r,)."""
        total = np.zeros(point.theta.size)
        for term in self.terms:
            total += term.theta_score(point.eta, point.theta, c_eta)
        for effect, random in zip(self.model.random_effects, self.random_terms, strict=True):
            total += random.theta_score(point.v[effect.index], point.theta, c_v[effect.index])
        return total


def _random_term(effect: RandomEffect) -> AnyRandomTerm:
    if effect.precision is not None and effect.degrees is not None:
        return StudentTerm(effect.precision, effect.degrees.map, effect.degrees.blocks)
    if effect.precision is not None:
        return StructuredTerm(effect.precision)
    return FlatTerm(effect.size) if effect.family is None else RandomTerm(effect)


def _pair_rows(terms: Sequence[ResponseTerm]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Row numbers (a, b) of every pair of predictors of every term, in the order of the pair rows."""
    found = []
    for term in terms:
        for a, b in combinations(range(term.n_predictors), 2):
            first = term.rows.start + np.arange(term.n)
            found.append((first + a * term.n, first + b * term.n))
    return found


def _with_pairs(
    model: HierarchicalModel, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, sp.csr_array]:
    if not pairs:
        return model.X, model.Z
    X = np.vstack([model.X, *(model.X[a] + model.X[b] for a, b in pairs)])
    ones = sp.csr_array((np.ones(model.Z.nnz), model.Z.indices, model.Z.indptr), shape=model.Z.shape)
    blocks = [model.Z]
    for a, b in pairs:
        total = sp.csr_array(model.Z[a] + model.Z[b])
        blocks.append(_on_pattern(total, sp.csr_array(ones[a] + ones[b])))
    return X, sp.csr_array(sp.vstack(blocks, format="csr"))


def _on_pattern(matrix: sp.csr_array, pattern: sp.csr_array) -> sp.csr_array:
    """`matrix` with explicit zeros wherever `pattern` has entries: sums that cancel keep their place."""
    kept = sp.csr_array((np.zeros(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape)
    return sp.csr_array(matrix + kept) if matrix.nnz == pattern.nnz else _union(matrix, kept)


def _union(matrix: sp.csr_array, zeros: sp.csr_array) -> sp.csr_array:
    row = np.concatenate([sp.coo_array(part).coords[0] for part in (matrix, zeros)])
    column = np.concatenate([sp.coo_array(part).coords[1] for part in (matrix, zeros)])
    data = np.concatenate([sp.coo_array(part).data for part in (matrix, zeros)])
    return sp.csr_array(sp.coo_array((data, (row, column)), shape=matrix.shape))


def stacked_weights(likelihood: HLikelihood, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Weights of the design's rows, (M,), from those of every term, (K + pairs, n) as `Local.weight` has them."""
    weight, start = np.zeros(likelihood.Z.shape[0]), likelihood.n_rows
    for term, part in zip(likelihood.terms, parts, strict=True):
        start = _scatter(weight, term, part, start)
    return weight


def _scatter(weight: np.ndarray, term: ResponseTerm, blocks: np.ndarray, start: int) -> int:
    """Put a term's weights, shape (pairs, n) in the order of `weight_order`, into rows and pair rows."""
    k, n = term.n_predictors, term.n
    own = weight[term.rows].reshape(k, n)
    own[:] = blocks[:k]
    for (a, b), cross in zip(combinations(range(k), 2), blocks[k:], strict=True):
        own[a] -= cross
        own[b] -= cross
        weight[start : start + n] = cross
        start += n
    return start


def _gather(kappa: np.ndarray, term: ResponseTerm, start: int) -> tuple[np.ndarray, int]:
    """A term's blocks of ``t_a' H^-1 t_b`` from the quadratic forms of rows and pair rows: the reverse of `_scatter`.

    Off-diagonal entries count twice in ``sum_ab kappa_ab W_ab``.
    """
    k, n = term.n_predictors, term.n
    own = kappa[term.rows].reshape(k, n)
    blocks = [*own]
    for a, b in combinations(range(k), 2):
        blocks.append(kappa[start : start + n] - own[a] - own[b])
        start += n
    return np.reshape(blocks, (-1, n)), start
