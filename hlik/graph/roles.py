"""Which free variable is a random effect and which a parameter.

Rules, in this order (``random=`` overrides the first two):

1. a free variable whose distribution depends on another free variable is a random effect;
2. a normal one with mean zero and known deviation that reaches the responses only multiplied by parameters is a
   non-centred random effect, read as its centred self ``v = scale * z`` (see `hlik.graph.centring`);
3. the rest are parameters.

Variables that no response depends on are not part of the likelihood. A variance with a hyperprior meets rule 1
without being an effect: what looks like that is an error that asks for ``random=``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pymc as pm
from pytensor.graph.basic import Variable

from hlik.errors import ModelError
from hlik.graph.ancestry import clients_of, direct_ancestors, free_ancestors, free_parents, targets_of
from hlik.graph.centring import non_centred
from hlik.graph.describe import listed
from hlik.graph.families import random_parts
from hlik.graph.walk import Walker


@dataclass
class Roles:
    """Names by role, in the order of the model.

    Attributes
    ----------
    missing
        Missing values of masked responses.
    unused
        Variables that no response depends on, missing values included: they are left out.
    scale_of
        The scale of each non-centred effect.
    multipliers_of
        For effects that are multiplied by parameters without one scale, the names of those.
    rooted
        Non-centred effects that are multiplied by a root of their covariance matrix.
    """

    random_effects: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    scale_of: dict[str, Variable] = field(default_factory=dict)
    multipliers_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rooted: list[str] = field(default_factory=list)

    def loading_obstacle(self, name: str) -> str | None:
        """Why EQL cannot serve an effect that is multiplied by parameters without one scale."""
        if name not in self.multipliers_of:
            return None
        return (
            f"random effect {name!r} is multiplied by {listed(self.multipliers_of[name])}, not by one positive scale "
            f"of each of its elements (correlated effects, loadings): EQL takes independent effects"
        )


def assign_roles(model: pm.Model, walker: Walker, random: Sequence[str] | None) -> Roles:
    """Tell random effects from parameters; the walker then reads non-centred effects as centred."""
    names = {rv.name: rv for rv in model.free_RVs}
    check_names("random", random, names)
    roles = Roles(missing=[name for name in names if _is_missing_response(model, walker, name)])
    direct = direct_ancestors(model, walker)
    live = {n: rv for n, rv in names.items() if n not in walker.fixed and n not in roles.missing}
    chosen = {name for name, rv in live.items() if free_parents(rv, walker)} if random is None else set(random)
    relevant = _relevant(direct, chosen, names, walker)
    roles.unused = [name for name in roles.missing if name not in direct]
    clients = clients_of(targets_of(model))
    for name, rv in live.items():
        if name not in relevant:
            roles.unused.append(name)
            continue
        found = None if free_parents(rv, walker) else non_centred(rv, clients, walker)
        if name not in chosen and (random is not None or found is None):
            roles.parameters.append(name)
            continue
        roles.random_effects.append(name)
        if found is not None and found.scale is not None:
            roles.scale_of[name] = found.scale
            walker.centre(found.places)
        elif found is not None and found.structure is not None:
            roles.rooted.append(name)
            walker.structures[name] = found.structure
            walker.centre(found.places)
        elif found is not None:
            roles.multipliers_of[name] = found.multipliers
    _check_discrete([*roles.parameters, *roles.random_effects], names)
    if random is None:
        _check_doubtful(roles, direct, names, walker)
    return roles


def check_names(argument: str, given: Sequence[str] | None, names: dict[str, Variable]) -> None:
    """Refuse a string in the place of a list, and names that the model does not have."""
    if isinstance(given, str):
        raise ModelError(f"{argument}= takes a list of names; got the string {given!r}: write [{given!r}].")
    wrong = [name for name in given or () if name not in names]
    if wrong:
        raise ModelError(
            f"{argument}= names {wrong}, which the model does not have as free variables. It has {sorted(names)}."
        )


def _relevant(direct: Sequence[str], chosen: set[str], names: dict[str, Variable], walker: Walker) -> set[str]:
    """Free variables that some response depends on, through the densities of random effects too."""
    relevant: set[str] = set()
    waiting = list(direct)
    while waiting:
        name = waiting.pop()
        if name not in relevant:
            relevant.add(name)
            if name in chosen:
                waiting += free_parents(names[name], walker)
    return relevant


def _is_missing_response(model: pm.Model, walker: Walker, name: str) -> bool:
    """PyMC splits a masked response ``y`` into ``y_observed`` and the free variable ``y_unobserved``."""
    base = name.removesuffix("_unobserved")
    return base != name and any(rv.name == f"{base}_observed" for rv in model.observed_RVs)


def _check_discrete(relevant: Sequence[str], names: dict[str, Variable]) -> None:
    for name in relevant:
        if not names[name].type.dtype.startswith("float"):
            raise ModelError(
                f"{name!r} is discrete: hlik maximises and integrates over continuous variables only. Sum it out "
                f"of the model (pm.Mixture), or hold it fixed with fixed={{{name!r}: ...}}."
            )


def _check_doubtful(roles: Roles, direct: Sequence[str], names: dict[str, Variable], walker: Walker) -> None:
    """Refuse to guess the role of a constrained or scalar variable that looks like a variance with a hyperprior."""
    scales = set(free_ancestors(roles.scale_of.values(), walker))
    means = {*direct, *_location_inputs(roles, names, walker)} - scales
    for name in roles.random_effects:
        rv = names[name]
        constrained = walker.model.rvs_to_transforms.get(rv) is not None
        single = int(np.prod(walker.shape(rv), dtype=int)) == 1
        if free_parents(rv, walker) and ((single and constrained) or (name not in means and (single or constrained))):
            raise doubtful(name, free_parents(rv, walker), roles)


def doubtful(name: str, parents: Sequence[str], roles: Roles) -> ModelError:
    """The error for a variable whose role cannot be told."""
    others = [effect for effect in roles.random_effects if effect != name]
    return ModelError(
        f"Cannot tell whether {name!r} is a parameter or a random effect: its distribution depends on "
        f"{listed(parents)}. Pass random={others} if it is a parameter (its prior is then ignored, and "
        f"{listed(parents)} with it), random={[*others, name]} if it is a random effect."
    )


def _location_inputs(roles: Roles, names: dict[str, Variable], walker: Walker) -> set[str]:
    """Free variables in the mean of a normal random effect."""
    found: set[str] = set()
    for name in roles.random_effects:
        parts = random_parts(names[name].owner.op, names[name])
        if parts is not None and parts.location is not None:
            found.update(free_ancestors([parts.location], walker))
    return found
