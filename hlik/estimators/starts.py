"""Starting values: beta from a plain GLM, dispersions from its deviance, both replaced by what the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from scipy import optimize
from scipy.sparse.linalg import spsolve

from hlik.augmented import AugmentedModel, Dispersions, deviance_components
from hlik.errors import ModelError
from hlik.estimators.eql_mean import solve_mean
from hlik.estimators.quasi_dispersion import PaddedMap
from hlik.graph.forms import Affine, evaluate
from hlik.links import Link
from hlik.maps import LinkMap, ThetaMap
from hlik.model import HierarchicalModel, Parameter, RandomEffect

PHI_BOUNDS, LAM_BOUNDS = (1e-6, 1e8), (1e-8, 1e4)  # of a start, as parts of the dispersions that the deviance suggests
GLM_STEPS, GLM_TOLERANCE = 25, 1e-2  # standard errors: a start, not an estimate
GLM_ROWS = 40_000  # observations of a response that a start looks at, chosen at random where there are more


def check_start(model: HierarchicalModel, start: Mapping[str, np.ndarray]) -> None:
    """Refuse names and shapes that the model does not have."""
    known = {p.name: p.variable for p in model.parameters} | {e.name: e.variable for e in model.random_effects}
    for name, value in start.items():
        if name not in known:
            raise ModelError(f"start= names {name!r}, which is no parameter or random effect: {sorted(known)}.")
        if np.shape(value) != known[name].shape:
            raise ModelError(f"start[{name!r}] has shape {np.shape(value)}; {name} has shape {known[name].shape}.")
        if not np.all(np.isfinite(value)):
            raise ModelError(f"start[{name!r}] = {value} is not finite.")


def start_beta(model: HierarchicalModel, start: Mapping[str, np.ndarray], v: np.ndarray) -> np.ndarray:
    """beta of the GLM without random effects (v at its mode), with the user's values put in."""
    return given_beta(model, start, glm_beta(model, v))


def given_beta(model: HierarchicalModel, start: Mapping[str, np.ndarray], beta: np.ndarray) -> np.ndarray:
    """`beta` with the user's values put in."""
    beta = beta.copy()
    for parameter in model.fixed_effects:
        if parameter.name in start:
            beta[parameter.index] = np.ravel(start[parameter.name])
    return beta


