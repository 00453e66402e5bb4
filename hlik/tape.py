"""A response (or a density of random effects) without closed form: a tape of elementwise operations, run on jets.

The tape is read from the PyTensor graph of the log density once (`hlik.graph.lift`). Its inputs are the K predictors
of the term and expressions tau(theta) of the dispersion parameters; one run gives the log density of every observation
with all derivatives that Laplace-type methods need, exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hlik import jets
from hlik.jets import FIRST_TAU, Jet
from hlik.maps import ThetaMap
from hlik.terms import Cases, Local


@dataclass(frozen=True, eq=False)
class Instruction:
    """One operation: its name in `hlik.jets`, and the positions of its arguments on the tape.

    ``constant``: `data` is the value. ``predictor`` and ``tau``: `number` says which.
    """

    name: str
    arguments: tuple[int, ...] = ()
    data: np.ndarray | None = None
    number: int = -1


@dataclass(frozen=True, eq=False)
class Tau:
    """An expression of theta that the log density uses: its map, and which of its values each observation takes."""

    map: ThetaMap
    index: np.ndarray  # shape (n,), or (1,) where all share one value


class TapeTerm:
    """A term of h run from a tape; see `hlik.terms.ResponseTerm`.

    Parameters
    ----------
    tape
        Instructions in order; the last one is the log density of each observation.
    rows
        The term's rows of the stacked predictor: K blocks of `n`.
    n, n_predictors
        Observations, and predictors K.
    taus
        Expressions of theta.
    """

    def __init__(self, tape: Sequence[Instruction], rows: slice, n: int, n_predictors: int, taus: Sequence[Tau]):
        self.tape = tuple(tape)
        self.rows, self.n, self.n_predictors = rows, n, n_predictors
        self.taus = tuple(taus)

    def run(self, eta: np.ndarray, theta: np.ndarray, order: int, with_tau: bool) -> Jet:
        """The jet of the log density, observation by observation; `eta` is (N,), or (N, m) for m predictors."""
        own = eta[self.rows].reshape(self.n_predictors, self.n, *eta.shape[1:])
        values = [_beside(tau.map.value(theta)[tau.index], eta) for tau in self.taus]
        results: list[Jet] = []
        with np.errstate(all="ignore"):
            for step in self.tape:
                if step.name == "constant":
                    assert step.data is not None
                    results.append(jets.constant(_beside(step.data, eta)))
                elif step.name == "predictor":
                    x = own[step.number]
                    results.append(jets.variable(step.number, x) if order else jets.constant(x))
                elif step.name == "tau":
                    x = values[step.number]
                    results.append(jets.variable(FIRST_TAU + step.number, x) if with_tau else jets.constant(x))
                else:
                    arguments = [results[k] for k in step.arguments]
                    results.append(jets.apply(step.name, arguments, max(order, 1)))
        return results[-1]

    def value(self, eta: np.ndarray, theta: np.ndarray) -> float:
        """Log density; -inf or NaN out of range."""
        found = np.broadcast_to(self.run(eta, theta, 0, False)[()], (self.n,))
        return float(found.sum())

    def local(self, eta: np.ndarray, theta: np.ndarray) -> Local | None:
        """Log density, score and observed weights; None out of range."""
        jet = self.run(eta, theta, 2, False)
        value = float(np.broadcast_to(jet[()], (self.n,)).sum())
        if not np.isfinite(value):
            return None
        score = [jets.derivative(jet, (k,), self.n) for k in range(self.n_predictors)]
        weight = [-jets.derivative(jet, pair, self.n) for pair in self._pairs()]
        return Local(value, np.reshape(score, (-1, self.n)), np.reshape(weight, (-1, self.n)))  # K may be 0

    def cases(self, eta: np.ndarray, theta: np.ndarray, order: int = 0, with_theta: bool = False) -> Cases:
        """Log densities and derivatives at m predictors at once, `eta` (N, m)."""
        shape = (self.n, eta.shape[1])
        with_tau = with_theta and bool(self.taus)
        jet = self.run(eta, theta, max(order, 1) if with_tau else order, with_tau)

        def derivatives(monomials: Sequence[tuple[int, ...]]) -> np.ndarray:
            parts = [np.broadcast_to(jets.derivative(jet, monomial, 1), shape) for monomial in monomials]
            return np.array(parts).reshape(-1, *shape)

        score = derivatives([(k,) for k in range(self.n_predictors)] if order > 0 else [])
        weight = -derivatives(self._pairs() if order > 1 else [])
        by_tau = derivatives([(FIRST_TAU + t,) for t in range(len(self.taus))] if with_tau else [])
        slopes = tuple(tau.map.jacobian(theta)[tau.index] for tau in self.taus) if with_tau else ()
        return Cases(np.broadcast_to(jet[()], shape), score, weight, by_tau, slopes)

    def curvature_slopes(self, eta: np.ndarray, theta: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of ``-1/2 sum kappa W`` with respect to eta, (K, n), and theta, (r,)."""
        jet = self.run(eta, theta, 3, bool(self.taus))
        slope = np.reshape([self._contract(jet, kappa, k) for k in range(self.n_predictors)], (-1, self.n))
        by_tau = [self._contract(jet, kappa, FIRST_TAU + t) for t in range(len(self.taus))]
        return slope, self._through_tau(by_tau, theta)

    def theta_score(self, eta: np.ndarray, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """``d/dtheta [l + c' dl/deta]``, shape (r,)."""
        if not self.taus:
            return np.zeros(theta.size)
        jet = self.run(eta, theta, 2, True)
        own = c[self.rows].reshape(self.n_predictors, self.n)
        by_tau = []
        for t in range(len(self.taus)):
            total = jets.derivative(jet, (FIRST_TAU + t,), self.n).copy()
            for k in range(self.n_predictors):
                total += own[k] * jets.derivative(jet, (k, FIRST_TAU + t), self.n)
            by_tau.append(total)
        return self._through_tau(by_tau, theta)

    def _pairs(self) -> list[tuple[int, int]]:
        """The order of the weights: the diagonal, then the pairs."""
        return [(k, k) for k in range(self.n_predictors)] + list(combinations(range(self.n_predictors), 2))

    def _contract(self, jet: Jet, kappa: np.ndarray, number: int) -> np.ndarray:
        """``1/2 sum_ab kappa_ab l_ab,number`` for every observation."""
        total = np.zeros(self.n)
        for pair, block in zip(self._pairs(), kappa, strict=True):
            total += 0.5 * block * jets.derivative(jet, tuple(sorted((*pair, number))), self.n)
        return total

    def _through_tau(self, by_tau: Sequence[np.ndarray], theta: np.ndarray) -> np.ndarray:
        """From derivatives by each observation's tau to derivatives by theta."""
        total = np.zeros(theta.size)
        for tau, values in zip(self.taus, by_tau, strict=True):
            jacobian = tau.map.jacobian(theta)
            if tau.index.size == 1:
                total += float(values.sum()) * jacobian[int(tau.index[0])]
            else:
                total += np.bincount(tau.index, weights=values, minlength=tau.map.size) @ jacobian
        return total


def _beside(values: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Values by observation as a column where `eta` has columns."""
    return values[..., None] if eta.ndim > 1 and np.ndim(values) else values
