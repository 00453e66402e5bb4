"""What is a fixed effect, and why the closed-form estimators cannot serve a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytensor.graph.basic import Variable as GraphVariable

from hlik.graph import forms as fm
from hlik.graph.ancestry import free_parents
from hlik.graph.choose import Choice
from hlik.graph.describe import distribution_parameters, listed
from hlik.graph.predictors import Predictor
from hlik.graph.roles import Roles, doubtful
from hlik.graph.structures import structure
from hlik.graph.walk import Walker
from hlik.model import RandomEffect, Response


def fixed_effect_names(walker: Walker, roles: Roles, predictors: Mapping[str, Predictor], choice: Choice) -> set[str]:
    """Parameters that enter linear predictors linearly and nothing else."""
    closed = {name: predictor for name, predictor in predictors.items() if name not in choice.responses}
    linear = linear_inputs(closed).union(*(term.linear_inputs for term in choice.lifted()))
    elsewhere = set().union(*(predictor.other_inputs for predictor in closed.values()))
    elsewhere = elsewhere.union(*(term.other_inputs(walker) for term in choice.lifted()))
    for name in roles.random_effects:
        if name not in choice.effects:
            elsewhere |= _density_inputs(walker, walker.model[name], roles)
    for potential in walker.model.potentials:
        if potential.name not in choice.potentials:
            elsewhere |= fm.inputs_of(walker.form(potential))
    return {name for name in roles.parameters if name in linear and name not in elsewhere}


def linear_inputs(predictors: Mapping[str, Predictor]) -> set[str]:
    """Free variables of the linear predictors."""
    return set().union(*(p.affine.inputs for p in predictors.values() if p.affine is not None))


def _density_inputs(walker: Walker, rv: GraphVariable, roles: Roles) -> set[str]:
    """Parameters in the density of a random effect, other than through the location taken out of it."""
    if rv.name in roles.scale_of:
        return set(fm.inputs_of(walker.form(roles.scale_of[rv.name])))
    found = structure(walker, rv)
    if found is not None:
        return set().union(*(fm.inputs_of(walker.form(expression)) for expression, _ in found.expressions))
    parameters = distribution_parameters(rv)[1 if rv.name in walker.locations else 0 :]
    return set().union(*(fm.inputs_of(walker.form(parameter)) for parameter in parameters))


def check_entries(walker: Walker, roles: Roles, predictors: Mapping[str, Predictor]) -> None:
    """Refuse to guess what a constrained variable with a hyperprior is that enters no linear predictor."""
    if any(predictor.affine is None for predictor in predictors.values()):
        return
    linear = linear_inputs(predictors)
    for name in roles.random_effects:
        rv = walker.model[name]
        parents = free_parents(rv, walker)
        if name not in linear and parents and walker.model.rvs_to_transforms.get(rv) is not None:
            raise doubtful(name, parents, roles)


def obstacles_of(
    walker: Walker,
    roles: Roles,
    responses: Sequence[Response],
    effects: Sequence[RandomEffect],
    predictors: Mapping[str, Predictor],
    fixed_names: set[str],
) -> list[str]:
    """Why the closed-form estimators cannot serve this model, a sentence each."""
    found = [response.obstacle for response in responses if response.obstacle]
    found += [effect.obstacle for effect in effects if effect.obstacle]
    for potential in walker.model.potentials:
        found.append(
            f"the potential {potential.name!r} is a free term of the likelihood: EQL knows responses and random "
            f"effects only"
        )
    linear, others = linear_inputs(predictors), set().union(*(p.other_inputs for p in predictors.values()))
    if not found:
        found += [
            f"{name!r} is a coefficient of a linear predictor and part of a dispersion at once"
            for name in roles.parameters
            if name in linear and name not in fixed_names
        ]
    missing = [name for name in roles.missing if name in linear | others]
    if missing:
        found.append(f"{listed(missing)}: missing values of a covariate, which EQL does not impute")
    return list(dict.fromkeys(found))
