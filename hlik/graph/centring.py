"""Non-centred random effects: a standard-normal ``z`` that enters as ``scale * z``, read as ``v = scale * z``.

From ``z`` all paths up to the responses are followed through what is linear in it. Where it is multiplied by a
function of parameters, that node is a *centring place*: it is read as v (times the data that stand beside the
scale), and the scale becomes the standard deviation of v. Bambi writes its group effects so by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.multivariate import ZeroSumNormalRV
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Apply, Variable
from pytensor.sparse.math import Dot as SparseDot
from pytensor.sparse.math import StructuredDot
from pytensor.tensor.basic import Alloc
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.random.basic import NormalRV
from pytensor.tensor.shape import Reshape, SpecifyShape
from pytensor.tensor.subtensor import AdvancedSubtensor, AdvancedSubtensor1, Subtensor

from hlik.graph import forms as fm
from hlik.graph.ancestry import free_ancestors
from hlik.graph.numeric import values_of_node
from hlik.graph.scales import (
    Factor,
    factors_beside,
    is_positive,
    level_scale,
    multiplied,
    product_of,
    same_scale,
)
from hlik.graph.structures import BlockStructure, Structure, structure
from hlik.graph.walk import Walker

MOVERS = (
    Alloc, AdvancedSubtensor, AdvancedSubtensor1, DimShuffle, Reshape, SpecifyShape, Subtensor, ViewOp,
)  # fmt: skip
PRODUCTS = (Dot, SparseDot, StructuredDot)


@dataclass(frozen=True, eq=False)
class NonCentred:
    """How a normal variable with mean zero and known deviation is multiplied by parameters.

    Attributes
    ----------
    scale
        The scale, scalar or in the shape of the variable; None where there is not one positive scale.
    places
        For each centring place what stands there: v times data.
    multipliers
        Names of the parameters in the factors.
    structure
        Where every element is one of a block that is multiplied by a matrix: that, as v's covariance matrix.
    """

    scale: Variable | None
    places: dict[Variable, Variable]
    multipliers: tuple[str, ...]
    structure: BlockStructure | None = None


@dataclass(frozen=True, eq=False)
class Mixed:
    """Blocks z of a variable's elements that became ``L z``: numbers of their elements (G, k), and L."""

    blocks: np.ndarray
    root: Variable


@dataclass(frozen=True, eq=False)
class _Path:
    """A node that is linear in the variable.

    `source` holds for each of its elements the number of the variable's (None after sums), `scales` what it was
    multiplied by so far, `loadings` the parameters that are no single scale, `mixed` the blocks that were multiplied by
    a matrix.
    """

    variable: Variable
    source: np.ndarray | None
    scales: tuple[Variable, ...] = ()
    loadings: frozenset[str] = field(default=frozenset())
    mixed: Mixed | None = None


class Centring:
    """Follows a variable up to the responses."""

    def __init__(self, rv: Variable, clients: dict[Variable, list[Apply]], walker: Walker):
        self.rv, self.clients, self.walker = rv, clients, walker
        self.shape = walker.shape(rv)
        self.places: dict[Variable, Variable] = {}

    def ends(self) -> list[_Path]:
        """Where the linear paths end: in a sum, a nonlinear function, a response."""
        source = np.arange(int(np.prod(self.shape, dtype=int))).reshape(self.shape)
        waiting, ends = [_Path(self.rv, source)], []
        while waiting:
            path = waiting.pop()
            if path.variable not in self.clients:  # a potential
                ends.append(path)
            for node in self.clients.get(path.variable, []):
                step = self._through(node, path)
                if step is None:
                    ends.append(path)
                else:
                    waiting.append(step)
        return ends

    def _through(self, node: Apply, path: _Path) -> _Path | None:
        """The path on the other side of `node`; None where it ends."""
        output = node.outputs[0]
        factors = factors_beside(node, path.variable)
        if factors is not None:
            return self._multiplied(output, path, factors)
        names = free_ancestors([s for s in node.inputs if s is not path.variable], self.walker)
        if isinstance(getattr(node.op, "core_op", node.op), PRODUCTS) and self.rv.name not in names:
            mixed = self._mixed(node, path) if names else None
            if mixed is not None:
                self.places[output] = path.variable
                return replace(path, variable=output, mixed=mixed)
            return _Path(output, None, path.scales, path.loadings | frozenset(names))
        if _is_neutral(node):
            return replace(path, variable=output)
        if isinstance(node.op, Sum) or (isinstance(node.op, CumOp) and node.op.mode == "add"):
            return replace(path, variable=output, source=None)
        if isinstance(node.op, MOVERS) and node.inputs[0] is path.variable and not names:
            return replace(path, variable=output, source=self._moved(node, path.source))
        return None

    def _multiplied(self, output: Variable, path: _Path, factors: list[Factor]) -> _Path | None:
        """The path through a product: its factors split into data, which stay, and parameters, the scale."""
        names = [free_ancestors([factor], self.walker) for factor, _ in factors]
        if any(self.rv.name in found for found in names):
            return None
        data = [factor for factor, found in zip(factors, names, strict=True) if not found]
        scale = multiplied(None, (factor for factor, found in zip(factors, names, strict=True) if found))
        source = self._broadcast(path.source, [factor for factor, _ in factors])
        beside = self._broadcast(path.source, [factor for factor, _ in data])
        if scale is None:
            return replace(path, variable=output, source=source)
        level = level_scale(scale, beside, self.shape, self.walker)
        if level is None:
            loadings = frozenset(free_ancestors([scale], self.walker))
            return _Path(output, source, path.scales, path.loadings | loadings)
        place = multiplied(path.variable, data)
        wider = source is not None and beside is not None and source.shape != beside.shape
        self.places[output] = pt.broadcast_to(place, source.shape) if wider else place  # type: ignore[union-attr]
        return _Path(output, source, (*path.scales, level), path.loadings)

    def _mixed(self, node: Apply, path: _Path) -> Mixed | None:
        """``L z`` or ``z L'`` with a square matrix of parameters, z the whole variable; None for other products."""
        source = path.source
        if source is None or source.ndim != 2 or path.mixed or path.scales or path.loadings:
            return None
        if not np.array_equal(np.sort(source, axis=None), np.arange(int(np.prod(self.shape, dtype=int)))):
            return None
        first = node.inputs[0] is path.variable
        matrix, k = node.inputs[1 if first else 0], source.shape[1 if first else 0]
        if matrix.type.ndim != 2 or fm.shape_of(self.walker.form(matrix)) not in ((k, k), None):
            return None
        return Mixed(source, matrix.T) if first else Mixed(source.T, matrix)

    def _broadcast(self, source: np.ndarray | None, factors: list[Variable]) -> np.ndarray | None:
        shapes = [fm.shape_of(self.walker.form(factor)) for factor in factors]
        if source is None or None in shapes:
            return None
        return np.broadcast_to(source, np.broadcast_shapes(source.shape, *shapes))  # type: ignore[arg-type]

    def _moved(self, node: Apply, source: np.ndarray | None) -> np.ndarray | None:
        if source is None:
            return None
        others = [self.walker.form(other) for other in node.inputs[1:]]
        return values_of_node(node, [source, *others])[0]


