r"""How far a fit is from the maximum of the true marginal likelihood, told by importance sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import arviz as az
import numpy as np
import pandas as pd

from hlik.adjusted_profile import ModeError, Profile
from hlik.errors import ModelError
from hlik.estimators.base import RUNNING
from hlik.estimators.laplace_objective import Objective, active_parameters
from hlik.estimators.mcla import MCLA, MCLAState
from hlik.graph.describe import labels_of
from hlik.hlikelihood import HLikelihood
from hlik.importance import Derivatives, ImportanceLikelihood
from hlik.importance_diagnostics import Weights, weights_at
from hlik.model import HierarchicalModel

FAR, SLIGHT = 0.5, 0.1  # standard errors, beyond two Monte Carlo errors
GROWTH = 4


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """A marginal log-likelihood by importance sampling.

    Attributes
    ----------
    value
        All constants included. ``float()`` of this object gives it.
    mcse
        Its Monte Carlo standard error.
    pareto_k
        The largest Pareto k of the weights among blocks whose weights have a tail that matters; -inf where none has.
    draws
        Draws of every block.
    is_reliable
        Whether importance sampling can be trusted here (see `hlik.MCLA`).
    """

    value: float
    mcse: float
    pareto_k: float
    draws: int
    is_reliable: bool

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        doubt = "" if self.is_reliable else f"; not to be trusted: Pareto k = {self.pareto_k:.2f}"
        return f"log-likelihood {self.value:.4f} (Monte Carlo error {self.mcse:.2g}, {self.draws:,} draws{doubt})"


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
        At the maximum.
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
        foot = (
            f"{self.log_likelihood}\nat the maximum {self.maximum_log_likelihood:.4f} "
            f"(Monte Carlo error {self.maximum_mcse:.2g})"
        )
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
    problem = _Checked.of(model, idata, settings or MCLA(), np.random.default_rng(random_seed))
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
    checked = _Checked.of(model, idata, settings, np.random.default_rng(random_seed))
    here = checked.evaluate(0.01)
    there = checked.maximum()
    return _accuracy(checked, here, there, idata)


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """l and its derivatives at one psi."""

    likelihood: ImportanceLikelihood
    value: float
    derivatives: Derivatives
    weights: Weights

    def log_likelihood(self) -> LogLikelihood:
        w = self.weights
        matters = w.pareto_k[w.effective < 0.8 * w.draws]
        k = float(np.nanmax(matters, initial=-np.inf))
        return LogLikelihood(self.value, self.derivatives.value_mcse(), k, w.draws, w.are_reliable)


@dataclass(frozen=True, eq=False)
class _Checked:
    """A fit's estimate, and the state of MCLA from which it is looked at."""

    model: HierarchicalModel
    psi: np.ndarray
    state: MCLAState

    @classmethod
    def of(cls, model: Any, idata: az.InferenceData, settings: MCLA, rng: np.random.Generator) -> _Checked:
        read, psi, v = _estimate_of(model, idata)
        name = idata["fit"].attrs["estimator_name"]
        obstacles = settings.obstacles(read)
        if obstacles:
            raise ModelError(f"The accuracy of this {name} fit cannot be checked: " + "; ".join(obstacles) + ".")
        likelihood = HLikelihood(read)
        objective = Objective(Profile(likelihood), psi[: read.n_beta], v)
        try:
            objective.mode(psi)
        except ModeError as error:
            raise ModelError(f"The accuracy of this {name} fit cannot be checked: {error} at its estimates.") from error
        covariance = _metric_of(idata, psi.size)
        entropy = int(rng.integers(2**32))
        return cls(read, psi, MCLAState(settings, objective, settings.blocks(likelihood), psi, covariance, entropy))

    def evaluate(self, tol: float) -> _Evaluation:
        """l at the estimate, with draws that grow until its Monte Carlo error is at most `tol`."""
        settings, state = self.state.settings, self.state
        n, most = 128, max(settings.max_m // settings.randomisations, 1)
        if settings.m is not None:
            n = most = -(-settings.m // settings.randomisations)
        proposal, stage = state.proposal_here(stage=1000)
        while True:
            likelihood = state.sample(proposal, min(n, most), stage)
            value, derivatives = likelihood.value(self.psi), likelihood.derivatives(self.psi, hessian=False)
            weights = weights_at(likelihood, self.psi)
            if derivatives.value_mcse() <= tol or n >= most or weights.are_hopeless:
                return _Evaluation(likelihood, value, derivatives, weights)
            n, stage = GROWTH * n, stage + 1

    def maximum(self) -> MCLAState:
        """MCLA's last state, from the estimate; variances at zero are set back first."""
        active = active_parameters(self.state.objective, self.psi)
        state = replace(self.state, psi=np.where(active, self.psi, 0.0))
        for _ in range(state.settings.max_iterations):
            state, _row = state.settings.step(state)
            if state.settings.status(state) != RUNNING:
                break
        return state


def _estimate_of(model: Any, idata: az.InferenceData) -> tuple[HierarchicalModel, np.ndarray, np.ndarray]:
    """The model of a result, psi and v."""
    from hlik.graph.read import as_pymc
    from hlik.inference.restore import estimated_v, read_again

    read = read_again(model, idata)
    added = [p.name for p in read.parameters if p.name not in as_pymc(model).named_vars]
    if added:
        raise ModelError(
            f"The result has an estimated quasi-dispersion, {added[0]!r}: quasi-likelihoods have no marginal "
            "likelihood. Fit with EQL(dispersion='model')."
        )
    if idata["fit"].attrs.get("priors", "ignore") != "ignore":
        raise ModelError("The result maximises a penalised likelihood: only likelihood fits can be checked.")
    beta, theta = np.zeros(read.n_beta), np.zeros(read.n_theta)
    for parameter in read.parameters:
        target = beta if parameter.natural is None else theta
        target[parameter.index] = np.ravel(idata["unconstrained_estimates"][parameter.variable.value_name].values)
    return read, np.concatenate([beta, theta]), estimated_v(read, idata)


def _metric_of(idata: az.InferenceData, size: int) -> np.ndarray:
    """The fit's covariance as the metric of the search; ones where it has none."""
    covariance = idata["fit"]["covariance_matrix"].values.copy()
    lost = ~(np.isfinite(np.diag(covariance)) & (np.diag(covariance) > 0))
    covariance[lost], covariance[:, lost] = 0.0, 0.0
    covariance[lost, lost] = 1.0
    return covariance if covariance.shape == (size, size) else np.eye(size)


def _accuracy(checked: _Checked, here: _Evaluation, there: MCLAState, idata: az.InferenceData) -> Accuracy:
    maximum = there.maximum
    assert maximum is not None
    assert there.weights is not None
    errors = np.sqrt(np.diag(maximum.covariance))
    distance = (checked.psi - maximum.psi) / errors
    noise = np.sqrt(np.diag(maximum.mcse)) / errors
    gradient = here.derivatives.gradient * errors
    name = str(idata["fit"].attrs["estimator_name"])
    table = _table(checked, maximum.psi, distance, noise, gradient)
    reliable = here.weights.are_reliable and there.weights.are_reliable
    if reliable:
        level, verdict = _verdict(table, name)
    else:
        weights = there.weights if not there.weights.are_reliable else here.weights
        level, verdict = "unknown", (weights.verdict().removeprefix("stopped: "),)
    status = there.status()
    if reliable and status.startswith("stopped"):
        level, verdict = (
            "unknown",
            (f"The maximum of the likelihood was not found: {status.removeprefix('stopped: ')}.",),
        )
    mcse = maximum.derivatives.value_mcse()
    return Accuracy(table, verdict, level, here.log_likelihood(), maximum.value, mcse, name)


def _table(
    checked: _Checked, psi: np.ndarray, distance: np.ndarray, noise: np.ndarray, gradient: np.ndarray
) -> pd.DataFrame:
    """A row an element of the value variables, with natural-scale values."""
    model, p = checked.model, checked.model.n_beta
    parts = []
    for parameter in model.parameters:
        start = 0 if parameter.natural is None else p
        place = slice(parameter.index.start + start, parameter.index.stop + start)
        values = [_natural(parameter, x, p)[: place.stop - place.start] for x in (checked.psi, psi)]
        index = labels_of(model.coords, parameter.variable, parameter.name)
        columns = {
            "role": parameter.role,
            "estimate": values[0],
            "maximum": values[1],
            "distance": distance[place],
            "mcse": noise[place],
            "gradient": gradient[place],
        }
        parts.append(pd.DataFrame(columns, index=pd.Index(index, name="parameter")))
    return pd.concat(parts)


def _natural(parameter: Any, psi: np.ndarray, p: int) -> np.ndarray:
    """Values on the natural scale; those of the value variable where the two have different sizes."""
    if parameter.natural is None:
        return psi[:p][parameter.index]
    values = np.ravel(parameter.natural.value(psi[p:]))
    own = psi[p:][parameter.index]
    return values if values.size == own.size else own


def _verdict(table: pd.DataFrame, name: str) -> tuple[str, tuple[str, ...]]:
    """Sentences about the parameters that are off, the farthest first."""
    sure = table["distance"].abs() - 2 * table["mcse"]
    off = table[sure > SLIGHT].assign(size=lambda t: t["distance"].abs()).sort_values("size", ascending=False)
    lost = table.index[~np.isfinite(table["distance"])].tolist()
    sentences = []
    for label, row in off.iterrows():
        side = "below" if row["estimate"] < row["maximum"] else "above"
        how = "" if row["size"] - 2 * row["mcse"] > FAR else "slightly off: "
        sentences.append(
            f"{how}{name}'s {label} ({row['estimate']:.4g}) is {row['size']:.2f} SE {side} the maximum-likelihood "
            f"estimate ({row['maximum']:.4g})"
        )
    if lost:
        sentences.append(f"{', '.join(lost)}: no standard error at the maximum (at a boundary), and no distance")
    level = "clean" if off.empty else "far" if (sure > FAR).any() else "slight"
    if level == "clean":
        sentences.insert(0, f"{name} is within {SLIGHT} SE of the maximum-likelihood estimates")
    else:
        better = "Laplace or MCLA" if name == "EQL" and level == "far" else "MCLA"
        if name != "MCLA":
            sentences.append(f"use {better}")
    return level, tuple(sentences)
