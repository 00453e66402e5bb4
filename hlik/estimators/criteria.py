"""Information criteria of a fit, from its log-likelihoods and its effective degrees of freedom."""

from __future__ import annotations

import numpy as np


def information_criteria(
    conditional: float, marginal: float, effective: float, count: int, observations: int
) -> dict[str, float]:
    """cAIC, AIC, BIC and degrees of freedom.

    Parameters
    ----------
    conditional
        Log-likelihood given the random effects.
    marginal
        Log-likelihood for AIC and BIC.
    effective
        Trace of the hat matrix (Ha, Lee & MacKenzie 2007: cAIC = -2 conditional + 2 effective).
    count
        Parameters.
    observations
        Observations.
    """
    return {
        "caic": -2 * conditional + 2 * effective,
        "aic": -2 * marginal + 2 * count,
        "bic": -2 * marginal + count * float(np.log(observations)),
        "df_effective": effective,
        "df_residual": observations - effective,
    }