def _is_neutral(node: Apply) -> bool:
    scalar_op = node.op.scalar_op if isinstance(node.op, Elemwise) else None
    return type(scalar_op).__name__ in ("Identity", "Cast")


def non_centred(rv: Variable, clients: dict[Variable, list[Apply]], walker: Walker) -> NonCentred | None:
    """How `rv` is non-centred; None where it is not normal around zero or enters somewhere without a scale."""
    own = structure(walker, rv)
    if rv.type.ndim == 0 or not (_is_known_normal(rv, walker) if own is None else _is_known(own, walker)):
        return None
    centring = Centring(rv, clients, walker)
    ends = centring.ends()
    if not ends or any(not end.scales and not end.loadings and not end.mixed for end in ends):
        return None
    constrained = isinstance(rv.owner.op, ZeroSumNormalRV)  # its value has fewer elements: no scale can be moved to it
    if own is None and not constrained and any(end.mixed for end in ends):
        return _rooted(rv, centring, ends, walker)
    loadings = frozenset().union(*(end.loadings for end in ends))
    if any(end.mixed for end in ends):  # a matrix times effects that are correlated already
        loadings |= frozenset(free_ancestors([end.mixed.root for end in ends if end.mixed is not None], walker))
    scales = [product_of(end.scales) for end in ends if end.scales]
    names = tuple(sorted(loadings.union(free_ancestors(scales, walker))))
    one = not constrained and not loadings and all(same_scale(scales[0], other, walker) for other in scales[1:])
    if one and is_positive(scales[0], walker) and own is not None:
        single = scales[0].type.ndim == 0
        return (
            NonCentred(None, centring.places, names, own.scaled(scales[0])) if single else NonCentred(None, {}, names)
        )
    if one and is_positive(scales[0], walker):
        return NonCentred(scales[0], centring.places, names)
    return NonCentred(None, {}, names)


def _rooted(rv: Variable, centring: Centring, ends: list[_Path], walker: Walker) -> NonCentred:
    """A variable whose blocks are multiplied by a matrix, the same one on all paths, and by nothing else."""
    roots = [end.mixed.root for end in ends if end.mixed is not None]
    factors = [*roots, *(scale for end in ends for scale in end.scales)]
    names = {*free_ancestors(factors, walker)}.union(*(end.loadings for end in ends))
    mixed = ends[0].mixed
    deviation = rv.owner.op.dist_params(rv.owner)[1]
    alone = all(end.mixed is not None and not end.scales and not end.loadings for end in ends)
    if mixed is None or not alone or not fm.is_constant(walker.form(deviation)):
        return NonCentred(None, {}, tuple(sorted(names)))
    same = all(
        np.array_equal(end.mixed.blocks, mixed.blocks) and same_scale(mixed.root, end.mixed.root, walker)  # type: ignore[union-attr]
        for end in ends
    )
    known = np.unique(walker.value(deviation))
    if not same or known.size > 1:
        return NonCentred(None, {}, tuple(sorted(names)))
    root = mixed.root * float(known[0])
    structure = BlockStructure(pt.dot(root, root.T), mixed.blocks, root=root)
    return NonCentred(None, centring.places, tuple(sorted(names)), structure)


def _is_known(own: Structure, walker: Walker) -> bool:
    """Whether a joint normal density has mean zero and no parameters."""
    mean = np.zeros(1) if own.location is None else walker.form(own.location)
    return (
        fm.is_constant(mean)
        and not np.any(mean)
        and all(fm.is_constant(walker.form(expression)) for expression, _ in own.expressions)
    )


def _is_known_normal(rv: Variable, walker: Walker) -> bool:
    """Whether the variable is normal, or zero-sum normal, with mean zero and a known standard deviation."""
    if isinstance(rv.owner.op, ZeroSumNormalRV):
        return fm.is_constant(walker.form(rv.owner.inputs[2]))
    if not isinstance(rv.owner.op, NormalRV):
        return False
    mean, deviation = (walker.form(parameter) for parameter in rv.owner.op.dist_params(rv.owner))
    return fm.is_constant(mean) and fm.is_constant(deviation) and not np.any(np.asarray(mean))
