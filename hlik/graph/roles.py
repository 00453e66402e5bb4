"""Which free variable is a random effect and which a parameter.

Rules, in this order (``random=`` overrides the first two):

1. a free variable whose distribution depends on another free variable is a random effect;
2. a standard-normal one that reaches the responses only multiplied by a positive function of parameters is a
   non-centred random effect, read as its centred self ``v = scale * z``;
3. the rest are parameters.

Variables that no response depends on are not part of the likelihood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pymc as pm
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Apply, Variable
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.random.basic import NormalRV
from pytensor.tensor.subtensor import AdvancedSubtensor, AdvancedSubtensor1, Subtensor
from pytensor.tensor.blockwise import Blockwise
from pytensor.scalar import basic as ps

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.forms import Mapped, Opaque
from hlik.graph.walk import Walker


@dataclass
class Roles:
    """Names by role, in the order of the model; `scale_of` gives the scale of each non-centred effect."""

    random_effects: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    scale_of: dict[str, Variable] = field(default_factory=dict)


def assign_roles(model: pm.Model, walker: Walker, random: Sequence[str] | None) -> Roles:
    """Tell random effects from parameters; marks the centring nodes of non-centred effects in the walker."""
    roles = Roles()
    names = {rv.name: rv for rv in model.free_RVs}
    _check_names("random", random or (), names)
    roles.missing = [name for name in names if _is_missing_response(model, name)]
    relevant = _relevant(model, walker)
    clients = _clients(_targets(model))
    for name, rv in names.items():
        if name in roles.missing or name in walker.fixed:
            continue
        if name not in relevant:
            roles.unused.append(name)
            continue
        parents = free_parents(rv, walker)
        centring = None if parents else _centring(rv, clients, walker)
        is_random = name in random if random is not None else bool(parents or centring)
        if is_random:
            roles.random_effects.append(name)
            if centring:
                roles.scale_of[name] = centring[1]
                walker.centring.update(centring[0])
        else:
            roles.parameters.append(name)
    return roles


def _check_names(argument: str, given: Iterable[str], names: dict[str, Variable]) -> None:
    if isinstance(given, str):
        raise ModelError(f"{argument}= takes a list of names; got the string {given!r}: write [{given!r}].")
    wrong = [name for name in given if name not in names]
    if wrong:
        raise ModelError(
            f"{argument}= names {wrong}, which the model does not have as free variables. It has {sorted(names)}."
        )


def free_parents(rv: Variable, walker: Walker) -> list[str]:
    """Free variables (fixed ones excepted) that the distribution of `rv` depends on directly."""
    return [name for name in _free_ancestors(rv.owner.inputs, walker) if name not in walker.fixed]


def _free_ancestors(starts: Iterable[Variable], walker: Walker) -> list[str]:
    """Names of the free variables met when walking up from `starts`, not going past one."""
    found: dict[str, None] = {}
    stack, seen = list(starts), set()
    while stack:
        variable = stack.pop()
        if variable in seen:
            continue
        seen.add(variable)
        if variable in walker.free:
            found[walker.free[variable]] = None
        elif variable not in walker.observed and variable.owner is not None:
            stack.extend(variable.owner.inputs)
    return list(found)


def _targets(model: pm.Model) -> list[Variable]:
    return [*model.observed_RVs, *model.potentials]


def _relevant(model: pm.Model, walker: Walker) -> set[str]:
    """Free variables that some response or potential depends on, through other random effects too."""
    names = {rv.name: rv for rv in model.free_RVs}
    starts = [source for rv in model.observed_RVs for source in rv.owner.inputs] + list(model.potentials)
    relevant: set[str] = set()
    waiting = _free_ancestors(starts, walker)
    while waiting:
        name = waiting.pop()
        if name not in relevant:
            relevant.add(name)
            waiting.extend(_free_ancestors(names[name].owner.inputs, walker))
    return relevant


def _is_missing_response(model: pm.Model, name: str) -> bool:
    """PyMC splits a masked response ``y`` into ``y_observed`` and the free variable ``y_unobserved``."""
    base = name.removesuffix("_unobserved")
    return base != name and any(rv.name == f"{base}_observed" for rv in model.observed_RVs)


# ---------------------------------------------------------------- non-centred effects


def _clients(targets: Sequence[Variable]) -> dict[Variable, list[Apply]]:
    """The nodes between the targets and their inputs that use each variable."""
    clients: dict[Variable, list[Apply]] = {}
    stack, seen = [variable.owner for variable in targets if variable.owner is not None], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for source in node.inputs:
            clients.setdefault(source, []).append(node)
            if source.owner is not None:
                stack.append(source.owner)
    return clients


def _centring(
    rv: Variable, clients: dict[Variable, list[Apply]], walker: Walker
) -> tuple[dict[Variable, Variable], Variable] | None:
    """Product nodes ``scale * z`` through which a standard-normal `rv` reaches the responses, and the scale."""
    if not isinstance(rv.owner.op, NormalRV) or rv.type.ndim == 0 or not _is_standard(rv, walker):
        return None
    products: dict[Variable, Variable] = {}
    scales: list[Variable] = []
    waiting = [(rv, True)]
    while waiting:
        variable, own_level = waiting.pop()
        for node in clients.get(variable, []):
            scale = _scale_operand(node, variable, own_level, walker)
            if scale is not None:
                products[node.outputs[0]] = variable
                scales.append(scale)
            elif _is_linear_in(node, variable, walker):
                waiting.append((node.outputs[0], own_level and isinstance(node.op, DimShuffle | ViewOp)))
            else:
                return None
    if not scales or not _all_same(scales, walker):
        return None
    return products, scales[0]


def _is_standard(rv: Variable, walker: Walker) -> bool:
    mean, deviation = (walker.form(parameter) for parameter in rv.owner.op.dist_params(rv.owner))
    return (
        fm.is_constant(mean)
        and fm.is_constant(deviation)
        and bool(np.all(np.asarray(mean) == 0))
        and bool(np.all(np.asarray(deviation) == 1))
    )


def _scale_operand(node: Apply, variable: Variable, own_level: bool, walker: Walker) -> Variable | None:
    """The other operand of a product, where it is a positive function of parameters."""
    if not (
        isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, ps.Mul) and len(node.inputs) == 2
    ):
        return None
    other = node.inputs[1] if node.inputs[0] is variable else node.inputs[0]
    if other is variable or not _free_ancestors([other], walker):
        return None
    form = walker.form(other)
    scalar = int(np.prod(form.shape)) == 1 if not fm.is_constant(form) and form.shape is not None else False  # type: ignore[union-attr]
    return other if (own_level or scalar) and _is_positive(form, other, walker) else None


def _is_positive(form: fm.Form, variable: Variable, walker: Walker) -> bool:
    if isinstance(form, Mapped):
        values = form.function(fm.TEST_POINTS)
        return bool(np.all(values[np.isfinite(values)] > 0))
    if isinstance(form, Opaque):  # a positive function of several parameters, each constrained by a transform
        names = _free_ancestors([variable], walker)
        return all(walker.model.rvs_to_transforms.get(walker.model[name]) is not None for name in names)
    return False


def _is_linear_in(node: Apply, variable: Variable, walker: Walker) -> bool:
    """Whether the node is linear in `variable` with data for the rest, so that a scalar factor passes through."""
    others = [source for source in node.inputs if source is not variable]
    if any(_free_ancestors([other], walker) for other in others):
        return False
    if isinstance(node.op, DimShuffle | ViewOp | Sum | Dot):
        return True
    if isinstance(node.op, Subtensor | AdvancedSubtensor | AdvancedSubtensor1):
        return node.inputs[0] is variable
    if isinstance(node.op, Blockwise):
        return isinstance(node.op.core_op, Dot)
    return isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, ps.Mul)


def _all_same(scales: Sequence[Variable], walker: Walker) -> bool:
    first = walker.form(scales[0])
    for other in scales[1:]:
        form = walker.form(other)
        if form is first:
            continue
        if not (
            isinstance(first, Mapped)
            and isinstance(form, Mapped)
            and fm.same_affine(first.affine, form.affine)
        ):
            return False
    return True
