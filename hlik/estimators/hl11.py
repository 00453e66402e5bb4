r"""The first-order correction of beta: the derivative of the adjustment in p_v(h).

HL(1,1) of Noh & Lee (2007) takes beta from p_v(h) = h - log|C/2 pi|/2 with C = Z'WZ + D at the mode v(beta), where
EQL takes it from h. The extra score is

.. math:: -\tfrac12 \frac{d \log|C|}{d\beta} = -\tfrac12\,[X'a - X'WZ\,C^{-1}(Z'a + t)], \quad
          a_i = z_i'C^{-1}z_i \frac{dW_i}{d\eta_i}, \quad t_j = (C^{-1})_{jj} \frac{dD_j}{dv_j},

the second part being the implicit derivative of v through its own equation. With normal effects (t = 0) and the
identity ``W c = (a - W Z C^{-1} Z' a) / 2`` it is what hglm adds to the working response as EQL1; hglm leaves t out
by serving one Gaussian term only, mixes the eigenbasis into it for CAR and SAR, and ignores prior weights.
"""

from __future__ import annotations

import numpy as np

from hlik.augmented import Dispersions, Point
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel


def profile_score(
    model: HierarchicalModel, point: Point, spread: Dispersions, bordered: Bordered
) -> np.ndarray:
    """The extra score of beta, shape (p,)."""
    if not model.n_random:
        return np.zeros(model.n_beta)
    weight_slope = _weight_slopes(model, point, spread)
    share = np.divide(
        bordered.leverages_z(), point.weight, out=np.zeros_like(point.weight), where=point.weight > 0
    )
    a = share * weight_slope
    t = bordered.factor_z.inverse_diagonal() * _random_weight_slopes(model, point, spread)
    implicit = bordered.factor_z.solve(model.Z.T @ a + t)
    return -0.5 * (model.X.T @ (a - point.weight * (model.Z @ implicit)))


def _weight_slopes(model: HierarchicalModel, point: Point, spread: Dispersions) -> np.ndarray:
    """dW/d eta, shape (N,)."""
    slopes = np.empty(model.n_rows)
    for response, phi in zip(model.responses, spread.phi, strict=True):
        assert response.family is not None
        assert response.link is not None
        rows = response.rows
        slopes[rows] = response.family.weight_derivative(point.eta[rows], response.link, phi, response.weight)
    return slopes


def _random_weight_slopes(model: HierarchicalModel, point: Point, spread: Dispersions) -> np.ndarray:
    """dD/dv = -k'''(v)/lam, shape (q,); zero for normal effects."""
    slopes = np.zeros(model.n_random)
    for effect, lam in zip(model.random_effects, spread.lam, strict=True):
        assert effect.family is not None
        slopes[effect.index] = -effect.family.kernel_derivatives(point.v[effect.index], 3)[3] / lam
    return slopes
