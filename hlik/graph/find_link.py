"""Which link a function is the inverse of, however it was written: found numerically."""

from __future__ import annotations

import numpy as np

from hlik.graph import forms as fm
from hlik.graph.algebra import as_function
from hlik.graph.forms import Affine, Form, Function, Mapped
from hlik.links import LINKS, Link

NEAR = np.array([-0.61, 0.53])  # where every inverse link is far from the ends of its range
NEAR_POSITIVE = np.array([0.53, 1.09])
TOLERANCE = 1e-10  # relative


def linked(form: Form, positive: bool = False) -> tuple[Affine, Link] | None:
    """The affine form a and the link g with ``form = g^-1(a)``, or None.

    With `positive`, only positive values of the form count: ``abs(a)`` then has the identity link.
    """
    if isinstance(form, Affine):
        return form, LINKS["identity"]
    if isinstance(form, Mapped) and form.is_exp:
        return form.affine, LINKS["log"]
    if fm.is_constant(form):
        return Affine({}, np.asarray(form, dtype=float)), LINKS["identity"]
    found = as_function(form)
    link = None if found is None else find_link(found[1]) or (find_link(found[1], True) if positive else None)
    if found is None or link is None:
        return None
    return fm.scaled(found[0], link[1], link[2]), link[0]


def find_link(function: Function, positive: bool = False) -> tuple[Link, float, float] | None:
    """The link g and the numbers k and c with ``function(t) = g^-1(k t + c)``, or None.

    Two points give k and c, ten more must agree to 1e-10, and two far ones to 1e-6: a clipped probability is no
    inverse link, unless it is clipped beyond eta = 8 to keep logarithms finite. With `positive` only positive eta
    are looked at, as for links whose predictor must be positive.
    """
    with np.errstate(all="ignore"):
        for link in LINKS.values():
            half = positive or not link.valid_eta(fm.TEST_POINTS).all()
            for near in (NEAR_POSITIVE, -NEAR_POSITIVE) if half else (NEAR,):
                found = _slope_and_shift(function, link, near)
                if found is not None and _agrees(function, link, *found, half):
                    return link, *found
    return None


def _slope_and_shift(function: Function, link: Link, near: np.ndarray) -> tuple[float, float] | None:
    """The line through g(f(t)) at two points, where that has a slope."""
    first, second = np.asarray(link.link(np.asarray(function(near), dtype=float)))
    slope = float((second - first) / (near[1] - near[0]))
    if not np.isfinite(slope) or slope == 0:
        return None
    slope = fm.rounded(slope)
    shift = float(first - slope * near[0])
    return slope, 0.0 if abs(shift) < 1e-14 * abs(slope) else fm.rounded(shift)


def _agrees(function: Function, link: Link, slope: float, shift: float, half: bool) -> bool:
    for points, relative, absolute in ((fm.TEST_POINTS, TOLERANCE, 0.0), (fm.FAR_POINTS, 1e-6, 1e-9)):
        eta = np.abs(points) if half else points
        expected, found = link.inverse(eta), np.asarray(function((eta - shift) / slope), dtype=float)
        if not np.all(np.abs(found - expected) <= relative * np.abs(expected) + absolute):
            return False
    return True
