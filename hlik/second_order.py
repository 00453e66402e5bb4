r"""The second-order term of Laplace's approximation, for any sparse h.

.. math:: \log \int e^{h(v)} dv = p_v(h) - F/24 + \ldots, \qquad
   -\frac{F}{24} = \frac18 \sum h_{jklm} c^{jk} c^{lm} + \frac18 \sum h_{jkl} h_{mno} c^{jk} c^{lm} c^{no}
                   + \frac1{12} \sum h_{jkl} h_{mno} c^{jm} c^{kn} c^{lo},

with derivatives of h in v at the mode and ``(c^jk) = C^-1`` (Shun & McCullagh 1995). For a single v it is
``(3 h'''' / C^2 + 5 h'''^2 / C^3) / 24``: the F of Lee & Nelder (2001) is
``-tr{[3 h'''' + 5 h''' C^-1 h'''] C^-2}``. h is a sum of functions of few linear forms t'v, which keeps the
sums bounded:

1. the first needs ``t' C^-1 t`` of every row and fourth derivatives of every case (differences of exact third ones);
2. the second is ``s' C^-1 s / 2`` with s the slope of ``-log|C|/2`` in v, which the gradient of p_v(h) has too;
3. the third is ``sum_rs a_r a_s (t_r' C^-1 t_s)^3 / 12`` over pairs of rows with third derivatives a. Equal rows are
   taken together, and only rows in the same block of linked effects make pairs (`hlik.blocks.Blocks`): n m products
   and m solves for n different rows, at most m in a block, by chunks of bounded memory. One block (crossed factors) has
   m = n.

A case of several predictors has mixed third derivatives too; they become cubes of sums and differences of its rows:
``6 x^2 y = (x + y)^3 - (x - y)^3 - 2 y^3`` and ``6 x y z = (x + y + z)^3 - (x + y)^3 - ... + x^3 + y^3 + z^3``.

References
----------
Shun, Z. & McCullagh, P. (1995). Laplace approximation of high dimensional integrals. JRSS B 57, 749-760.
Lee, Y. & Nelder, J. A. (2001). Biometrika 88, 987-1006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import scipy.sparse as sp

from hlik.adjusted_profile import Mode, prior_inverse
from hlik.blocks import Blocks
from hlik.hlikelihood import HLikelihood, HPoint
from hlik.linalg.bordered import Bordered
from hlik.terms import ResponseTerm

STEP = 1e-3  # of differences, in standard errors of a case: those are of fourth order, and exact to about 1e-11
MAX_NUMBERS = 10_000_000  # of one array: 80 MB

Form = tuple[int, ...]
"""A linear form of a case: one sign, or zero, for each of its predictors."""


class SecondOrder:
    """-F/24 of a model at any mode; what does not change between modes is prepared once."""

    def __init__(self, likelihood: HLikelihood):
        self.likelihood = likelihood
        self.blocks = Blocks.of(likelihood)
        q = likelihood.model.n_random
        self.forms = [_forms(term.n_predictors) for term in likelihood.terms]
        parts = [
            _rows(likelihood, term, form)
            for term, forms in zip(likelihood.terms, self.forms, strict=True)
            for form in forms
        ]
        self.rows = sp.csr_array(sp.vstack([*parts, sp.eye_array(q, format="csr")], format="csr"))
        self.distinct, self.first = _distinct(self.rows)

    def value(self, mode: Mode) -> float:
        """``-F/24`` at a mode of h in v alone."""
        point, bordered = mode.point, mode.bordered
        if not point.v.size:
            return 0.0
        kappa, kappa_v = bordered.row_quadratics(), prior_inverse(self.likelihood, bordered)
        s_eta, s_v, _ = self.likelihood.curvature_slopes(point, kappa, kappa_v)
        slope = self.likelihood.model.Z.T @ s_eta + s_v
        second = 0.5 * float(slope @ bordered.factor_z.solve(slope))
        return self._fourths(point, kappa, kappa_v) / 8 + second + self._cubes(self._thirds(point), bordered) / 12

    def _fourths(self, point: HPoint, kappa: np.ndarray, kappa_v: np.ndarray) -> float:
        """``sum h_jklm c^jk c^lm``: along each predictor, the change of the slopes with their quadratic forms held."""
        likelihood = self.likelihood
        most = max((term.n_predictors for term in likelihood.terms), default=0)
        total = 0.0
        for d in range(max(most, 1)):
            step, step_v = (
                _steps(point.weight[: likelihood.n_rows]),
                _steps(point.random_weight[likelihood.prior.diagonal]) * (d == 0),
            )
            direction = np.zeros(likelihood.n_rows)
            for term in likelihood.terms:
                if d < term.n_predictors:
                    own = slice(term.rows.start + d * term.n, term.rows.start + (d + 1) * term.n)
                    direction[own] = step[own]
            change, change_v = _difference(
                lambda k, e=direction, w=step_v: likelihood.curvature_slopes(  # type: ignore[misc]
                    replace(point, eta=point.eta + k * e, v=point.v + k * w), kappa, kappa_v
                )[:2]
            )
            for term, blocks in zip(likelihood.terms, self._case_forms(kappa), strict=True):
                if d < term.n_predictors:
                    own = slice(term.rows.start + d * term.n, term.rows.start + (d + 1) * term.n)
                    slopes = change[term.rows].reshape(term.n_predictors, term.n) / step[own]
                    total += 2.0 * float(np.sum(blocks[:, d] * slopes))
            if d == 0 and point.v.size:
                total += 2.0 * float(kappa_v[likelihood.prior.diagonal] @ (change_v / step_v))
        return total

    def _case_forms(self, kappa: np.ndarray) -> list[np.ndarray]:
        """``t_a' C^-1 t_b`` of every case of every term, (K, K, n)."""
        found, start = [], self.likelihood.n_rows
        for term in self.likelihood.terms:
            k, n = term.n_predictors, term.n
            own = kappa[term.rows].reshape(k, n)
            blocks = np.zeros((k, k, n))
            blocks[range(k), range(k)] = own
            for a, b in combinations(range(k), 2):
                blocks[a, b] = blocks[b, a] = 0.5 * (kappa[start : start + n] - own[a] - own[b])
                start += n
            found.append(blocks)
        return found

    def _thirds(self, point: HPoint) -> np.ndarray:
        """The coefficient of the cube of every one of `rows`."""
        parts = []
        for term, forms in zip(self.likelihood.terms, self.forms, strict=True):
            parts += _cube_coefficients(_third_derivatives(term, point), forms)
        v_part = np.zeros(point.v.size)
        model = self.likelihood.model
        entries = self.likelihood.prior.entries
        for effect, random, own in zip(model.random_effects, self.likelihood.random_terms, entries, strict=True):
            twice = np.full(own.stop - own.start, 2.0)
            v_part[effect.index] = random.curvature_slopes(point.v[effect.index], point.theta, twice)[0]
        return np.concatenate([*parts, v_part])

    def _cubes(self, coefficients: np.ndarray, bordered: Bordered) -> float:
        """``sum_rs a_r a_s (t_r' C^-1 t_s)^3`` over pairs of rows of the same block."""
        a = np.bincount(self.distinct, weights=coefficients, minlength=self.first.size)
        used = np.flatnonzero((a != 0) & (np.diff(self.rows.indptr)[self.first] > 0))
        if not used.size:
            return 0.0
        a, rows = a[used], sp.csr_array(self.rows[self.first[used]])
        block = self.blocks.member[rows.indices[rows.indptr[:-1]]]
        order = np.argsort(block, kind="stable")
        _, begin, count = np.unique(block[order], return_index=True, return_counts=True)
        rank = np.empty(used.size, dtype=int)
        rank[order] = np.arange(used.size) - np.repeat(begin, count)
        total, width = 0.0, max(1, MAX_NUMBERS // max(rows.shape))
        # One solve serves one row of every block: C^-1 keeps the blocks apart.
        for start in range(0, int(rank.max()) + 1, width):
            here = np.flatnonzero((rank >= start) & (rank < start + width))
            columns = int(rank[here].max()) - start + 1
            pick = sp.csr_array((np.ones(here.size), (here, rank[here] - start)), shape=(used.size, columns))
            partner = np.zeros((self.blocks.size.size, columns))
            partner[block[here], rank[here] - start] = a[here]
            products = rows @ bordered.factor_z.solve((rows.T @ pick).toarray())
            total += float(np.einsum("r,rk,rk->", a, partner[block], products**3))
        return total


def _forms(k: int) -> list[Form]:
    """Each predictor; sums and differences of two; sums of three."""
    unit = np.eye(k, dtype=int)
    found = [unit[a] for a in range(k)]
    for a, b in combinations(range(k), 2):
        found += [unit[a] + unit[b], unit[a] - unit[b]]
    found += [unit[a] + unit[b] + unit[c] for a, b, c in combinations(range(k), 3)]
    return [tuple(int(sign) for sign in form) for form in found]


def _rows(likelihood: HLikelihood, term: ResponseTerm, form: Form) -> sp.csr_array:
    """The form's rows of the design of v, shape (n, q)."""
    Z, start = likelihood.model.Z, term.rows.start
    total = sp.csr_array((term.n, Z.shape[1]))
    for k, sign in enumerate(form):
        if sign:
            total = total + sign * Z[start + k * term.n : start + (k + 1) * term.n]
    return sp.csr_array(total)


def _third_derivatives(term: ResponseTerm, point: HPoint) -> dict[Form, np.ndarray]:
    """l_abc of every case by (a, b, c) with a <= b, any c."""
    k, n = term.n_predictors, term.n
    pairs = [(a, a) for a in range(k)] + list(combinations(range(k), 2))
    found: dict[Form, np.ndarray] = {}
    for place, (a, b) in enumerate(pairs):
        kappa = np.zeros((len(pairs), n))
        kappa[place] = 2.0
        slopes, _ = term.curvature_slopes(point.eta, point.theta, kappa)
        for c in range(k):
            found[a, b, c] = slopes[c]
    return found


def _cube_coefficients(third: dict[Form, np.ndarray], forms: list[Form]) -> list[np.ndarray]:
    """What every form's cube is to be multiplied with, so that they add up to ``sum l_abc x_a x_b x_c``."""
    size = next(iter(third.values())).size if third else 0
    total = {form: np.zeros(size) for form in forms}
    k = len(forms[0]) if forms else 0
    unit = np.eye(k, dtype=int)

    def add(form: np.ndarray, value: np.ndarray) -> None:
        total[tuple(int(sign) for sign in form)] += value

    for a in range(k):
        add(unit[a], third[a, a, a])
    for a, b in combinations(range(k), 2):
        aab, abb = third[a, a, b], third[b, b, a]
        add(unit[a] + unit[b], 0.5 * (aab + abb))
        add(unit[a] - unit[b], 0.5 * (abb - aab))
        add(unit[b], -aab)
        add(unit[a], -abb)
    for triple in combinations(range(k), 3):
        abc = third[triple]
        add(unit[list(triple)].sum(axis=0), abc)
        for pair in combinations(triple, 2):
            add(unit[list(pair)].sum(axis=0), -abc)
        for single in triple:
            add(unit[single], abc)
    return [total[form] for form in forms]


def _distinct(rows: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """The number of every row among the distinct ones, and the first row of each.

    Rows are compared by their products with two random vectors, summed in the same order.
    """
    rows.eliminate_zeros()
    rows.sort_indices()
    key = rows @ np.random.default_rng(0).standard_normal((rows.shape[1], 2))
    _, first, number = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return number.ravel(), first


def _steps(weight: np.ndarray) -> np.ndarray:
    """Steps for differences in a case's predictor: a part of its standard error, or of one where that is smaller."""
    return STEP / np.sqrt(np.maximum(np.abs(weight), 1.0))


def _difference(
    function: Callable[[float], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Central difference of fourth order along a direction, per unit of its argument."""
    low2, low1, high1, high2 = (function(k) for k in (-2.0, -1.0, 1.0, 2.0))
    first, second = ((low2[i] - 8 * low1[i] + 8 * high1[i] - high2[i]) / 12 for i in range(2))
    return first, second
