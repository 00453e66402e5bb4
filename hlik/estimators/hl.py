r"""HL(mean, dispersion): the hierarchical-likelihood estimators of Lee, Nelder and Pawitan."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlik.errors import ModelError
from hlik.estimators.hl_profile import HLProfile
from hlik.estimators.maximise import Maximiser
from hlik.hlikelihood import HLikelihood


@dataclass(frozen=True)
class HL(Maximiser):
    r"""h-likelihood estimators of first and second order: HL(0,1), HL(1,1), HL(0,2), HL(1,2).

    Fixed effects come from h (``mean=0``: its joint mode in beta and v, for given theta) or from
    ``p_v(h) = h - log|C/2pi|/2`` (``mean=1``), C being minus the second derivatives of h in v. Dispersion parameters
    maximise, with those fixed effects put in,

    .. math:: p_{\beta v}(h) = h - \tfrac12 \log |H / 2\pi| \quad (\text{dispersion} = 1), \qquad
              s_{\beta v}(h) = p_{\beta v}(h) - F/24 \quad (\text{dispersion} = 2),

    H being minus the second derivatives in (beta, v), and, with derivatives in v at its mode and ``(c^jk) = C^-1``,

    .. math:: -F/24 = \tfrac18 \sum h_{jklm} c^{jk} c^{lm} + \tfrac18 \sum h_{jkl} h_{mno} c^{jk} c^{lm} c^{no}
                      + \tfrac1{12} \sum h_{jkl} h_{mno} c^{jm} c^{kn} c^{lo},

    the ``F = -tr{[3 h'''' + 5 h''' C^-1 h'''] C^-2}`` of Lee & Nelder (2001), written out for several effects. Random
    effects are the mode of h at the estimates.

    Parameters
    ----------
    mean
        0 or 1.
    dispersion
        1 or 2.
    tol
        Convergence: the next step would be shorter than `tol` standard errors.
    max_iterations
        BFGS iterations.

    Raises
    ------
    ModelError
        Where an argument is out of range, or the model is one that `Laplace` cannot fit.

    Notes
    -----
    HL(0,1) is ``Laplace(reml=True)``. For normal responses with normal effects all four are REML. `EQL` is an
    approximation of HL(0,1), and ``EQL(correction="HL11")`` of HL(1,1), with extended quasi-likelihood in the place of
    the densities of non-normal effects and responses.

    Cost of an evaluation, as multiples of `Laplace`'s: ``mean=1`` about 10 for a value (beta is found for each theta),
    and two more for each fixed effect for a gradient. ``dispersion=2`` adds four evaluations for each dispersion
    parameter to a gradient, and to each value one product ``t_r' C^-1 t_s`` for every pair of different rows of Z that
    random effects link: rows squared for crossed factors, few for one grouping factor (see `hlik.second_order`).

    Use ``HL(1, 2)`` for binary data in small groups, where first-order dispersions are too small (Noh & Lee 2007). It
    is second-order in theta only: the error falls as the inverse square of the information in a group, and where
    variances are large and groups very small (matched pairs) a series in that information has no use at any order;
    compare with `AGQ` where that applies. Standard errors of theta come from the second derivatives of the function
    maximised; those of beta given theta from H (``mean=0``) or from the second derivatives of p_v(h) (``mean=1``), to
    which ``J cov(theta) J'`` with ``J = d beta / d theta`` is added (`hlik.estimators.joint_errors`).

    References
    ----------
    Lee, Y. & Nelder, J. A. (2001). Hierarchical generalised linear models: a synthesis. Biometrika 88, 987-1006.
    Lee, Y., Nelder, J. A. & Pawitan, Y. (2017). Generalized Linear Models with Random Effects, 2nd ed., chapter 6.
    Noh, M. & Lee, Y. (2007). REML estimation for binary data in GLMMs. J. Multivariate Analysis 98, 896-915.
    Shun, Z. & McCullagh, P. (1995). JRSS B 57, 749-760.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(6), 4)
    >>> y = np.array([0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1, 1])
    >>> with pm.Model() as model:
    ...     mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=6)
    ...     _ = pm.Bernoulli("y", logit_p=mean + u[group], observed=y)
    >>> for estimator in (hlik.HL(0, 1), hlik.HL(1, 1), hlik.HL(1, 2)):
    ...     print(round(float(hlik.fit(model, estimator, progressbar=False).estimates["sigma"]), 3))
    2.502
    2.533
    3.09
    """

    mean: int = 1
    dispersion: int = 1
    tol: float = 1e-5
    max_iterations: int = 200

    name: str = field(default="HL", init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mean not in (0, 1) or self.dispersion not in (1, 2):
            given = f"mean={self.mean!r}, dispersion={self.dispersion!r}"
            raise ModelError(f"HL: mean must be 0 or 1 and dispersion 1 or 2; got {given}.")

    @property
    def likelihood_name(self) -> str:
        """``p_bv_h``, or ``s_bv_h`` with the second-order term."""
        return "p_bv_h" if self.dispersion == 1 else "s_bv_h"

    def profile(self, likelihood: HLikelihood) -> HLProfile:
        """p_bv(h) or s_bv(h), beta put in."""
        return HLProfile(likelihood, self.mean, self.dispersion)
