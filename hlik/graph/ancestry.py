"""Who depends on whom in a model's graph: free variables above a node, nodes below a variable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pymc as pm
from pytensor.graph.basic import Apply, Variable

from hlik.graph.walk import Walker


def free_ancestors(starts: Iterable[Variable], walker: Walker) -> list[str]:
    """Names of the free variables met first when walking up from `starts`.

    Those held fixed count too: holding a standard deviation at a value makes no parameter of a random effect.
    """
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


def free_parents(rv: Variable, walker: Walker) -> list[str]:
    """Free variables that the distribution of `rv` depends on directly."""
    return free_ancestors(rv.owner.inputs, walker)


def targets_of(model: pm.Model) -> list[Variable]:
    """What the likelihood is made of: observed variables and potentials."""
    return [*model.observed_RVs, *model.potentials]


def direct_ancestors(model: pm.Model, walker: Walker) -> list[str]:
    """Free variables that a response or potential depends on, not through the density of another."""
    return free_ancestors([source for target in targets_of(model) for source in target.owner.inputs], walker)


def clients_of(targets: Sequence[Variable]) -> dict[Variable, list[Apply]]:
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
