"""What hlik knows of a graph node without running the model: constant, affine, a function of an affine form.

A node's *form* is one of

* a NumPy array (or SciPy sparse matrix): data, known now;
* `Affine`: ``value = J @ x + offset`` with ``x`` the value variables of the model;
* `Mapped`: an elementwise function of one affine form, ``value = f(J @ x + offset)``. ``exp`` is kept apart
  (`is_exp`), because it is closed under products: ``exp(a) * exp(b) = exp(a + b)``, which is what makes
  ``exp(eta) * u[idx]`` and ``exp(eta + log(u)[idx])`` the same form;
* `Product`: data times functions of several affine forms, as ``alpha / mu`` in a Gamma's rate; its factors
  cancel when the mean ``alpha / (alpha / mu)`` is made of it (see `hlik.graph.products`);
* `Opaque`: anything else; only the names of the variables it depends on are known.

`mapped` normalises: a function that is affine, constant or log-affine on a fixed set of test points (to 1e-11,
which no two different textbook functions meet by chance) becomes that simpler form, so that
``logit(sigmoid(a))``, ``log(p / (1 - p))`` and ``a`` are one form however they were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from hlik.graph import rows as lin
from hlik.graph.rows import Rows

Function = Callable[[np.ndarray], np.ndarray]

TEST_POINTS = np.array([-2.71, -1.93, -1.27, -0.61, -0.23, 0.17, 0.53, 1.09, 1.61, 2.37])
FAR_POINTS = np.array([-8.0, 8.0])  # a clipped function differs there
TOLERANCE = 1e-11  # relative; forward evaluation of a few elementary functions loses two or three digits
FAR_TOLERANCE = 1e-6  # ... and more in the tails


@dataclass(frozen=True, eq=False)
class Affine:
    """``value = sum_k rows[k] @ x_k + offset``, elements in C order; `offset` has the node's shape."""

    rows: dict[str, Rows]
    offset: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the node."""
        return self.offset.shape

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the variables with a non-empty map."""
        return frozenset(self.rows)


@dataclass(frozen=True, eq=False)
class Mapped:
    """``value = function(affine)`` elementwise; `is_exp` marks the exponential."""

    function: Function
    affine: Affine
    is_exp: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the node."""
        return self.affine.shape

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the variables it depends on."""
        return self.affine.inputs


