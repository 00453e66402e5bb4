r"""Gradients of functions of the mode of h in v, which moves with the parameters: what AGQ and HL add to p_v(h)."""

from __future__ import annotations

import numpy as np

from hlik.adjusted_profile import Mode, Profile


def implicit_gradient(
    profile: Profile, mode: Mode, kappa: np.ndarray, kappa_v: np.ndarray, v_score: np.ndarray
) -> np.ndarray:
    r"""Derivatives by (beta, theta) of ``-tr(K C)/2 + v_score' v``, K and v_score held fixed, along the mode v.

    With s the derivatives of ``-tr(K C)/2`` in v and psi = (beta, theta),

    .. math:: s_\psi + \frac{\partial^2 h}{\partial \psi\,\partial v} C^{-1} (s_v + \text{v\_score}).

    Parameters
    ----------
    profile
        p_v(h): a profile that integrates v alone.
    mode
        Its mode.
    kappa, kappa_v
        ``t' K t`` of every row of the design, (M,), and diag K, (q,): all that is needed of K.
    v_score
        Shape (q,).

    Returns
    -------
    array, shape (p + r,)
    """
    likelihood, point = profile.likelihood, mode.point
    model = likelihood.model
    s_eta, s_v, s_theta = likelihood.curvature_slopes(point, kappa, kappa_v)
    y_v = s_v + v_score
    if y_v.size:
        y_v = mode.bordered.factor_z.solve(model.Z.T @ s_eta + y_v)
    c_eta = np.asarray(model.Z @ y_v if y_v.size else np.zeros(model.n_rows))
    nothing = np.zeros_like(c_eta), np.zeros_like(y_v)
    theta_part = s_theta + likelihood.theta_score(point, c_eta, y_v) - likelihood.theta_score(point, *nothing)
    total = s_eta - profile._weighted(point.weight, c_eta)
    if model.theta_design is not None:
        theta_part = theta_part + model.theta_design.T @ total
    return np.concatenate([model.X.T @ total, theta_part])
