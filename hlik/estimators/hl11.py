r"""The first-order correction of beta: the derivative of the adjustment in p_v(h).

HL(1,1) of Noh & Lee (2007) takes beta from ``p_v(h) = h - log|C/2 pi|/2``, ``C = -d2 h / dv2 = Z'WZ + D`` at the mode
v(beta), where EQL takes it from h. The extra score is

.. math:: -\tfrac12 \frac{d \log|C|}{d\beta} = -\tfrac12\,[X'a - X'WZ\,C^{-1}(Z'a + t)], \quad
          a_i = z_i'C^{-1}z_i \frac{dW_i}{d\eta_i}, \quad t_j = (C^{-1})_{jj} \frac{dD_j}{dv_j},

the second part being the implicit derivative of v through its own equation. W are the observed weights, so that beta
maximises the Laplace approximation for every link; for canonical links they are the expected ones. With normal effects
(t = 0) and the identity ``W c = (a - W Z C^{-1} Z' a) / 2`` it is what R's hglm adds to the working response as EQL1.
hglm leaves t out by serving one Gaussian term only, uses expected weights for all links, mixes the eigenbasis into it
for CAR and SAR, and ignores prior weights. Its iteration also stops beside the solution: every inner loop begins with a
step without the correction and has at most two with it, and its leverages belong to the weights before the last
(the bacteria data: 1.4883 for the variance, where the equations hold at 1.4993; tests/estimators/test_hl11.py).

References
----------
Noh, M. & Lee, Y. (2007). REML estimation for binary data in GLMMs. J. Multivariate Analysis 98, 896-915.
Lee, W. & Lee, Y. (2012). Modifications of REML algorithm for HGLMs. Statistics and Computing 22, 959-966.
"""

from __future__ import annotations

import numpy as np

from hlik.augmented import AugmentedModel, Dispersions, Point, observed_weight_slopes
from hlik.model import HierarchicalModel


def profile_score(augmented: AugmentedModel, point: Point, spread: Dispersions) -> np.ndarray:
    """The extra score of beta, shape (p,); C must be positive definite, else the expected weights serve."""
    model = augmented.model
    if not model.n_random:
        return np.zeros(model.n_beta)
    bordered = augmented.factor_observed(point, spread) or augmented.factor(point)
    weight = bordered.w
    slope = observed_weight_slopes(model, point, spread)
    share = np.divide(bordered.leverages_z(), weight, out=np.zeros_like(weight), where=weight != 0)
    a = share * slope
    t = bordered.factor_z.inverse_diagonal() * _random_weight_slopes(model, point, spread)
    implicit = bordered.factor_z.solve(model.Z.T @ a + t)
    return -0.5 * (model.X.T @ (a - weight * (model.Z @ implicit)))


def _random_weight_slopes(model: HierarchicalModel, point: Point, spread: Dispersions) -> np.ndarray:
    """dD/dv = -k'''(v)/lam, shape (q,); zero for normal effects."""
    slopes = np.zeros(model.n_random)
    for effect, lam in zip(model.random_effects, spread.lam, strict=True):
        if effect.family is None:  # a joint density is normal
            continue
        slopes[effect.index] = -effect.family.kernel_derivatives(point.v[effect.index], 3)[3] / lam
    return slopes
