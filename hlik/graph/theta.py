"""The vector theta of dispersion parameters, and which expressions of the graph are closed-form maps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.find_link import linked
from hlik.graph.forms import Affine
from hlik.graph.graph_map import graph_map
from hlik.graph.products import without_signs
from hlik.graph.walk import Walker
from hlik.links import Link
from hlik.maps import ConstantMap, LinkMap, ThetaMap


@dataclass(frozen=True, eq=False)
class ThetaLayout:
    """Where each dispersion parameter's unconstrained value stands in theta."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    index: dict[str, slice] = field(default_factory=dict)

    @classmethod
    def of(cls, walker: Walker, names: Sequence[str]) -> ThetaLayout:
        """Lay the variables `names` one after the other."""
        shapes = tuple(walker.value_shape(walker.model[name]) for name in names)
        index, start = {}, 0
        for name, shape in zip(names, shapes, strict=True):
            size = int(np.prod(shape, dtype=int))
            index[name] = slice(start, start + size)
            start += size
        return cls(tuple(names), shapes, index)

    @property
    def size(self) -> int:
        """Number of dispersion parameters r."""
        return max((part.stop for part in self.index.values()), default=0)

    def map_of(
        self,
        walker: Walker,
        expression: Variable,
        shape: tuple[int, ...] | None = None,
        positive: bool = False,
    ) -> ThetaMap | None:
        """The expression as a function of theta; None where it depends on other free variables.

        With a `shape` the map has one value, where all are equal, or as many as that shape, in C order. With
        `positive` the expression is known to be positive (a variance).
        """
        form = walker.form(expression)
        if positive:
            form = without_signs(form)
        wanted = fm.shape_of(form) if shape is None else shape
        if fm.is_constant(form):
            values = np.asarray(form, dtype=float)
            return ConstantMap(_collapsed(np.broadcast_to(values, wanted or ()).ravel()), self.size)
        if not fm.inputs_of(form) <= set(self.names):
            return None
        found = linked(form)
        if found is not None:
            affine = found[0] if wanted is None else fm.broadcast(found[0], wanted)
            return self._linked(affine if found[0].offset.size > 1 else found[0], found[1])
        if shape is not None and fm.shape_of(form) != shape and int(np.prod(fm.shape_of(form) or (2,))) > 1:
            expression = pt.broadcast_to(expression, shape)
        return graph_map(
            walker.model, expression, self.names, self.shapes, walker.fixed, walker.aliases, walker.value_shape
        )

    def _linked(self, affine: Affine, link: Link) -> LinkMap:
        matrix = np.zeros((affine.offset.size, self.size))
        for name, rows in affine.rows.items():
            matrix[:, self.index[name]] = lin.to_dense(rows)
        offset = affine.offset.ravel()
        if offset.size > 1 and not np.ptp(offset) and not np.any(np.ptp(matrix, axis=0)):
            matrix, offset = matrix[:1], offset[:1]
        return LinkMap(matrix, offset, link)


def _collapsed(values: np.ndarray) -> np.ndarray:
    return values[:1] if values.size > 1 and not np.ptp(values) else values
