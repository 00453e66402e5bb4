r"""How far a fit is from the maximum of the true marginal likelihood, told by importance sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
import pandas as pd

from hlik.accuracy_evaluation import CheckedFit, Evaluation, LogLikelihood
from hlik.accuracy_verdict import distance_table, verdict_of
from hlik.estimators.mcla import MCLA
from hlik.estimators.mcla_state import MCLAState


@dataclass(frozen=True, eq=False)
class Accuracy:
    """What `check_accuracy` found; it prints as a table and a verdict.

    Attributes
    ----------
    table
        A row a parameter element: ``estimate`` and ``maximum`` (of the marginal likelihood) on the natural scale;
        ``distance``, estimate less maximum in standard errors on the unconstrained scale, and ``mcse``, its Monte
        Carlo error; ``gradient``, of the log-likelihood at the estimate, by a step of one standard error.
    verdict
        Sentences; ``level`` is ``"clean"``, ``"slight"``, ``"far"`` or ``"unknown"``.
    log_likelihood
        At the estimate (`LogLikelihood`).
    maximum_log_likelihood, maximum_mcse
        At the maximum. They, and the columns of the table that need the maximum, are NaN where it was not found.
    estimator
        That of the fit.
    """

    table: pd.DataFrame
    verdict: tuple[str, ...]
    level: str
    log_likelihood: LogLikelihood
    maximum_log_likelihood: float
    maximum_mcse: float
    estimator: str

    def __str__(self) -> str:
        head = f"{self.estimator} beside maximum likelihood by importance sampling"
        foot = str(self.log_likelihood)
        if np.isfinite(self.maximum_log_likelihood):
            foot += f"\nat the maximum {self.maximum_log_likelihood:.4f} (Monte Carlo error {self.maximum_mcse:.2g})"
        return "\n\n".join([head, self.table.to_string(float_format="{:.4g}".format), foot, "\n".join(self.verdict)])

    __repr__ = __str__


def importance_log_likelihood(
    model: Any,
    idata: az.InferenceData,
    *,
    settings: MCLA | None = None,
    tol: float = 0.01,
    random_seed: int | np.random.Generator | None = None,
) -> LogLikelihood:
    """`hlik.loglik(model, idata)`: the marginal log-likelihood at the estimate of any estimator.

    Parameters
    ----------
    model
        The model of the fit, with its data.
    idata
        A result of `hlik.fit`.
    settings
        How to draw: `hlik.MCLA`; its ``max_m`` is the largest number of draws.
    tol
        Monte Carlo error asked for.
    random_seed
        Of the draws.
    """
    problem = CheckedFit.of(model, idata, settings or MCLA(), np.random.default_rng(random_seed))
    return problem.evaluate(tol).log_likelihood()


def check_accuracy(
    model: Any,
    idata: az.InferenceData,
    *,
    settings: MCLA | None = None,
    random_seed: int | np.random.Generator | None = None,
) -> Accuracy:
    r"""How far a fit is from the maximum of the true marginal likelihood, in standard errors.

    Parameters
    ----------
    model
        The model of the fit, with its data.
    idata
        A result of `hlik.fit` by any estimator, also one read back from NetCDF.
    settings
        How to draw and to search: `hlik.MCLA`, whose ``executor`` can be used too.
    random_seed
        Of the draws.

    Returns
    -------
    Accuracy
        A table with a row a parameter, the log-likelihoods, and a verdict in words.

    Raises
    ------
    ModelError
        Where the result is not one of this model; where it has an estimated quasi-dispersion or penalties (there is
        no likelihood then); where importance sampling cannot serve the model.

    Notes
    -----
    The marginal log-likelihood l and its gradient are found at the estimate with a proposal made there; then l is
    maximised from there as `hlik.MCLA` does it, and the distance is (estimate - maximum) / standard error on the
    unconstrained scale, standard errors from the Hessian at the maximum. A parameter is *far* beyond 0.5 standard
    errors, *slightly* off beyond 0.1, after two Monte Carlo errors are taken off. Estimators that maximise a
    restricted likelihood (EQL, REML) differ from maximum likelihood on purpose where there are few groups. Cost:
    that of `hlik.MCLA`.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(6), 4)
    >>> y = np.array([0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=6)
    ...     _ = pm.Bernoulli("y", logit_p=mean + u[group], observed=y)
    >>> found = hlik.check_accuracy(model, hlik.fit(model, hlik.AGQ(), progressbar=False), random_seed=1)
    >>> found.level
    'clean'
    """
    settings = settings or MCLA()
    checked = CheckedFit.of(model, idata, settings, np.random.default_rng(random_seed))
    here = checked.evaluate(0.01)
    there = checked.maximum()
    return _accuracy(checked, here, there, idata)


def _accuracy(checked: CheckedFit, here: Evaluation, there: MCLAState, idata: az.InferenceData) -> Accuracy:
    maximum = there.maximum
    assert maximum is not None
    assert there.weights is not None
    errors = np.sqrt(np.diag(maximum.covariance))
    distance = (checked.psi - maximum.psi) / errors
    noise = np.sqrt(np.diag(maximum.mcse)) / errors
    gradient = here.gradient() * errors
    name, status = str(idata["fit"].attrs["estimator_name"]), there.status()
    reliable = here.weights.are_reliable and there.weights.are_reliable
    if not reliable or status.startswith("stopped"):  # what was found would be read as a maximum
        nothing = np.full(errors.size, np.nan)
        table = distance_table(checked, nothing, nothing, nothing, gradient)
        weights = there.weights if not there.weights.are_reliable else here.weights
        why = f"The maximum of the likelihood was not found: {status.removeprefix('stopped: ')}."
        verdict = weights.verdict().removeprefix("stopped: ") if not reliable else why
        return Accuracy(table, (verdict,), "unknown", here.log_likelihood(), np.nan, np.nan, name)
    table = distance_table(checked, maximum.psi, distance, noise, gradient)
    level, verdicts = verdict_of(table, name, idata["fit"].attrs["likelihood"] == "p_bv_h")
    return Accuracy(table, verdicts, level, here.log_likelihood(), maximum.value, maximum.value_mcse, name)
