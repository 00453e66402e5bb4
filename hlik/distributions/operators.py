"""The log-determinant of a sparse precision as a PyTensor Op, with its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import grad_undefined
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op

from hlik.distributions.structure import PrecisionStructure


def _vector(coefficients: Any) -> Variable:
    return pt.as_tensor(coefficients, ndim=1).astype("float64")


class LogDeterminant(Op):
    """``log|Q(c)|`` of a `PrecisionStructure`, -inf where Q(c) is not positive definite."""

    __props__ = ("structure",)

    def __init__(self, structure: PrecisionStructure):
        self.structure = structure

    def make_node(self, *inputs: Any) -> Apply:
        """A node for coefficients of shape (K,)."""
        return Apply(self, [_vector(inputs[0])], [pt.dscalar()])

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: Any) -> None:
        outputs[0][0] = np.asarray(self.structure.logdet(inputs[0]))

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> list[tuple[()]]:
        return [()]

    def L_op(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Variable]:
        """``tr(Q^-1 M_k)`` times what comes from above."""
        return [output_grads[0] * LogDeterminantGradient(self.structure)(inputs[0])]


class LogDeterminantGradient(Op):
    """``tr(Q(c)^-1 M_k)`` for every k, shape (K,)."""

    __props__ = ("structure",)

    def __init__(self, structure: PrecisionStructure):
        self.structure = structure

    def make_node(self, *inputs: Any) -> Apply:
        """A node for coefficients of shape (K,)."""
        return Apply(self, [_vector(inputs[0])], [pt.vector(dtype="float64", shape=(self.structure.n_coefficients,))])

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: Any) -> None:
        outputs[0][0] = self.structure.logdet_gradient(inputs[0])

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> list[Any]:
        return shapes

    def L_op(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Variable]:
        return [grad_undefined(self, 0, inputs[0], "second derivatives of a sparse log-determinant")]
