"""Which terms of random effects are fitted through scores because there are more effects than observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hlik.errors import ModelError
from hlik.graph import rows as lin
from hlik.graph.forms import Affine
from hlik.maps import ConstantMap, LinkMap, ThetaMap
from hlik.model import RandomEffect
from hlik.wide import WideTerm

Stack = list[tuple[slice, Affine]]


def through_scores(
    stack: Stack, effects: Sequence[RandomEffect], given: Mapping[str, np.ndarray]
) -> tuple[Stack, list[RandomEffect]]:
    """The stack and the effects with scores in the place of wide terms (see `hlik.wide`).

    A term is wide where normal effects, of one variance but for known factors, enter through dense matrices that have
    fewer rows than columns. Terms with relative variances given are treated so in any case.
    """
    found: list[RandomEffect] = []
    start = 0
    for effect in effects:
        wide, dispersion = _wide(stack, effect, given.get(effect.name))
        size = effect.size if wide is None else wide.rank
        index = slice(start, start + size)
        start = index.stop
        if wide is None:
            found.append(replace(effect, index=index))
            continue
        stack = _with_design(stack, effect.name, wide)
        own = {"distribution": f"{effect.distribution} (relative variances given)"} if effect.name in given else {}
        found.append(replace(effect, index=index, wide=wide, dispersion=dispersion, **own))
    return stack, found


def _wide(stack: Stack, effect: RandomEffect, factor: np.ndarray | None) -> tuple[WideTerm | None, ThetaMap | None]:
    blocks = [affine.rows[effect.name] for _, affine in stack if effect.name in affine.rows]
    weight, dispersion = _common_dispersion(effect)
    can = (
        dispersion is not None
        and effect.family is not None
        and effect.family.name == "normal"
        and blocks
        and all(isinstance(block, lin.Dense | lin.Wide) for block in blocks)
    )
    if not can:
        if factor is not None:
            raise ModelError(
                f"{effect.name!r} must be normal effects of one variance that enter as Z @ {effect.name} with a dense "
                f"matrix Z, for relative variances of its elements."
            )
        return None, None
    parts = _distinct([block.matrix for block in blocks])  # type: ignore[union-attr]
    if factor is None and sum(part.shape[0] for part in parts) >= effect.size:
        return None, None
    if factor is not None:
        weight = factor if weight is None else weight * factor
    return WideTerm(tuple(parts), weight), dispersion


def _common_dispersion(effect: RandomEffect) -> tuple[np.ndarray | None, ThetaMap | None]:
    """Known relative variances, None for equal ones, and the variance that they are relative to; None if unknown."""
    dispersion = effect.dispersion
    if dispersion is None or dispersion.size == 1:
        return None, dispersion
    if isinstance(dispersion, ConstantMap):
        values = dispersion.values
        return values / values[0], ConstantMap(values[:1], dispersion.n_theta)
    if isinstance(dispersion, LinkMap) and dispersion.link.name == "log" and not np.any(np.ptp(dispersion.matrix, 0)):
        first = LinkMap(dispersion.matrix[:1], dispersion.offset[:1], dispersion.link)
        return np.exp(dispersion.offset - dispersion.offset[0]), first
    return None, None


def _distinct(matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The matrices, each object once."""
    return list({id(matrix): matrix for matrix in matrices}.values())


def _with_design(stack: Stack, name: str, wide: WideTerm) -> Stack:
    """The stack with the rows of an effect in terms of its scores."""
    starts = np.cumsum([0, *(part.shape[0] for part in wide.parts)])
    place = {id(part): (int(a), int(b)) for part, a, b in zip(wide.parts, starts[:-1], starts[1:], strict=True)}
    design = wide.design
    changed: Stack = []
    for rows, affine in stack:
        block = affine.rows.get(name)
        if block is not None:
            begin, end = place[id(block.matrix)]  # type: ignore[union-attr]
            own: lin.Rows = lin.Dense(design[begin:end])
            if isinstance(block, lin.Wide):
                own = lin.scale(own if block.index is None else lin.take(own, block.index), block.weight)
            affine = Affine({**affine.rows, name: own}, affine.offset)
        changed.append((rows, affine))
    return changed
