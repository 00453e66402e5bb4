"""Scales of random effects that PyMC lacks."""

from __future__ import annotations

import pytensor.tensor as pt
from pymc.logprob.transforms import Transform
from pytensor.tensor.variable import TensorVariable


class Reciprocal(Transform):
    """``v = 1 / u``: the weak canonical scale of inverse-gamma effects in a Gamma model with inverse link.

    Use it alone, in the place of PyMC's default log transform:
    ``pm.InverseGamma("u", alpha=1 + 1/lam, beta=1/lam, default_transform=None, transform=hlik.reciprocal, ...)``.
    The value variable v must stay positive, which the density sees to.
    """

    name = "reciprocal"
    ndim_supp = 0

    def forward(self, value: TensorVariable, *inputs: TensorVariable) -> TensorVariable:
        """``1 / u``."""
        return pt.reciprocal(value)

    def backward(self, value: TensorVariable, *inputs: TensorVariable) -> TensorVariable:
        """``1 / v``."""
        return pt.reciprocal(value)

    def log_jac_det(self, value: TensorVariable, *inputs: TensorVariable) -> TensorVariable:
        """``log |du/dv| = -2 log v``."""
        return -2.0 * pt.log(value)


reciprocal = Reciprocal()
