r"""Extended quasi-likelihood: IWLS on the augmented model, gamma GLMs for the dispersions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hlik.augmented import AugmentedModel, deviance_components, dispersions
from hlik.errors import ModelError
from hlik.estimators.base import RUNNING, Estimate
from hlik.estimators.boundary import singular_sentence
from hlik.estimators.double_eql import DoubleState, position_double, prepare_double, status_double, step_double
from hlik.estimators.double_finish import finish_double
from hlik.estimators.eql_finish import finish_eql
from hlik.estimators.eql_iteration import NO_STEP, TIGHT, EQLState, Solved, advance, solve, verdict
from hlik.estimators.quasi_dispersion import with_quasi_dispersion
from hlik.estimators.starts import check_start, given_beta, glm_beta, start_theta, start_v
from hlik.model import HierarchicalModel

LOOSE = 1e-4  # (beta, v) is solved to this part of the last step on theta, both in standard errors


@dataclass(frozen=True)
class EQL:
    r"""Extended quasi-likelihood estimates of a hierarchical generalised linear model.

    Alternates until the fixed point of both:

    1. (beta, v) from the mixed-model equations of the augmented model (`hlik.augmented`);
    2. theta from gamma GLMs on the deviance components (`hlik.estimators.dispersion`).

    For Gaussian responses with Gaussian effects the fixed point is REML. For other families it is the h-likelihood
    estimate of Lee & Nelder (1996, 2001) that R's hglm computes; hglm's default stopping rule halts before it.

    Parameters
    ----------
    dispersion
        ``"model"``: phi as the graph says (1 for Binomial, Bernoulli and Poisson). ``"estimate"``: those responses
        get a quasi-dispersion, as hglm estimates by default, reported as ``<response>_dispersion``. A mapping
        ``{response: setting}`` sets them one by one, where a setting may also be an (n, k) array of covariates of
        log phi (hglm's ``X.disp``).
    correction
        None, or ``"HL11"``: beta maximises p_v(h) instead of h (Noh & Lee 2007, HL(1,1)), which removes the
        first-order bias of beta. hglm calls it EQL1 and leaves it out for all but one Gaussian term.
    tol
        Convergence: the next step on theta would be shorter than `tol` standard errors.
    max_iterations
        Steps on theta.

    Raises
    ------
    ModelError
        Where a setting is out of range; by `hlik.fit`, where the model is no hierarchical generalised linear model that
        EQL knows: the message names the variable, and `hlik.inspect` says so beforehand.

    Notes
    -----
    Cost: a few sparse factorisations of Z'WZ + D an iteration, 5 to 20 iterations. Biased towards zero for the
    variances of small binary groups (bacteria data, phi = 1: 1.03 where maximum likelihood is 1.84); use Laplace,
    or better, there.

    References
    ----------
    Lee, Y. & Nelder, J. A. (1996). Hierarchical generalized linear models. JRSS B 58, 619-678.
    Lee, Y. & Nelder, J. A. (2001). Hierarchical generalised linear models: a synthesis. Biometrika 88, 987-1006.
    Noh, M. & Lee, Y. (2007). REML estimation for binary data in GLMMs. J. Multivariate Analysis 98, 896-915.
    Ronnegard, L., Shen, X. & Alam, M. (2010). hglm: a package for fitting HGLMs. The R Journal 2/2, 20-28.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     beta, lam = pm.Normal("beta", 0, 5), pm.HalfNormal("lam", 1)
    ...     u = pm.Gamma("u", 1 / lam, 1 / lam, shape=4)
    ...     _ = pm.Poisson("y", pm.math.exp(beta) * u[np.repeat(np.arange(4), 3)], observed=y)
    >>> for estimator in (hlik.EQL(), hlik.EQL(dispersion="estimate")):
    ...     idata = hlik.fit(model, estimator, progressbar=False)
    ...     print({name: round(float(idata.estimates[name]), 3) for name in idata.estimates if name != "u"})
    {'beta': 1.099, 'lam': 1.279}
    {'beta': 1.099, 'lam': 1.332, 'y_dispersion': 0.799}
    """

    dispersion: str | Mapping[str, Any] = "model"
    correction: str | None = None
    tol: float = 1e-8
    max_iterations: int = 100

    name: str = field(default="EQL", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.correction not in (None, "HL11"):
            raise ModelError(f"EQL(correction={self.correction!r}): expected None or 'HL11'.")
        if isinstance(self.dispersion, str) and self.dispersion not in ("model", "estimate"):
            raise ModelError(f"EQL(dispersion={self.dispersion!r}): expected 'model', 'estimate' or a mapping.")
        if not (self.tol > 0 and self.max_iterations >= 1):
            raise ModelError(f"EQL: tol and max_iterations must be positive; got {self.tol}, {self.max_iterations}.")

    def obstacles(self, model: HierarchicalModel) -> list[str]:
        """Why EQL cannot fit this model; empty where it can."""
        return list(model.obstacles)

    def prepare(self, model: HierarchicalModel, start: dict[str, np.ndarray], rng: np.random.Generator) -> Any:
        """Analyse the sparse pattern once and find starting values."""
        if model.double is not None:
            return prepare_double(self, model, start, rng)
        model = with_quasi_dispersion(model, self.dispersion)
        augmented = AugmentedModel(model)
        check_start(model, start)
        v = augmented.start_v()
        plain = glm_beta(model, v)
        theta = start_theta(model, start, plain, v)
        beta = given_beta(model, start, plain)
        spread = dispersions(model, theta)
        if not spread.valid():
            raise ModelError(
                "The starting values give a variance that is not positive: pass start={...} with values of the "
                "dispersion parameters for which every variance is positive."
            )
        point = augmented.at(beta, start_v(model, start, beta, theta, v), spread)
        if point is None:
            raise ModelError(
                "The starting values give a mean outside its range (see the links): pass start={...} with values of "
                "the fixed effects for which every mean is valid."
            )
        mu = (augmented.at(plain, v, spread) or point).mu
        references = {r.name: float(deviance_components(r, mu[r.rows]).mean()) for r in model.responses if r.dispersion}
        return EQLState(augmented, self.correction, theta, spread, point, references)

    def step(self, state: Any) -> tuple[Any, dict[str, float]]:
        """One iteration: solve for (beta, v) given theta, then move theta by a Newton step."""
        if isinstance(state, DoubleState):
            return step_double(state)
        try:
            solved = solve(state, max(LOOSE * min(1.0, state.decrement), TIGHT))
            if solved.proposal.decrement < self.tol and not solved.mean.is_solved:
                solved = solve(replace(state, point=solved.mean.point), TIGHT)
        except ModelError as error:  # after the first step: a dispersion went where the equations are singular
            if state.solved is None:
                raise
            return replace(state, failure=str(error).rstrip(".")), self._row(state.solved)
        return advance(state, solved, self.tol), self._row(solved)

    @staticmethod
    def _row(solved: Solved) -> dict[str, float]:
        return {
            "step": solved.proposal.decrement,
            "inner_iterations": float(solved.mean.steps),
            "objective": solved.mean.point.objective,
        }

    def position(self, state: Any) -> tuple[np.ndarray, np.ndarray]:
        """(beta, theta) of the last solved point."""
        if isinstance(state, DoubleState):
            return position_double(state)
        assert state.solved is not None
        return state.solved.mean.point.beta, state.solved.theta

    def status(self, state: Any) -> str:
        """`RUNNING`, `CONVERGED`, or why it stopped."""
        if isinstance(state, DoubleState):
            return status_double(state)
        if state.failure is not None:
            singular = singular_sentence(state.augmented.model, state.theta) if state.failure == NO_STEP else None
            return f"stopped: {state.failure}" if singular is None else f"boundary: {singular}"
        return RUNNING if state.solved is None or state.decrement >= self.tol else verdict(state)

    def finish(self, state: Any) -> Estimate:
        """Estimates, standard errors, log-likelihoods and diagnostics at the last solved point."""
        if isinstance(state, DoubleState):
            return finish_double(state)
        return finish_eql(state)
