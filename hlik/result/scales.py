"""Values of named variables on their two scales: that of the value variable and the natural one, and slopes between."""

from __future__ import annotations

import numpy as np

from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped
from hlik.links import identify_inverse
from hlik.model import HierarchicalModel


def by_name(model: HierarchicalModel, beta: np.ndarray, v: np.ndarray, theta: np.ndarray) -> dict[str, np.ndarray]:
    """Values of parameters and random effects by name; arrays may have draws in front: (..., size)."""
    parts = {p.name: beta[..., p.index] for p in model.fixed_effects}
    parts |= {p.name: theta[..., p.index] for p in model.dispersion_parameters}
    return parts | {e.name: v[..., e.index] for e in model.random_effects}


def transformed(form: Form | None, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Natural values and their slopes for values of a value variable; the identity for a form without function."""
    if not isinstance(form, Mapped):
        return own, np.ones_like(own)
    weights = next(iter(form.affine.rows.values()))
    slope_in = weights.weight if isinstance(weights, lin.Gather) else np.array(1.0)
    eta = slope_in * own + form.affine.offset.ravel()
    return form.function(eta), derivative(form, eta) * slope_in


def is_wider(form: Form | None, own: np.ndarray) -> bool:
    """Whether a variable has more elements than its value variable, as one that sums to zero."""
    return isinstance(form, Affine) and form.offset.size > own.shape[-1]


def derivative(form: Mapped, eta: np.ndarray) -> np.ndarray:
    """f'(eta): closed form for known links, else fourth-order central differences (error about 1e-11)."""
    if form.is_exp:
        return np.exp(eta)
    link = identify_inverse(form.function)
    if link is not None:
        return link.inverse_derivatives(eta, 1)[1]
    step = 1e-3 * np.maximum(1.0, np.abs(eta))
    f = form.function
    return (8 * (f(eta + step) - f(eta - step)) - (f(eta + 2 * step) - f(eta - 2 * step))) / (12 * step)
