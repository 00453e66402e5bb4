"""Variances of functions of the parameters by the delta method, also where some parameters have no covariance."""

from __future__ import annotations

import numpy as np

HARDLY = 1e-3  # standard errors of a quantity that a unit (a factor e) of a parameter must move it, to count


def delta_variance(rows: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """``diag(rows cov rows')``, shape (m,).

    Parameters without covariance (NaN rows: at a boundary, at the end of their range) are held: quantities that they
    move are NaN; those that a unit of them moves by less than a thousandth of their standard error are not lost.
    """
    rows = np.asarray(rows)
    known = np.isfinite(np.diag(covariance))
    used = known & np.any(rows != 0, axis=0)
    part = rows[:, used]
    variance = np.einsum("ij,ij->i", part @ covariance[np.ix_(used, used)], part)
    variance = np.where(variance >= 0, variance, np.nan)
    held = np.abs(rows[:, ~known]).max(axis=1, initial=0.0)
    return np.where((held > 0) & ~(held < HARDLY * np.sqrt(variance)), np.nan, variance)
