"""Closed form or tape: how each response, random effect and potential of a model becomes a term of h."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytensor.graph.basic import Variable
from pytensor.scalar import basic as ps
from pytensor.tensor.elemwise import CAReduce

from hlik.graph import forms as fm
from hlik.graph.elements import CannotLift
from hlik.graph.families import random_parts
from hlik.graph.lift import lift
from hlik.graph.predictors import Predictor
from hlik.graph.random_effects import closed_form_obstacle
from hlik.graph.roles import Roles
from hlik.graph.structures import structure
from hlik.graph.tapes import LiftedTerm, lift_random_effect, lift_response, stand_alone_size
from hlik.graph.walk import Walker

PRIOR_OF_COEFFICIENT = "prior of coefficient "  # what `hlik.graph.penalised` calls the density of a fixed effect


@dataclass
class Choice:
    """Terms without closed form, by name, and what could not be read even so."""

    responses: dict[str, LiftedTerm] = field(default_factory=dict)
    effects: dict[str, LiftedTerm] = field(default_factory=dict)
    potentials: dict[str, LiftedTerm] = field(default_factory=dict)
    obstacles: list[str] = field(default_factory=list)

    def lifted(self) -> list[LiftedTerm]:
        """All lifted terms."""
        return [*self.responses.values(), *self.effects.values(), *self.potentials.values()]


def choose_terms(walker: Walker, roles: Roles, predictors: Mapping[str, Predictor]) -> Choice:
    """Lift every log density that has no closed form here."""
    effects = set(roles.random_effects)
    choice = Choice()
    for rv in walker.model.observed_RVs:
        if not _is_closed(predictors[rv.name], effects):
            _try(choice, choice.responses, rv.name, lambda rv=rv: lift_response(walker, rv, effects.__contains__))
    for name in roles.random_effects:
        rv = walker.model[name]
        if name not in roles.scale_of and not structure(walker, rv) and not _has_closed_density(walker, rv, effects):
            _try(choice, choice.effects, name, lambda rv=rv: lift_random_effect(walker, rv, effects.__contains__))
    for potential in walker.model.potentials:
        _try(choice, choice.potentials, potential.name, lambda p=potential: _potential(walker, p, effects))
    return choice


def _has_closed_density(walker: Walker, rv: Variable, effects: set[str]) -> bool:
    """Whether a random effect's family is known and its dispersion a function of parameters only."""
    parts = random_parts(rv.owner.op, rv)
    if parts is None or closed_form_obstacle(walker, rv) is not None:
        return False
    return not fm.inputs_of(walker.form(parts.dispersion)) & effects


def _try(choice: Choice, target: dict[str, LiftedTerm], name: str, make) -> None:  # type: ignore[no-untyped-def]
    try:
        target[name] = make()
    except CannotLift as reason:
        choice.obstacles.append(
            f"the log density of {name!r} is no elementwise function of linear predictors: {reason}"
        )


def _is_closed(predictor: Predictor, effects: set[str]) -> bool:
    """Whether mean and dispersion of a response separate: the mean linear in effects, the dispersion free of them."""
    if predictor.parts is None or predictor.affine is None:
        return False
    return not (predictor.other_inputs & (effects | predictor.affine.inputs))


def _potential(walker: Walker, potential: Variable, effects: set[str]) -> LiftedTerm:
    """A potential; a sum is read as the elements of its vector, and coefficients stay linear in their prior."""
    if potential.name.startswith(PRIOR_OF_COEFFICIENT):
        effects = effects | {potential.name.removeprefix(PRIOR_OF_COEFFICIENT)}
    node = potential.owner
    inner = potential
    while node is not None and len(node.inputs) == 1 and type(node.op).__name__ == "ViewOp":
        inner, node = node.inputs[0], node.inputs[0].owner
    if node is not None and isinstance(node.op, CAReduce) and isinstance(node.op.scalar_op, ps.Add):
        inner = node.inputs[0]
    lifted = lift(walker, inner, effects.__contains__)
    return LiftedTerm(potential.name, lifted, stand_alone_size(walker, inner))
