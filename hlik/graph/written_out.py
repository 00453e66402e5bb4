"""Operations that are no elementwise functions as they stand, written in terms of ones that are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable
from pytensor.scalar import math as psm
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.special import LogSoftmax, Softmax

from hlik.graph.forms import is_constant


def written_out(node: Apply, value_of: Callable[[Variable], Any]) -> Variable | None:
    """The value of a node as an expression of elementwise operations and short sums; None where there is none.

    `value_of` gives the value of a node that depends on data only, and something else of other nodes.
    """
    if isinstance(node.op, Softmax | LogSoftmax):
        return _softmax(node)
    if isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, psm.BetaInc):
        return _incomplete_beta(node, value_of)
    return None


def _softmax(node: Apply) -> Variable | None:
    """``1 / sum_j exp(x_j - x_i)`` over the last axis: a function of differences of predictors."""
    x = pt.as_tensor_variable(node.inputs[0])
    if node.op.axis not in (-1, x.ndim - 1):
        return None
    total = pt.exp(x[..., None, :] - x[..., :, None]).sum(axis=-1)
    return -pt.log(total) if isinstance(node.op, LogSoftmax) else 1.0 / total


def _incomplete_beta(node: Apply, value_of: Callable[[Variable], Any]) -> Variable | None:
    """``I_x(a, 1) = x**a`` and ``I_x(1, b) = 1 - (1 - x)**b``: negative binomials and geometrics at zero."""
    a, b, x = node.inputs
    if _is_one(value_of(b)):
        return x**a
    return 1.0 - (1.0 - x) ** b if _is_one(value_of(a)) else None


def _is_one(value: object) -> bool:
    return is_constant(value) and bool(np.all(np.asarray(value) == 1))
