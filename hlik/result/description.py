"""What tables print about an estimator and a model, as text and plain data that a file can hold."""

from __future__ import annotations

import dataclasses
from typing import Any

from hlik.graph.find_link import linked
from hlik.maps import LinkMap
from hlik.model import HierarchicalModel, Parameter


def settings_of(estimator: Any) -> str:
    """``EQL(tol=1e-06)``: an estimator with the settings that differ from its defaults."""
    changed = [
        f"{field.name}={_short(getattr(estimator, field.name))}"
        for field in dataclasses.fields(estimator)
        if field.init and field.repr and not _is_default(getattr(estimator, field.name), field.default)
    ]
    return f"{estimator.name}({', '.join(changed)})"


def _is_default(value: Any, default: Any) -> bool:
    return isinstance(value, type(default)) and not isinstance(value, dict) and value == default


def _short(value: Any) -> str:
    """Settings in print; mappings with arrays by their keys."""
    return f"{{{', '.join(repr(key) for key in value)}: ...}}" if isinstance(value, dict) else repr(value)


def describe_model(model: HierarchicalModel) -> dict[str, Any]:
    """What tables print about a model, as plain data."""
    return {
        "responses": [
            {
                "name": r.name,
                **_missing(model, r.name),
                "distribution": r.distribution,
                "family": r.family.name if r.family else None,
                "link": r.link.name if r.link else None,
                "n": r.size,
                "dims": list(r.variable.dims),
            }
            for r in model.responses
        ],
        "random_effects": [
            {
                "name": e.name,
                "distribution": e.distribution,
                "family": e.family.name if e.family else None,
                "scale": _scale_of_effect(model, e.name),
                "levels": e.levels,
                "value_name": e.variable.value_name,
            }
            for e in model.random_effects
        ],
        "parameters": [
            {"name": p.name, "role": p.role, "value_name": p.variable.value_name, "scale": _interval_scale(p)}
            for p in model.parameters
        ],
        "deterministics": [d.name for d in model.deterministics],
    }


def _missing(model: HierarchicalModel, name: str) -> dict[str, Any]:
    """The name that the user gave to a response, and how many of its values are missing."""
    for part in model.unobserved:
        if name == f"{part.response}_observed":
            return {"label": part.response, "missing": int(part.missing.sum())}
    return {"label": name, "missing": 0}


def _scale_of_effect(model: HierarchicalModel, name: str) -> str | None:
    """The link from a random effect to its value variable; None where that is not elementwise."""
    found = linked(model.forms[name])
    return None if found is None else found[1].name


def _interval_scale(parameter: Parameter) -> str:
    """The link on whose scale an interval is made: that of the value variable where it is elementwise."""
    natural = parameter.natural
    inner = getattr(natural, "inner", natural)
    return inner.link.name if isinstance(inner, LinkMap) else "identity"
