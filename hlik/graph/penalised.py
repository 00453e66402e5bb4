"""Densities of parameters as terms of h, for penalised likelihood: each becomes a potential of a clone of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pymc as pm
from pymc.model.fgraph import clone_model

from hlik.errors import ModelError
from hlik.graph.arguments import as_pymc
from hlik.graph.choose import PRIOR_OF_COEFFICIENT
from hlik.graph.describe import distribution_name
from hlik.graph.read import read_model
from hlik.model import HierarchicalModel
from hlik.penalty import Penalty

FLAT = ("Flat", "HalfFlat")
PRIOR_OF_PARAMETER = "prior of "
OBSTACLE = (
    "EQL solves estimating equations without densities of parameters: priors='penalise' is for estimators that "
    "maximise a likelihood, such as hlik.Laplace()"
)


def read_penalised(
    model: Any,
    *,
    random: Sequence[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
) -> HierarchicalModel:
    """Read a model with the log densities of its parameters as terms of h.

    The densities are those of the natural scale, without the Jacobian of the transform: the maximum is that of the
    likelihood times the prior density as it is written in the model, and does not depend on PyMC's transforms.
    Parameters held fixed, and flat priors, count as constants. Arguments are those of `read_model`.

    Raises
    ------
    ModelError
        Where PyMC does not give a log density.
    """
    original = as_pymc(model)
    plain = read_model(original, random=random, fixed=fixed, weights=weights)
    roles = {p.name: p.role for p in plain.parameters if distribution_name(original[p.name]) not in FLAT}
    effects = [effect.name for effect in plain.random_effects]
    read = read_model(_with_potentials(original, roles), random=effects, fixed=fixed, weights=weights)
    terms = read.extra_terms[len(plain.extra_terms) :]
    penalty = Penalty(tuple(terms), plain.n_rows, plain.obstacles)
    return replace(read, penalty=penalty, obstacles=(OBSTACLE, *plain.obstacles))


def _with_potentials(model: pm.Model, roles: Mapping[str, str]) -> pm.Model:
    """A clone of the model with a potential a parameter, its variables in the order of the model."""
    clone = clone_model(model)
    for kind in ("free_RVs", "observed_RVs", "deterministics", "potentials"):
        order = [variable.name for variable in getattr(model, kind)]
        getattr(clone, kind).sort(key=lambda variable, order=order: order.index(variable.name))
    with clone:
        for name, role in roles.items():
            rv = clone[name]
            copy = rv.owner.clone().outputs[rv.index]
            try:
                density = pm.logp(copy, rv)
            except (NotImplementedError, RuntimeError, ValueError) as error:
                raise ModelError(
                    f"priors='penalise': PyMC does not give the log density of {name!r} ({error}); give it another "
                    f"prior, or pm.Flat."
                ) from error
            prefix = PRIOR_OF_COEFFICIENT if role == "fixed effect" else PRIOR_OF_PARAMETER
            pm.Potential(prefix + name, density)
    return clone