@dataclass(frozen=True, eq=False)
class Product:
    """``value = coefficient * prod_k f_k(a_k)`` elementwise; no a_k is a multiple of another, plus a number.

    At most one factor is an exponential; an affine factor is a `Mapped` with the identity. `coefficient`
    broadcasts to the shape; beside an exponential it holds signs only.
    """

    coefficient: np.ndarray
    factors: tuple[Mapped, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the node."""
        return np.broadcast_shapes(self.coefficient.shape, *(factor.shape for factor in self.factors))

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the variables it depends on."""
        return frozenset().union(*(factor.inputs for factor in self.factors))


@dataclass(frozen=True, eq=False)
class Opaque:
    """A node known only by what it depends on, and why reading stopped there.

    `culprits` are the variables of a term that would have to be linear and is a function of them.
    """

    inputs: frozenset[str]
    shape: tuple[int, ...] | None = None
    reason: str = field(default="")
    culprits: frozenset[str] = frozenset()


Form = np.ndarray | sp.sparray | Affine | Mapped | Product | Opaque


def is_constant(form: Form) -> bool:
    """Whether the form is data."""
    return not isinstance(form, Affine | Mapped | Product | Opaque)


def inputs_of(form: Form) -> frozenset[str]:
    """Names of the variables a form depends on (empty for data)."""
    return form.inputs if isinstance(form, Affine | Mapped | Product | Opaque) else frozenset()


def curved_inputs(forms: Iterable[Form]) -> frozenset[str]:
    """Variables of the forms that are a function, not affine, of one affine form (times data)."""
    curved = [f for f in forms if isinstance(f, Mapped) or (isinstance(f, Product) and len(f.factors) == 1)]
    return frozenset().union(*(form.inputs for form in curved))


def shape_of(form: Form) -> tuple[int, ...] | None:
    """Shape of a form, None where it is opaque and unknown."""
    return form.shape if isinstance(form, Affine | Mapped | Product | Opaque) else np.shape(form)


def variable(name: str, shape: tuple[int, ...]) -> Affine:
    """The form of a value variable itself."""
    return Affine({name: lin.identity(int(np.prod(shape, dtype=int)))}, np.zeros(shape))


def identity_function(values: np.ndarray) -> np.ndarray:
    """Values as they are: the function of an affine factor."""
    return values


def exponential(affine: Affine) -> Mapped:
    """``exp(affine)``."""
    return Mapped(np.exp, affine, is_exp=True)


def mapped(function: Function, affine: Affine, magnitude: float = 0.0) -> Form:
    """``function(affine)`` in its simplest form: constant, affine, plus or minus an exponential, or as it is.

    `magnitude` is the size of the terms whose sum the function is: rounding of that size counts as zero.
    """
    with np.errstate(all="ignore"):
        values, far = (np.asarray(function(points), dtype=float) for points in (TEST_POINTS, FAR_POINTS))
        line = _line(values, far, magnitude)
        if line is not None:
            slope, intercept = line
            return np.full(affine.shape, intercept) if slope == 0 else scaled(affine, slope, intercept)
        for sign in (1.0, -1.0):
            if np.all(sign * values[np.isfinite(values)] > 0):
                line = _line(np.log(sign * values), np.log(sign * far))
                if line is not None:
                    power = exponential(scaled(affine, *line))
                    return power if sign > 0 else Product(np.array(-1.0), (power,))
    return Mapped(function, affine)


def _line(values: np.ndarray, far: np.ndarray, magnitude: float = 0.0) -> tuple[float, float] | None:
    """Slope and intercept where the values at the test points lie on a line, else None."""
    finite = np.isfinite(values)
    if finite.sum() < 4:
        return None
    points, values = TEST_POINTS[finite], values[finite]
    slope = (values[-1] - values[0]) / (points[-1] - points[0])
    intercept = values[0] - slope * points[0]
    magnitude = max(float(np.max(np.abs(values))), magnitude, 1e-300)
    if np.max(np.abs(slope * points + intercept - values)) > TOLERANCE * magnitude:
        return None
    error = np.abs(slope * FAR_POINTS + intercept - far)[np.isfinite(far)]
    if np.any(error > FAR_TOLERANCE * (magnitude + abs(8 * slope))):
        return None
    if abs(slope) < 1e-13 * magnitude:
        slope, intercept = 0.0, float(np.mean(values))
    return rounded(slope), 0.0 if abs(intercept) < 1e-14 * magnitude else rounded(intercept)


def rounded(number: float) -> float:
    """`number`, or the multiple of 1/2 within 1e-11 of it: keeps exact structure (a - a = 0) through rounding."""
    nearest = round(2 * number) / 2
    return nearest if abs(number - nearest) < TOLERANCE * abs(number) else float(number)


def scaled(affine: Affine, slope: float | np.ndarray, intercept: float | np.ndarray = 0.0) -> Affine:
    """``slope * affine + intercept`` with arrays that broadcast to the affine's shape."""
    slope, intercept = np.asarray(slope, float), np.asarray(intercept, float)
    if slope.ndim and slope.size == 1:
        slope = slope.reshape(())
    weight = slope if slope.ndim == 0 else np.broadcast_to(slope, affine.shape).ravel()
    if slope.ndim == 0 and slope == 1.0:
        maps = affine.rows
    else:
        maps = {name: lin.scale(rows, weight) for name, rows in affine.rows.items()}
    offset = affine.offset * slope + intercept
    return Affine(maps, np.asarray(offset, float))


def broadcast(affine: Affine, shape: tuple[int, ...]) -> Affine:
    """The affine form repeated to `shape`, by NumPy's rules."""
    if affine.shape == shape:
        return affine
    size = affine.offset.size
    if size == 1:
        index = np.zeros(int(np.prod(shape, dtype=int)), dtype=np.int32)
    else:
        index = np.broadcast_to(np.arange(size, dtype=np.int32).reshape(affine.shape), shape).ravel()
    return Affine(
        {name: lin.take(rows, index) for name, rows in affine.rows.items()},
        np.array(np.broadcast_to(affine.offset, shape)),
    )


def gathered(affine: Affine, index: np.ndarray) -> Affine:
    """The elements `index` (any shape, flat positions in C order)."""
    flat = index.ravel()
    maps = {name: lin.take(rows, flat) for name, rows in affine.rows.items()}
    return Affine(maps, affine.offset.ravel()[flat].reshape(index.shape))


def rearranged(form: Form, index: np.ndarray) -> Form:
    """The elements `index` (any shape, flat positions in C order) of any form but an opaque one."""
    if isinstance(form, Affine):
        return gathered(form, index)
    if isinstance(form, Mapped):
        return Mapped(form.function, gathered(form.affine, index), form.is_exp)
    if isinstance(form, Product):
        coefficient = form.coefficient
        if coefficient.ndim:
            coefficient = np.broadcast_to(coefficient, form.shape).ravel()[index]
        moved = [gathered(broadcast(factor.affine, form.shape), index) for factor in form.factors]
        pairs = zip(form.factors, moved, strict=True)
        return Product(coefficient, tuple(Mapped(f.function, affine, f.is_exp) for f, affine in pairs))
    return np.asarray(form).ravel()[index]


def total(left: Affine, right: Affine, sign: float = 1.0) -> Form:
    """``left + sign * right``; maps that cancel are dropped, and what has none left is data."""
    shape = np.broadcast_shapes(left.shape, right.shape)
    left, right = broadcast(left, shape), broadcast(right, shape)
    if sign != 1.0:
        right = scaled(right, sign)
    maps = dict(left.rows)
    for name, rows in right.rows.items():
        if name in maps:
            both = lin.add(maps[name], rows)
            if lin.is_zero(both):
                del maps[name]
            else:
                maps[name] = both
        else:
            maps[name] = rows
    offset = left.offset + right.offset
    return Affine(maps, offset) if maps else offset


def same_affine(left: Affine, right: Affine) -> bool:
    """Whether two affine forms are equal in every entry, but for the last few bits."""
    if left is right:
        return True
    return (
        left.shape == right.shape
        and left.rows.keys() == right.rows.keys()
        and lin.close(left.offset, right.offset)
        and all(lin.same(rows, right.rows[name]) for name, rows in left.rows.items())
    )


def evaluate(form: Affine | Mapped, x: dict[str, np.ndarray]) -> np.ndarray:
    """The node's value at the value variables `x` (name -> array of any shape)."""
    affine = form if isinstance(form, Affine) else form.affine
    value = affine.offset.ravel().copy()
    for name, rows in affine.rows.items():
        value += lin.multiply(rows, np.ravel(x[name]))
    value = value.reshape(affine.shape)
    return value if isinstance(form, Affine) else form.function(value)