def start_v(
    model: HierarchicalModel,
    start: Mapping[str, np.ndarray],
    beta: np.ndarray,
    theta: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """`v` with the user's values of random effects put in: u on the scale of v, less its mean, times its scale."""
    v = v.copy()
    given = [effect for effect in model.random_effects if effect.name in start]
    values = {p.name: beta[p.index] for p in model.fixed_effects}
    for effect in given:
        u = np.ravel(start[effect.name])
        if effect.location is not None:
            form = model.forms[effect.name]
            assert isinstance(form, Affine)
            others = {e.name: v[e.index] for e in model.random_effects if e.name != effect.name}
            u = u - evaluate(form, values | others | {effect.name: np.zeros(effect.levels)}).ravel()
        elif effect.scale_map is not None:
            u = u * effect.scale_map.value(theta)
        elif effect.root is not None:
            u = spsolve(sp.csc_array(effect.root.inverse(theta)), u)
        if effect.family is None:
            v[effect.index] = u
            continue
        own = effect.family.v(u) if effect.wide is None else effect.wide.scores(u)
        if not np.all(effect.family.valid(own)):
            raise ModelError(f"start[{effect.name!r}] is outside the support of {effect.name!r}.")
        v[effect.index] = own
    return v


def glm_beta(model: HierarchicalModel, v: np.ndarray) -> np.ndarray:
    """beta of the generalised linear model with v as it is, to a hundredth of a standard error.

    Begins where the deviance is least: at a constant mean, or at one least-squares step from a mean near the data;
    zero where neither gives valid means.
    """
    if not model.n_beta:
        return np.zeros(0)
    known = model.offset + (model.Z @ v if v.size and np.any(v) else 0.0)
    model, known = _sampled(model, known)
    nothing = sp.csr_array((model.n_rows, 0))
    plain = AugmentedModel(replace(model, random_effects=(), Z=nothing, offset=known))
    unit = Dispersions(tuple(np.ones(1) for _ in model.responses), ())
    tried = [plain.at(beta, np.zeros(0), unit) for beta in (_constant_mean(model, known), _near_data(model, known))]
    points = [point for point in tried if point is not None]
    if not points:
        return np.zeros(model.n_beta)
    begin = max(points, key=lambda point: point.objective)
    scale = Dispersions(tuple(_mean_deviances(model, begin.mu)), ())
    at_scale = plain.at(begin.beta, begin.v, scale)
    assert at_scale is not None
    return solve_mean(plain, at_scale, scale, GLM_TOLERANCE, None, GLM_STEPS).point.beta


def _sampled(model: HierarchicalModel, known: np.ndarray) -> tuple[HierarchicalModel, np.ndarray]:
    """The model without random effects on a random part of long responses, where its X keeps its rank."""
    limit = max(GLM_ROWS, 100 * model.n_beta)
    if all(r.size <= 2 * limit for r in model.responses):
        return model, known
    rng = np.random.default_rng(0)
    responses, chosen, start = [], [], 0
    for r in model.responses:
        own = np.arange(r.size) if r.size <= 2 * limit else rng.integers(r.size, size=limit)
        weight = r.weight[own] if r.weight.size > 1 else r.weight
        rows = slice(start, start + own.size)
        responses.append(replace(r, y=r.y[own], weight=weight, rows=rows, dispersion=None))
        chosen.append(r.rows.start + own)
        start = rows.stop
    index = np.concatenate(chosen)
    X = model.X[index]
    if np.linalg.matrix_rank(X.T @ X) < model.n_beta:
        return model, known
    nothing = sp.csr_array((index.size, model.n_random))
    return replace(model, responses=tuple(responses), X=X, Z=nothing, offset=known[index]), known[index]


def _constant_mean(model: HierarchicalModel, known: np.ndarray) -> np.ndarray:
    """beta for which eta is as near as X allows to the link of the mean response."""
    target = np.empty(model.n_rows)
    for r in model.responses:
        mean = np.average(r.y, weights=np.broadcast_to(r.weight, r.y.shape))
        target[r.rows] = r.link.link(np.asarray(mean))  # type: ignore[union-attr]
    return np.linalg.lstsq(model.X, target - known, rcond=None)[0]


def _near_data(model: HierarchicalModel, known: np.ndarray) -> np.ndarray:
    """The first IRLS step of R's glm: least squares of the link of the data, with the weights there."""
    eta, weight = np.empty(model.n_rows), np.empty(model.n_rows)
    for r in model.responses:
        assert r.family is not None
        assert r.link is not None
        eta[r.rows] = r.link.link(r.family.initial_mean(r.y, r.weight))
        weight[r.rows] = r.family.working(r.y, eta[r.rows], r.link, 1.0, r.weight).weight
    root = np.sqrt(np.where(np.isfinite(weight), weight, 0.0))
    target = np.where(np.isfinite(eta), eta, 0.0) - known
    return np.linalg.lstsq(root[:, None] * model.X, root * target, rcond=None)[0]


def _mean_deviances(model: HierarchicalModel, mu: np.ndarray) -> list[np.ndarray]:
    """Deviance per residual degree of freedom of every response; never zero."""
    found = []
    for r in model.responses:
        mean = float(deviance_components(r, mu[r.rows]).sum()) / max(r.size - model.n_beta, 1)
        found.append(np.array([mean if mean > 0 else 1.0]))
    return found


def start_theta(
    model: HierarchicalModel, start: Mapping[str, np.ndarray], beta: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """Dispersions that the deviance of the GLM suggests, whatever the units of y and of the covariates.

    phi is 0.6 of the mean deviance, as in R's hglm. The K terms of random effects add 0.66 / K of that each to the
    variance of the working response, on average over the rows that they touch. The user's values replace these, within
    bounds outside of which the equations are singular to rounding.
    """
    if not model.n_theta:
        return np.zeros(0)
    phi, _ = targets = target_dispersions(model, beta, v)
    maps: list[tuple[ThetaMap, float]] = [
        (response.dispersion, value)
        for response, value in zip(model.responses, phi, strict=True)
        if response.dispersion
    ]
    n_responses = len(maps)
    for effect, value in zip(model.random_effects, targets[1], strict=True):
        if effect.precision is None:
            maps.append((effect.dispersion, value))  # type: ignore[arg-type]
        else:
            share = _working_shares(model, beta, v, phi)
            variances = effect.precision.variances
            maps += [(found, _target_lam(model, effect, share, members)) for found, members in variances]
    theta = _solve_maps(maps, model.n_theta)
    for parameter in model.dispersion_parameters:
        if parameter.name in start:
            theta[parameter.index] = unconstrained(parameter, np.asarray(start[parameter.name], float), theta)
    for k, (dispersion, target) in enumerate(maps):
        low, high = PHI_BOUNDS if k < n_responses else LAM_BOUNDS
        theta = _between(dispersion, theta, low * target, high * target)
    return theta


def _between(dispersion: ThetaMap, theta: np.ndarray, low: float, high: float) -> np.ndarray:
    """theta, moved so that the dispersion lies about between `low` and `high`."""
    for _ in range(5):
        values = np.maximum(dispersion.value(theta), 1e-300)
        level = float(np.mean(np.log(values)))
        gap = float(np.clip(level, np.log(low), np.log(high))) - level
        slope = np.mean(dispersion.jacobian(theta) / values[:, None], axis=0)
        if gap == 0 or not np.any(slope) or not np.all(np.isfinite(slope)):
            break
        theta = theta + slope * gap / (slope @ slope)
    return theta


def target_dispersions(model: HierarchicalModel, beta: np.ndarray, v: np.ndarray) -> tuple[list[float], list[float]]:
    """A value of phi for every response and of lam for every term."""
    eta = model.offset + model.X @ beta + (model.Z @ v if v.size else 0.0)
    phi = []
    for r in model.responses:
        assert r.family is not None
        assert r.link is not None
        mu, _, _ = r.family.working(r.y, eta[r.rows], r.link, 1.0, r.weight)
        mean = float(deviance_components(r, mu).sum()) / max(r.size - model.n_beta, 1)
        phi.append(0.6 * mean if np.isfinite(mean) and mean > 0 else 1.0)
    share = _working_shares(model, beta, v, phi)
    return phi, [_target_lam(model, effect, share) for effect in model.random_effects]


def _working_shares(model: HierarchicalModel, beta: np.ndarray, v: np.ndarray, phi: list[float]) -> np.ndarray:
    """Weights of the working responses at these dispersions, shape (N,)."""
    eta = model.offset + model.X @ beta + (model.Z @ v if v.size else 0.0)
    share = np.empty(model.n_rows)
    for r, own in zip(model.responses, phi, strict=True):
        share[r.rows] = r.family.working(r.y, eta[r.rows], r.link, 1.0, r.weight).weight / own  # type: ignore
    return share


def _target_lam(
    model: HierarchicalModel, effect: RandomEffect, share: np.ndarray, members: np.ndarray | None = None
) -> float:
    """lam at which the term's effects add 0.66 / K of its variance to the working response.

    `share` are the rows' weights, `members` the numbers of some of its effects. Where the link has a scale of its own,
    effects with a standard deviation above 1.4 are no start.
    """
    own = (model.Z.indices >= effect.index.start) & (model.Z.indices < effect.index.stop)
    if members is not None:
        chosen = np.zeros(model.n_random, dtype=bool)
        chosen[effect.index.start + members] = True
        own &= chosen[model.Z.indices]
    rows = np.repeat(np.arange(model.n_rows, dtype=np.int32), np.diff(model.Z.indptr))[own]
    touched = np.zeros(model.n_rows, dtype=bool)
    touched[rows] = True
    size = float(model.Z.data[own] ** 2 @ share[rows]) / max(int(touched.sum()), 1)
    lam = 0.66 / len(model.random_effects) / size if np.isfinite(size) and size > 0 else 1.0
    links = {r.link.name for r in model.responses if r.link is not None}
    normal = effect.family is None or effect.family.name == "normal"
    if not links & {"identity", "inverse", "sqrt", "inverse_squared"} or not normal:
        lam = min(lam, 2.0)
    if effect.family is None:
        return lam
    return lam * float(effect.family.working(np.array([effect.family.mode])).weight[0])


def _solve_maps(maps: list[tuple[ThetaMap, float]], n_theta: int) -> np.ndarray:
    """theta with every map near its target: exact least squares on the link scale, Gauss-Newton for other graphs."""
    rows, targets = [np.zeros((0, n_theta))], [np.zeros(0)]
    others = []
    for dispersion, value in maps:
        linked = _as_link_map(dispersion, n_theta)
        if linked is None:
            others.append((dispersion, value))
            continue
        matrix, offset, link = linked
        share = 1.0 / np.sqrt(offset.size)
        rows.append(share * matrix)
        targets.append(share * (np.full(offset.size, float(link.link(np.asarray(value)))) - offset))
    theta = np.linalg.lstsq(np.vstack(rows), np.concatenate(targets), rcond=None)[0]
    if not others:
        return theta

    def residuals(theta: np.ndarray) -> np.ndarray:
        parts = [np.log(np.maximum(m.value(theta), 1e-300)) - np.log(value) for m, value in maps]
        return np.concatenate([np.array([part.mean()]) for part in parts] + [1e-3 * theta])

    return optimize.least_squares(residuals, theta, max_nfev=50).x


def _as_link_map(dispersion: ThetaMap, n_theta: int) -> tuple[np.ndarray, np.ndarray, Link] | None:
    """Matrix, offset and link of a map that is a `LinkMap`, padded to the length of theta; else None."""
    inner = dispersion.inner if isinstance(dispersion, PaddedMap) else dispersion
    if not isinstance(inner, LinkMap):
        return None
    padding = np.zeros((inner.offset.size, n_theta - inner.matrix.shape[1]))
    return np.hstack([inner.matrix, padding]), inner.offset, inner.link


def unconstrained(parameter: Parameter, natural: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The unconstrained values at which a parameter takes the natural values given."""
    assert parameter.natural is not None
    target = natural.ravel()

    def residuals(part: np.ndarray) -> np.ndarray:
        full = theta.copy()
        full[parameter.index] = part
        return parameter.natural.value(full) - target  # type: ignore[union-attr]

    found = _as_link_map(parameter.natural, theta.size)
    if found is not None and found[0].shape[0] == target.size:
        matrix, offset, link = found
        with np.errstate(all="ignore"):
            eta = link.link(target)
        if not np.all(np.isfinite(eta)):
            raise ModelError(f"start[{parameter.name!r}] = {natural} is outside the support of {parameter.name!r}.")
        return np.linalg.lstsq(matrix[:, parameter.index], eta - offset, rcond=None)[0]
    solution = optimize.least_squares(residuals, theta[parameter.index], xtol=1e-15, ftol=1e-15, gtol=1e-15)
    if np.max(np.abs(solution.fun)) > 1e-6 * (1 + np.max(np.abs(target))):
        raise ModelError(f"start[{parameter.name!r}] = {natural} is outside the support of {parameter.name!r}.")
    return solution.x
