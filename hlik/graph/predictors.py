"""Linear predictors: the affine form behind the mean of each response, and the link between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pytensor.graph.basic import Variable

from hlik.errors import ModelError
from hlik.graph import forms as fm
from hlik.graph.algebra import SEVERAL, as_function
from hlik.graph.ancestry import free_parents
from hlik.graph.describe import distribution_name, distribution_parameters, listed
from hlik.graph.families import ResponseParts, response_parts
from hlik.graph.find_link import linked
from hlik.graph.forms import Affine, Form, Mapped, Opaque, Product
from hlik.graph.products import without_signs
from hlik.graph.roles import Roles
from hlik.graph.walk import Walker
from hlik.links import Link

ADVICE = {
    "NegativeBinomial": "a Poisson whose mean is multiplied by a Gamma effect per observation is the same model",
    "BetaBinomial": "a Binomial with an effect per observation is close to it",
    "LogNormal": "a Normal for the logarithm of the data is the same model",
    "Mixture": "for too many zeros, model zeros and counts as two responses",
}
KNOWN = "Normal, Bernoulli, Binomial, Poisson, Exponential, Gamma and Wald"


@dataclass(frozen=True, eq=False)
class Predictor:
    """What was read of one response: its parts, linear predictor and link, or why they could not be told.

    `other_inputs` are the free variables that the response depends on in another way than through `affine`,
    `other_effects` those of them that are random effects.
    """

    parts: ResponseParts | None
    affine: Affine | None
    link: Link | None
    other_inputs: frozenset[str]
    obstacle: str | None = None
    other_effects: frozenset[str] = frozenset()


def read_predictor(walker: Walker, rv: Variable, roles: Roles) -> Predictor:
    """Find link and linear predictor of an observed variable."""
    parts = response_parts(rv.owner.op, rv)
    if parts is None:
        return _of_unknown(walker, rv, roles.random_effects)
    others = [part for part in (parts.dispersion, parts.trials, parts.shift) if part is not None]
    other_inputs = frozenset().union(*(fm.inputs_of(without_signs(walker.form(part))) for part in others))
    mean = walker.form(parts.mean)
    found = linked(mean, positive=not parts.family.valid_mean(np.array(-1.0)))
    if found is not None:
        affine, effects = _broadcast(found[0], rv.name, walker.shape(rv)), frozenset(roles.random_effects)
        return Predictor(parts, affine, found[1], other_inputs, other_effects=other_inputs & effects)
    loaded = sorted(fm.inputs_of(mean) & roles.multipliers_of.keys())
    if loaded:
        obstacle = roles.loading_obstacle(loaded[0])
    else:
        obstacle = f"the mean of {rv.name!r} is no function of a linear predictor: {why_not_linear(walker, mean)}"
    return Predictor(parts, None, None, other_inputs | fm.inputs_of(mean), obstacle)


def _broadcast(affine: Affine, name: str, shape: tuple[int, ...]) -> Affine:
    """The predictor in the shape of the response."""
    try:
        return fm.broadcast(affine, shape)
    except ValueError:
        raise ModelError(
            f"Response {name!r} has shape {shape} and its linear predictor {affine.shape}: give both the same shape "
            "(observed=y.ravel(), or index the predictor with [:, None])."
        ) from None


def why_not_linear(walker: Walker, form: Form) -> str:
    """What stands in the way, naming the variables and the way out."""
    inputs = sorted(fm.inputs_of(form))
    if as_function(form) is not None:
        return (
            "the function between them is no inverse link that hlik knows; write it plainly (pm.math.exp(eta), "
            "pm.math.invlogit(eta) ...), without limits or added constants"
        )
    culprits = sorted(form.culprits) if isinstance(form, Opaque) else []
    curved = [name for name in culprits if not isinstance(walker.form(walker.model[name]), Affine)]
    if curved:
        return "; ".join(_entry(walker, walker.model[name]) for name in curved)
    if isinstance(form, Product) or form.reason == SEVERAL:  # type: ignore[union-attr]
        return (
            f"it holds a product (or another nonlinear function) of some of {listed(inputs)}. A variable may be "
            f"multiplied by data; a normal effect with mean zero and known sigma also by one positive parameter"
        )
    return f"it holds {form.reason} of {listed(inputs)}"  # type: ignore[union-attr]


def _entry(walker: Walker, rv: Variable) -> str:
    """How a variable whose value variable has another scale must enter."""
    transform = walker.model.rvs_to_transforms.get(rv)
    name, scale = rv.name, getattr(transform, "name", "")
    wanted = {"log": f"pt.log({name})", "logodds": f"pm.math.logit({name})", "reciprocal": f"1 / {name}"}.get(scale)
    value = walker.model.rvs_to_values[rv].name
    if wanted is None:
        return f"{name!r} is constrained (PyMC works with {value!r}): give it an unbounded prior (pm.Normal, pm.Flat)"
    if free_parents(rv, walker):
        return (
            f"random effect {name!r} enters non-linearly: add {wanted}, the scale of its value variable {value!r}, to "
            f"the predictor instead, or choose another scale with transform="
        )
    return (
        f"{name!r} is constrained (PyMC works with {value!r} = {wanted}): give it an unbounded prior (pm.Normal, "
        f"pm.Flat) if it is a coefficient"
    )


# ---------------------------------------------------------------- responses without closed form


def _of_unknown(walker: Walker, rv: Variable, random: Sequence[str]) -> Predictor:
    """The linear predictor of a response of any distribution: the last affine node on the way to it.

    Of several (a mean and a scale, say) the one with random effects is taken, or the first as long as the response.
    """
    name = distribution_name(rv)
    advice = f" ({ADVICE[name]})" if name in ADVICE else ""
    obstacle = f"response {rv.name!r} is {name}: EQL knows {KNOWN}{advice}"
    found, opaque = last_affine(walker, distribution_parameters(rv))
    shape = walker.shape(rv)
    size = int(np.prod(shape, dtype=int))
    long = [part for part in found if part.affine.offset.size == size > 1]
    chosen = next((part for part in long if part.inputs & set(random)), long[0] if long else None)
    if chosen is None:
        return Predictor(None, None, None, opaque.union(*(part.inputs for part in found)), obstacle)
    others = opaque.union(*(part.inputs for part in found if not fm.same_affine(part.affine, chosen.affine)))
    affine, link = linked(chosen) or (chosen.affine, None)
    numbers = np.arange(size).reshape(shape)
    return Predictor(None, fm.gathered(affine, numbers), link, others, obstacle)


def last_affine(walker: Walker, roots: Sequence[Variable]) -> tuple[list[Mapped], frozenset[str]]:
    """The functions of affine forms nearest to `roots`, and the variables that reach them in another way."""
    found: list[Mapped] = []
    opaque: set[str] = set()
    waiting, seen = list(reversed(roots)), set()
    while waiting:
        variable = waiting.pop()
        if variable in seen:
            continue
        seen.add(variable)
        form = walker.form(variable)
        if isinstance(form, Affine):
            found.append(Mapped(fm.identity_function, form))
        elif isinstance(form, Mapped | Product):
            found += [form] if isinstance(form, Mapped) else form.factors
        elif isinstance(form, Opaque) and (variable in walker.free or variable.owner is None):
            opaque |= form.inputs
        elif isinstance(form, Opaque):
            waiting += reversed(walker.centred_sources(variable))
    return found, frozenset(opaque)
