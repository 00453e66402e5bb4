"""The levels that a random effect has at the data of a prediction, and what the model says of them there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pytensor.graph.traversal import ancestors

from hlik.errors import ModelError
from hlik.graph.describe import coords_of, describe, distribution_name, labels_of, listed
from hlik.graph.graph_map import GraphMap, graph_map
from hlik.graph.numeric import dim_length
from hlik.graph.random_effects import random_effect_at
from hlik.graph.roles import Roles
from hlik.graph.theta import ThetaLayout
from hlik.graph.walk import Walker
from hlik.model import RandomEffect


@dataclass(frozen=True, eq=False)
class Levels:
    """A random effect at some data: a label for each of its levels, and its distribution, read when it is asked for."""

    name: str
    labels: tuple[str, ...]
    walker: Walker
    roles: Roles
    layout: ThetaLayout

    @classmethod
    def of(cls, walker: Walker, roles: Roles, name: str, layout: ThetaLayout) -> Levels:
        """The levels of the random effect `name` of the walked model."""
        labels = labels_of(coords_of(walker.model), describe(walker, walker.model[name]), name)
        return cls(name, tuple(labels), walker, roles, layout)

    @cached_property
    def effect(self) -> RandomEffect:
        """Its family, dispersion, precision at these data."""
        return random_effect_at(
            self.walker, self.walker.model[self.name], slice(0, len(self.labels)), self.layout, self.roles
        )

    @cached_property
    def log_density(self) -> GraphMap:
        """``log f(v)`` of every level, shape (levels,), as a function of (theta, v).

        Raises
        ------
        ModelError
            Where the levels have a joint density, or one that depends on more than dispersion parameters.
        """
        model, rv = self.walker.model, self.walker.model[self.name]
        what = f"Random effect {self.name!r} ({distribution_name(rv)})"
        (density,) = model.logp(vars=[rv], sum=False)
        if density.ndim != rv.ndim:
            raise ModelError(f"{what} has a joint density, from which new levels do not follow: {WAY_OUT}.")
        known = {*self.layout.names, *self.walker.fixed, self.name}
        above = set(ancestors([density]))
        others = [free.name for free in model.free_RVs if model.rvs_to_values[free] in above and free.name not in known]
        if others:
            raise ModelError(f"{what} depends on {listed(sorted(others))}, no dispersion parameters: {WAY_OUT}.")
        shapes = [*self.layout.shapes, self.walker.value_shape(rv)]
        if int(np.prod(shapes[-1], dtype=int)) != len(self.labels):
            raise ModelError(f"{what} has levels that depend on each other, so that new ones do not follow: {WAY_OUT}.")
        return graph_map(model, density, [*self.layout.names, self.name], shapes, self.walker.fixed)


def check_levels(walker: Walker, roles: Roles) -> None:
    """Raise where the dims of a random effect have other lengths than it has: its matrices make its size."""
    for name in roles.random_effects:
        rv = walker.model[name]
        dims = walker.model.named_vars_to_dims.get(name) or ()
        for dim, size in zip(dims, walker.shape(rv), strict=False):
            length = None if dim is None else dim_length(walker.model, dim)
            if length is not None and length != size:
                raise ModelError(
                    f"Random effect {name!r} ({distribution_name(rv)}) has {size} levels along {dim!r} whatever its "
                    f"labels, here {length}: what makes its size is part of the model, not data. Pass "
                    f"data=build(...), the same model built with all levels."
                )


WAY_OUT = "predict with random='conditional' at levels of the fit, or with random='zero'"
