r"""Adaptive Gauss-Hermite quadrature: maximum of the marginal likelihood itself, where the effects fall into blocks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace

import numpy as np

from hlik.adjusted_profile import ModeError, Profile
from hlik.blocks import Blocks
from hlik.errors import DataWarning, ModelError
from hlik.estimators.agq_profile import QuadratureProfile
from hlik.estimators.base import Estimate
from hlik.estimators.kinked_profile import KinkedProfile, kink_obstacles, start_without_effects
from hlik.estimators.laplace_start import Start
from hlik.estimators.maximise import Maximiser
from hlik.estimators.maximum_state import MaximumState
from hlik.estimators.scale_mixture_finish import finish_mixture
from hlik.estimators.scale_mixture_profile import TOLERANCE, ScaleMixtureProfile
from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel
from hlik.scale_mixture import ScaleMixture, mixed_effects, mixing_variables

MAX_EFFECTS = 3  # of a block: there are points ** effects nodes
MAX_POINTS = 200
MAX_SCALES = 2  # of multivariate t densities: there are 15 to 30 ** scales nodes
FINE = 1e-12  # relative error of the integral over scales, to compare with
COARSE = 1e-2  # of the log-likelihood: a larger error of the quadrature is warned of


@dataclass(frozen=True)
class AGQ(Maximiser):
    r"""Maximum of the marginal likelihood by adaptive Gauss-Hermite quadrature.

    For models whose random effects fall into independent blocks of at most three: one grouping factor with an
    intercept and up to two slopes, say, or several terms that share it. The integral over each block is a product rule
    centred at the mode of h, scaled by the curvature there, and moved with the parameters; its gradient is exact,
    moving nodes included (formulas in `hlik.estimators.agq_profile`). Any density of the random effects and any
    response that `Laplace` takes will do.

    Random effects with one multivariate t density over all levels (`pm.MvStudentT`) are normal given a common scale,
    ``t_nu(0, S) = E N(0, S / w)`` with w of the gamma distribution ``(nu / 2, nu / 2)``: the blocks are those given w,
    and the integral over w, to a relative error of 1e-8, is one more quadrature around them, trapezoidal in log w
    (formulas in `hlik.estimators.scale_mixture_profile`). Two such densities at most; degrees of freedom known or
    estimated.

    Parameters
    ----------
    points
        Nodes a coordinate, 1 to 200; a block of d effects has ``points ** d`` nodes. One is Laplace's approximation.
    tol
        Convergence: the next step would be shorter than `tol` standard errors.
    max_iterations
        BFGS iterations.

    Raises
    ------
    ModelError
        Where more than three random effects are linked with each other (crossed or nested factors), there are more
        than two multivariate t densities, or an argument is out of range.

    Warns
    -----
    DataWarning
        Where half as many points again change the log-likelihood by more than 0.01 (not for one point).

    Notes
    -----
    Cost: that of `Laplace`, and h at ``points ** d`` values of the random effects two to four times an evaluation, in
    chunks of bounded memory, without a loop over blocks; with a multivariate t density 15 to 30 times that, with two
    the square of it. Optimisation, convergence and standard errors are those of `Laplace`; random effects are reported
    at their modes.

    Multivariate t effects are reported at the means over w of their modes given w, with standard errors that count how
    both spread over w. ``fit["mixing_weight_<name>"]`` is the mean of w given the data; errors of contrasts and
    predictions take w as known there.

    The rule is exact where h is a polynomial of degree ``2 points - 1`` times a normal density. The error falls fast
    with `points` for densities with normal or exponential tails, slowly for Student t and Cauchy effects. The result
    has it as ``fit["quadrature_error"]``: the change of the log-likelihood at the estimate with half as many points
    again.

    Densities with a kink (`pm.Laplace`, `pm.AsymmetricLaplace`) are integrated on both sides of it, by
    Gauss-Legendre rules of `points` nodes on each of three panels (`hlik.estimators.kinked_profile`), where every
    observation has one such effect and there are no others; the error falls exponentially. Random effects are then
    reported at their means given the responses; p_v(h) does not exist.

    References
    ----------
    Liu, Q. & Pierce, D. A. (1994). A note on Gauss-Hermite quadrature. Biometrika 81, 624-629.
    Pinheiro, J. C. & Bates, D. M. (1995). J. Computational and Graphical Statistics 4, 12-35.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(6), 4)
    >>> y = np.array([0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=6)
    ...     _ = pm.Bernoulli("y", logit_p=mean + u[group], observed=y)
    >>> idata = hlik.fit(model, hlik.AGQ(25), progressbar=False)
    >>> round(float(idata.estimates["sigma"]), 3), round(float(idata.fit["log_likelihood"]), 3)
    (1.616, -15.17)
    """

    points: int = 25
    tol: float = 1e-5
    max_iterations: int = 200

    name: str = field(default="AGQ", init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.points, int | np.integer) and not isinstance(self.points, bool)
        if not whole or not 1 <= self.points <= MAX_POINTS:
            raise ModelError(f"AGQ: points must be a whole number from 1 to {MAX_POINTS}; got {self.points!r}.")

    @property
    def likelihood_name(self) -> str:
        """``marginal``."""
        return "marginal"

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """What keeps Laplace from it, and blocks of more than three random effects."""
        found = [obstacle for obstacle in super().obstacles(model) if obstacle not in model.kinks]
        if found:
            return found
        if model.kinks:
            return kink_obstacles(model)
        mixed = ", ".join(repr(effect.name) for effect in mixed_effects(model))
        if mixing_variables(model) > MAX_SCALES:
            return [
                f"there are {mixing_variables(model)} multivariate t densities in {mixed}, and AGQ integrates over the "
                f"scales of at most {MAX_SCALES} (use Laplace, or independent pm.StudentT effects)"
            ]
        likelihood = HLikelihood(model)
        blocks = Blocks.of(ScaleMixture(likelihood).conditional if mixed else likelihood)
        if blocks.largest <= MAX_EFFECTS:
            return []
        big = blocks.size[blocks.member] > MAX_EFFECTS
        names = ", ".join(repr(effect.name) for effect in model.random_effects if np.any(big[effect.index]))
        return [
            f"{blocks.largest} effects of {names} are linked with each other by the responses they share or by their "
            f"density, and AGQ integrates over at most {MAX_EFFECTS} together (use Laplace or HL)"
        ]

    def profile(self, likelihood: HLikelihood) -> Profile:
        """The marginal log-likelihood."""
        return _profile(likelihood, self.points)

    def begin(
        self, likelihood: HLikelihood, integrate_beta: bool, start: dict[str, np.ndarray], rng: np.random.Generator
    ) -> Start:
        """As for Laplace; where a density has a kink, fixed effects are those of the model without random effects."""
        if likelihood.model.kinks:
            return start_without_effects(likelihood, start)
        return super().begin(likelihood, integrate_beta, start, rng)

    def finish(self, state: MaximumState) -> Estimate:
        """As for Laplace, with the error of the quadrature."""
        current = state.objective.profile
        is_mixture = isinstance(current, ScaleMixtureProfile)
        estimate = finish_mixture(state) if is_mixture else super().finish(state)
        if isinstance(current, KinkedProfile):  # h has no second derivatives
            kept = {name: value for name, value in estimate.scalars.items() if name not in ("p_v_h", "p_bv_h")}
            estimate = replace(estimate, scalars=kept)
        likelihood = current.mixture.original if isinstance(current, ScaleMixtureProfile) else current.likelihood
        finer = self.points + self.points // 2 + 1
        profile = _profile(likelihood, finer, FINE)
        try:
            psi = np.concatenate([estimate.beta, estimate.theta])
            value = profile.mode(psi, estimate.beta, estimate.v).value
        except ModeError:
            return estimate
        error = abs(value - estimate.scalars["log_likelihood"])
        if error > COARSE and self.points > 1:
            change = f"with {finer} points the log-likelihood changes by {error:.2g}"
            warnings.warn(f"AGQ(points={self.points}): {change}; raise points.", DataWarning, stacklevel=2)
        return replace(estimate, scalars={**estimate.scalars, "quadrature_error": error})


def _profile(likelihood: HLikelihood, points: int, tolerance: float = TOLERANCE) -> Profile:
    """Quadrature over blocks of effects, and over the scales of multivariate t densities around it."""
    if likelihood.model.kinks:
        return KinkedProfile(likelihood, points)
    if mixed_effects(likelihood.model):
        return ScaleMixtureProfile(likelihood, lambda given: QuadratureProfile(given, points), tolerance)
    return QuadratureProfile(likelihood, points)
