"""The derivative of the leverages: estimated from random signs, and exact."""

from __future__ import annotations

import numpy as np
import pytest

from hlik.estimators import dispersion_slope
from hlik.estimators.dispersion_slope import Projection, leverage_slopes
from hlik.linalg import BorderedSystem
from tests.linalg.problems import DESIGNS


class Design:
    """As much of a model, and of a point, as a `Projection` reads."""

    def __init__(self, rng):
        self.X, self.Z, _ = DESIGNS["crossed"](rng)
        self.n_rows, self.n_beta, self.n_random = len(self.X), self.X.shape[1], self.Z.shape[1]
        self.weight, self.random_weight = rng.gamma(2.0, size=self.n_rows), rng.gamma(2.0, size=self.n_random)

    def projection(self):
        system = BorderedSystem(self.X, self.Z)
        return Projection(self, self, system.factor(self.weight, self.random_weight))

    def dense(self):
        rows = np.vstack([np.hstack([self.X, self.Z.toarray()]), np.eye(self.n_beta + self.n_random)[self.n_beta :]])
        root = np.sqrt(np.concatenate([self.weight, self.random_weight]))[:, None]
        return (root * rows) @ np.linalg.solve((root * rows).T @ (root * rows), (root * rows).T)


@pytest.mark.parametrize("chunk", [None, 37])
def test_exact_and_estimated_sums(monkeypatch, chunk):
    rng = np.random.default_rng(0)
    design = Design(rng)
    P, size = design.dense(), design.n_rows + design.n_random
    a, rho = rng.normal(size=(size, 2)), rng.normal(size=(size, 3))
    expected = a.T @ (np.diag(P.diagonal()) - P**2) @ rho
    np.testing.assert_allclose(leverage_slopes(design.projection(), P.diagonal(), a, rho), expected, rtol=1e-9)
    monkeypatch.setattr(dispersion_slope, "EXACT_SIZE", 0)
    monkeypatch.setattr(dispersion_slope, "SIGNS", 10**9)
    monkeypatch.setattr(dispersion_slope, "MAX_DRAWS", 4000)
    if chunk:
        parts = [slice(start, min(start + chunk, design.n_rows)) for start in range(0, design.n_rows, chunk)]
        monkeypatch.setattr(dispersion_slope, "row_chunks", lambda *_: parts)
    found = leverage_slopes(design.projection(), P.diagonal(), a, rho)
    # a sum of squares of signs has an error of about sqrt(2 / draws) of its scale
    scale = np.sqrt(np.outer(np.sum(a**2, axis=0), np.sum(rho**2, axis=0)))
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(2 / 4000) * scale.max() / np.sqrt(size))
