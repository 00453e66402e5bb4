"""`inspect`: how hlik reads a model, in print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hlik.fit import ESTIMATORS
from hlik.graph.read import as_pymc, read_model
from hlik.maps import LinkMap, ThetaMap
from hlik.model import HierarchicalModel


@dataclass(frozen=True, eq=False)
class Inspection:
    """How hlik reads a model: print it.

    Attributes
    ----------
    responses, random_effects, parameters
        One dictionary each: name, family, link, scale, levels, role ...
    estimators
        For each estimator the reasons why it does not apply; empty where it does.
    """

    responses: tuple[dict[str, Any], ...]
    random_effects: tuple[dict[str, Any], ...]
    parameters: tuple[dict[str, Any], ...]
    estimators: dict[str, list[str]]

    def __str__(self) -> str:
        lines = ["Responses"]
        for r in self.responses:
            lines.append(
                f"  {r['name']}: {r['distribution']}, link {r['link']}, {r['observations']:,} observations"
            )
            lines.append(f"    predictor: {r['predictor']}")
            lines.append(f"    dispersion: {r['dispersion']}")
        lines.append("Random effects")
        for e in self.random_effects:
            lines.append(
                f"  {e['name']}: {e['distribution']}, {e['levels']:,} levels, v = {e['scale']} ({e['value_variable']}), "
                f"{e['entries_per_row']:.3g} entries a row"
            )
            lines.append(f"    dispersion: {e['dispersion']}")
        if not self.random_effects:
            lines.append("  none")
        lines.append("Parameters")
        for p in self.parameters:
            lines.append(f"  {p['name']}: {p['role']}, shape {p['shape']}")
        lines.append("Estimators")
        for name, reasons in self.estimators.items():
            lines.append(
                f"  {name}: " + ("applies" if not reasons else "does not apply: " + "; ".join(reasons))
            )
        return "\n".join(lines)

    __repr__ = __str__


def inspect(
    model: Any, *, random: Sequence[str] | None = None, fixed: Mapping[str, Any] | None = None
) -> Inspection:
    """Tell how hlik reads a model, without fitting it.

    Parameters
    ----------
    model
        A `pymc.Model` or a Bambi model; it is not changed.
    random, fixed
        As in `hlik.fit`.

    Returns
    -------
    Inspection
        For each response its family, link and predictor; for each random effect its distribution, the scale of v,
        its levels and sparsity; parameters with their roles; for each estimator whether it applies.

    Raises
    ------
    ModelError
        Where roles cannot be told, naming the variable and the argument to pass.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.array([0, 0, 1, 1, 2, 2])]), observed=[1, 0, 2, 3, 1, 1])
    >>> print(hlik.inspect(model))
    Responses
      y: Poisson, link log, 6 observations
        predictor: beta + u
        dispersion: 1
    Random effects
      u: Normal, 3 levels, v = u (u), 1 entries a row
        dispersion: log-linear in sigma
    Parameters
      beta: fixed effect, shape ()
      sigma: dispersion parameter, shape ()
    Estimators
      EQL: applies
    """
    read = read_model(as_pymc(model), random=random, fixed=fixed)
    return Inspection(
        responses=tuple(_responses(read)),
        random_effects=tuple(_random_effects(read)),
        parameters=tuple(
            {
                "name": p.name,
                "role": p.role,
                "shape": p.variable.shape,
                "value_variable": p.variable.value_name,
            }
            for p in read.parameters
        ),
        estimators={estimator().name: estimator().obstacles(read) for estimator in ESTIMATORS.values()},
    )


def _responses(model: HierarchicalModel) -> list[dict[str, Any]]:
    found = []
    for r in model.responses:
        terms = [p.name for p in model.fixed_effects if np.any(model.X[r.rows, p.index])]
        columns = np.unique(model.Z[r.rows].indices)
        terms += [
            e.name
            for e in model.random_effects
            if np.any((columns >= e.index.start) & (columns < e.index.stop))
        ]
        if np.any(model.offset[r.rows]):
            terms.append("offset")
        found.append(
            {
                "name": r.name,
                "distribution": r.distribution,
                "family": r.family.name if r.family else "none",
                "link": r.link.name if r.link else "unknown",
                "observations": r.size,
                "predictor": " + ".join(terms) if r.link else "not linear",
                "dispersion": "1" if r.dispersion is None else describe_map(r.dispersion, model),
            }
        )
    return found


def _random_effects(model: HierarchicalModel) -> list[dict[str, Any]]:
    scales = {"identity": "u", "log": "log u", "logit": "logit u", "inverse": "1/u"}
    counts = np.bincount(model.Z.indices, minlength=model.n_random) if model.n_random else np.zeros(0)
    found = []
    for e in model.random_effects:
        scale = scales[e.family.scale] if e.family else "its value variable"
        if e.location is not None:
            scale = f"{e.name} - its mean"
        if e.scale_map is not None:
            scale = f"{e.name} * its scale"
        found.append(
            {
                "name": e.name,
                "distribution": e.distribution,
                "levels": e.size,
                "scale": scale.replace("u", e.name)
                if e.family and e.location is None and e.scale_map is None
                else scale,
                "value_variable": e.variable.value_name,
                "entries_per_row": counts[e.index].sum() / model.n_rows,
                "dispersion": "unknown" if e.dispersion is None else describe_map(e.dispersion, model),
            }
        )
    return found


def describe_map(found: ThetaMap, model: HierarchicalModel) -> str:
    """How a dispersion depends on the parameters, in words."""
    if not isinstance(found, LinkMap):
        if not found.jacobian(np.zeros(model.n_theta)).any():
            values = found.value(np.zeros(model.n_theta))
            return f"{values[0]:g}" if values.size == 1 else "known, one value each"
        return "a function of the parameters (no closed form)"
    moved = np.any(found.matrix != 0, axis=0)
    names = [p.name for p in model.dispersion_parameters if moved[p.index].any()]
    words = {"log": "log-linear", "identity": "linear", "inverse": "linear on the inverse"}
    each = "" if found.size == 1 else ", one value each"
    return (
        f"{words.get(found.link.name, f'linear on the {found.link.name} link')} in {', '.join(names)}{each}"
    )
