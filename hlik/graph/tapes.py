"""Log densities without closed form as terms of h: lifted to tapes, predictors and maps of theta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.distribution import PartialObservedRV
from pytensor.graph.basic import Variable
from pytensor.graph.replace import clone_replace

from hlik.graph import forms as fm
from hlik.graph.elements import CannotLift, Elements
from hlik.graph.lift import Lifted, lift
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.tape import TapeTerm, Tau


@dataclass(frozen=True, eq=False)
class LiftedTerm:
    """A term before theta is laid out: its tape, n, and the free variables in its predictors and elsewhere."""

    name: str
    lifted: Lifted
    n: int

    @property
    def linear_inputs(self) -> frozenset[str]:
        """Free variables that its predictors are affine in."""
        return frozenset().union(*(predictor.inputs for predictor in self.lifted.predictors))

    def other_inputs(self, walker: Walker) -> frozenset[str]:
        """Free variables in its expressions of theta."""
        return frozenset().union(*(fm.inputs_of(walker.form(variable)) for variable, _ in self.lifted.taus))

    def term(self, walker: Walker, layout: ThetaLayout, start: int) -> TapeTerm:
        """The term whose rows of the stacked predictor begin at `start`.

        Raises
        ------
        CannotLift
            Where an expression is no function of theta alone.
        """
        taus = []
        for variable, index in self.lifted.taus:
            found = layout.map_of(walker, variable)
            if found is None:
                raise CannotLift(f"an expression of {sorted(fm.inputs_of(walker.form(variable)))}")
            taus.append(Tau(found, np.zeros(1, dtype=int) if found.size == 1 else index))
        k = len(self.lifted.predictors)
        return TapeTerm(self.lifted.tape, slice(start, start + k * self.n), self.n, k, taus)


def lift_response(walker: Walker, rv: Variable, is_effect: Callable[[str], bool]) -> LiftedTerm:
    """The log density of an observed variable.

    Raises
    ------
    CannotLift
        Naming the operation that is not elementwise.
    """
    copy = _stand_alone(walker, rv)
    value = walker.model.rvs_to_values[rv]
    if isinstance(copy.owner.op, PartialObservedRV):
        density, copy = _of_observed_part(walker, copy, value)
    else:
        density = _log_density(copy, value)
    lifted = lift(walker, density, is_effect, _parameters(copy))
    return LiftedTerm(rv.name, lifted, stand_alone_size(walker, density))


def _of_observed_part(walker: Walker, part: Variable, value: Variable) -> tuple[Variable, Variable]:
    """The log density of the observed elements of a masked response that PyMC keeps whole, and the whole."""
    whole, mask = part.owner.inputs
    missing, observed = walker.value(mask).astype(bool), walker.value(value)
    filled = np.full(missing.shape, observed.ravel()[0], dtype=value.type.dtype)  # any value serves where it is missing
    filled[~missing] = observed
    density = pt.as_tensor(_log_density(whole, pt.constant(filled)))
    return density[~missing], whole


def _stand_alone(walker: Walker, rv: Variable) -> Variable:
    """A copy of a random variable whose parents are plain stand-ins for the model's variables.

    PyMC derives some log densities (censored, truncated, mixtures) by rewriting, and would rewrite the parents too.
    """
    parents = [*walker.free, *walker.centring]
    substitutes = {}
    for parent in parents:
        if parent is not rv:
            substitutes[parent] = parent.type(name=parent.name)
            walker.aliases[substitutes[parent]] = parent
    return clone_replace(rv, substitutes, rebuild_strict=False)


def lift_random_effect(walker: Walker, rv: Variable, is_effect: Callable[[str], bool]) -> LiftedTerm:
    """The log density of a random effect on the scale of its value variable, Jacobian included.

    Raises
    ------
    CannotLift
        Naming the operation that is not elementwise.
    """
    model = walker.model
    value, transform = model.rvs_to_values[rv], model.rvs_to_transforms.get(rv)
    walker.form(rv)  # makes the value variable known to the walker
    copy = _stand_alone(walker, rv)
    own = value if transform is None else transform.backward(value, *copy.owner.inputs)
    density = _log_density(copy, own)
    if transform is not None:
        density = density + transform.log_jac_det(value, *copy.owner.inputs)
    lifted = lift(walker, density, is_effect, [value])
    return LiftedTerm(rv.name, lifted, stand_alone_size(walker, density))


def _log_density(rv: Variable, value: Variable) -> Variable:
    try:
        return pm.logp(rv, value)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise CannotLift(f"a distribution whose log density PyMC does not give ({error})") from error


def _parameters(rv: Variable) -> list[Variable]:
    op = rv.owner.op
    return list(op.dist_params(rv.owner)) if hasattr(op, "dist_params") else []


def stand_alone_size(walker: Walker, density: Variable) -> int:
    """Number of elements of a log density."""
    form = walker.form(density)
    if fm.is_constant(form):
        return int(np.size(form))
    return int(np.prod(Elements(walker).shape(density), dtype=int))
