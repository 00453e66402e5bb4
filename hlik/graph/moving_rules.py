"""Rules for Ops that only move elements: indexing, joining, reshaping (see `hlik.graph.rules`).

They share one trick: run the Op itself on element numbers, and read from the result which element went where.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.tensor.basic import Alloc, ExtractDiag, Join, MakeVector, Split
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.shape import Reshape
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedIncSubtensor1,
    AdvancedSubtensor,
    AdvancedSubtensor1,
    IncSubtensor,
    Subtensor,
)

from hlik.errors import ModelError
from hlik.graph import algebra, products
from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped
from hlik.graph.numeric import values_of_node
from hlik.graph.rules import element_numbers, propagate, unknown


@propagate.register(Subtensor)
@propagate.register(AdvancedSubtensor)
@propagate.register(AdvancedSubtensor1)
@propagate.register(ExtractDiag)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    if not all(fm.is_constant(form) for form in forms[1:]):
        return unknown(node, forms)
    try:
        numbers = values_of_node(node, [element_numbers(forms[0]), *forms[1:]])[0]
    except IndexError as error:
        whose = ", ".join(map(repr, sorted(fm.inputs_of(forms[0])))) or "data"
        raise ModelError(
            f"An index of {whose}, of shape {fm.shape_of(forms[0])}, does not fit: {error}. Levels are numbered from 0."
        ) from None
    return fm.rearranged(forms[0], numbers)


@propagate.register(Split)
def _(op: Split, node: Apply, forms: Sequence[Form]) -> tuple[Form, ...]:
    numbers = values_of_node(node, [element_numbers(forms[0]), *forms[1:]])
    return tuple(fm.rearranged(forms[0], part) for part in numbers)


@propagate.register(DimShuffle)
def _(op: DimShuffle, node: Apply, forms: Sequence[Form]) -> Form:
    form = forms[0]
    numbers = values_of_node(node, [element_numbers(form)])[0]
    affine = form.affine if isinstance(form, Mapped) else form
    if isinstance(affine, Affine) and list(op.shuffle) == sorted(op.shuffle):  # only the shape changes
        moved = Affine(affine.rows, affine.offset.reshape(numbers.shape))
        return Mapped(form.function, moved, form.is_exp) if isinstance(form, Mapped) else moved
    return fm.rearranged(form, numbers)


@propagate.register(Reshape)
def _(op: Reshape, node: Apply, forms: Sequence[Form]) -> Form:
    if not fm.is_constant(forms[1]):
        return unknown(node, forms)
    return fm.rearranged(forms[0], element_numbers(forms[0]).reshape([int(k) for k in np.asarray(forms[1])]))


@propagate.register(Alloc)
def _(op: Alloc, node: Apply, forms: Sequence[Form]) -> Form:
    if not all(fm.is_constant(form) for form in forms[1:]):
        return unknown(node, forms)
    shape = tuple(int(np.asarray(size)) for size in forms[1:])
    return fm.rearranged(forms[0], np.broadcast_to(element_numbers(forms[0]), shape))


@propagate.register(Join)
def _(op: Join, node: Apply, forms: Sequence[Form]) -> Form:
    return _assembled(node, forms[:1], forms[1:])


@propagate.register(MakeVector)
def _(op: MakeVector, node: Apply, forms: Sequence[Form]) -> Form:
    return _assembled(node, (), forms)


@propagate.register(IncSubtensor)
@propagate.register(AdvancedIncSubtensor)
@propagate.register(AdvancedIncSubtensor1)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    if not all(fm.is_constant(form) for form in forms[2:]):
        return unknown(node, forms)
    if op.set_instead_of_inc:  # type: ignore[attr-defined]
        return _assembled(node, (), forms[:2], after=forms[2:])
    return algebra.add([forms[0], _increment(node, forms)])


def _increment(node: Apply, forms: Sequence[Form]) -> Form:
    """What is added: the second form at its places in zeros; opaque where a place is met twice."""
    zeros, numbers = np.zeros(fm.shape_of(forms[0])), element_numbers(forms[1])  # type: ignore[arg-type]
    met = values_of_node(node, [zeros, np.ones(numbers.shape), *forms[2:]])[0]
    if np.any(met > 1):
        return unknown(node, forms)
    index = values_of_node(node, [zeros, numbers + 1.0, *forms[2:]])[0]
    return joined(node, [np.zeros(1), forms[1]], index.astype(np.int64))


def _assembled(node: Apply, before: Sequence[Form], parts: Sequence[Form], after: Sequence[Form] = ()) -> Form:
    """Output of an Op that puts elements of `parts` in new places: run on numbers, gather from the stack."""
    numbers, start = [], 0
    for part in parts:
        numbers.append(element_numbers(part) + start)
        start += numbers[-1].size
    index = values_of_node(node, [*before, *numbers, *after])[0]
    return joined(node, parts, np.asarray(index, dtype=np.int64))


def joined(node: Apply, parts: Sequence[Form], index: np.ndarray) -> Form:
    """The elements `index` of all parts one after the other: affine, exponential, or all the same function."""
    if all(isinstance(part, Affine) or fm.is_constant(part) for part in parts):
        return fm.gathered(_stacked(parts), index)
    if all(_is_exponential(part) for part in parts):
        exponents = [products.logarithm(part) if isinstance(part, Mapped) else np.log(part) for part in parts]  # type: ignore[arg-type]
        return fm.exponential(fm.gathered(_stacked(exponents), index))
    mapped = [part for part in parts if isinstance(part, Mapped)]
    if len(mapped) == len(parts) and all(algebra.same_function(mapped[0].function, part.function) for part in mapped):
        return Mapped(mapped[0].function, fm.gathered(_stacked([part.affine for part in mapped]), index))
    return unknown(node, parts)


def _is_exponential(part: Form) -> bool:
    if isinstance(part, Mapped):
        return part.is_exp
    return fm.is_constant(part) and products.is_positive(part)


def _stacked(parts: Sequence[Form]) -> Affine:
    """The elements of affine parts and data in one long vector."""
    affine = [part if isinstance(part, Affine) else Affine({}, np.asarray(part, float)) for part in parts]
    lengths = [part.offset.size for part in affine]
    sizes = {name: rows.size for part in affine for name, rows in part.rows.items()}
    maps = {name: lin.stack([part.rows.get(name) for part in affine], lengths, k) for name, k in sizes.items()}
    return Affine(maps, np.concatenate([part.offset.ravel() for part in affine]))
