r"""What a fit over the scales of multivariate t effects reports: random effects and their errors, and h of the model.

Random effects are means over the scales w of their modes given w. Their variances are

.. math:: \mathrm{E}_w\, C(w)^{-1} + \mathrm{var}_w\, \hat v(w) + J\, \mathrm{cov}(\hat\psi)\, J', \qquad
          J = d \mathrm{E}_w \hat v(w) / d\psi \text{ (by beta, given the mean of } w).

The information of the result, from which errors of predictions and contrasts come, is that given the mean of w.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.estimators.base import Estimate
from hlik.estimators.laplace_finish import finish_laplace
from hlik.estimators.scale_mixture_profile import MixtureMode, ScaleMixtureProfile
from hlik.hlikelihood import HLikelihood
from hlik.linalg import NotPositiveDefinite

if TYPE_CHECKING:
    from hlik.estimators.maximum_state import MaximumState

COUNTS = 1e-8  # shares of nodes below which their random effects are left out of variances


def finish_mixture(state: MaximumState) -> Estimate:
    """The estimate at a state of the optimisation, of a `ScaleMixtureProfile`."""
    profile = state.objective.profile
    assert isinstance(profile, ScaleMixtureProfile)
    found = finish_laplace(state)
    mode = state.objective.mode(np.concatenate([found.beta, found.theta]))
    assert isinstance(mode, MixtureMode)
    given_mean = mode.bordered.factor_z.inverse_diagonal()
    extra = _variances(profile, mode) - given_mean
    original = profile.mixture.original
    scalars = found.scalars | _adjusted_profiles(original, found) | profile.mixture.named(mode.weights)
    v_se = np.sqrt(np.maximum(found.v_se**2 + extra, 0.0))
    return replace(found, model=original.model, v_se=v_se, scalars=scalars)


def _variances(profile: ScaleMixtureProfile, mode: MixtureMode) -> np.ndarray:
    """``E C(w)^-1 + var v(w)``, shape (q,)."""
    total, weight = np.zeros(mode.point.v.size), 0.0
    for k in np.flatnonzero(mode.share > COUNTS):
        inner = profile.given(mode, int(k)).bordered.factor_z.inverse_diagonal()
        total += mode.share[k] * (inner + (mode.v_nodes[k] - mode.point.v) ** 2)
        weight += mode.share[k]
    profile.mixture.condition(mode.weights)
    return total / weight


def _adjusted_profiles(likelihood: HLikelihood, found: Estimate) -> dict[str, float]:
    """h of the model with its t densities at the estimate, and p_v(h), p_bv(h) there; NaN where h has no mode."""
    point = likelihood.at(found.beta, found.v, found.theta)
    scalars = {"h": np.nan if point is None else point.h, "p_v_h": np.nan, "p_bv_h": np.nan}
    for name, psi, restricted in (
        ("p_v_h", np.concatenate([found.beta, found.theta]), False),
        ("p_bv_h", found.theta, True),
    ):
        try:
            scalars[name] = Profile(likelihood, restricted).mode(psi, found.beta, found.v).value
        except (ModeError, NotPositiveDefinite):
            continue
    return scalars
