r"""Laplace approximation: maximum of p_v(h), or of p_bv(h) for restricted likelihood, with exact gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlik.adjusted_profile import Profile
from hlik.estimators.maximise import Maximiser
from hlik.hlikelihood import HLikelihood


@dataclass(frozen=True)
class Laplace(Maximiser):
    r"""Maximum of the Laplace approximation of the marginal likelihood.

    Maximises ``p_v(h) = h - log|C/2pi|/2`` at the mode of h in v over all parameters (`reml=False`), or
    ``p_bv(h) = h - log|H/2pi|/2`` at the mode in (beta, v) over the dispersion parameters (`reml=True`). For Gaussian
    responses with Gaussian effects these are ML and REML exactly. p_bv(h) is what REML means for other families: the
    fixed effects are integrated out with the random effects under a flat prior (Lee & Nelder 2001).

    Parameters
    ----------
    reml
        Whether the fixed effects are integrated out too.
    tol
        Convergence: the next step would be shorter than `tol` standard errors.
    max_iterations
        BFGS iterations.

    Raises
    ------
    ModelError
        Where a setting is out of range; by `hlik.fit`, where a density is no elementwise function of linear predictors
        or has a kink, and where h is not finite at the starting values.

    Notes
    -----
    Cost: 10 to 35 evaluations, each a few sparse factorisations (Newton's method from the last mode) and one selected
    inverse. The gradient is exact; the Hessian comes from central differences of it. Starts from EQL where that
    applies.

    Convergence is decided by the length of Newton's step with that Hessian, at most `tol` standard errors, or 1e-3
    where rounding ends the line search. A likelihood without curvature in some direction, and a variance that goes to
    zero, are told by name.

    Standard errors. The covariance of the maximised parameters is the inverse Hessian; errors of random effects and of
    what is made of them add how the mode moves with all parameters, dispersions included, and with `reml=True` those
    of the fixed effects do the same (Kass & Steffey 1989; Kristensen et al. 2016: the errors of TMB and glmmTMB). lme4
    takes the dispersions as known in both.

    Bias: the variances of small binary groups come out too small (bacteria: 1.654 where maximum likelihood is 1.839).
    One multivariate t density over many effects (`pm.MvStudentT`) is worse: the scale of the epilepsy data is 0.35 in
    square where maximum likelihood is 0.218. `AGQ` integrates over the scale and is right there.

    References
    ----------
    Tierney, L. & Kadane, J. B. (1986). JASA 81, 82-86.
    Lee, Y. & Nelder, J. A. (2001). Biometrika 88, 987-1006.
    Kass, R. E. & Steffey, D. (1989). JASA 84, 717-726.
    Kristensen, K. et al. (2016). TMB. J. Statistical Software 70(5), section 2.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     beta, sigma, alpha = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1), pm.HalfNormal("alpha", 10)
    ...     u = pm.Normal("u", 0, sigma, shape=4)
    ...     eta = beta + u[np.repeat(np.arange(4), 3)]
    ...     _ = pm.NegativeBinomial("y", mu=pm.math.exp(eta), alpha=alpha, observed=y)
    >>> for estimator in (hlik.Laplace(), hlik.Laplace(reml=True)):
    ...     idata = hlik.fit(model, estimator, fixed={"alpha": 5.0}, progressbar=False)
    ...     print(round(float(idata.estimates["sigma"]), 3), round(float(idata.fit["log_likelihood"]), 3))
    1.005 -23.866
    1.243 -23.431
    """

    reml: bool = False
    tol: float = 1e-5
    max_iterations: int = 200

    name: str = field(default="Laplace", init=False, repr=False)

    def profile(self, likelihood: HLikelihood) -> Profile:
        """p_v(h), or p_bv(h)."""
        return Profile(likelihood, self.reml)

    @property
    def likelihood_name(self) -> str:
        """``p_bv_h`` with `reml`, else ``p_v_h``."""
        return "p_bv_h" if self.reml else "p_v_h"
