"""Starting values: beta from a plain GLM, dispersions from its deviance, both replaced by what the user gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import optimize

from hlik.augmented import deviance_components
from hlik.errors import ModelError
from hlik.links import Link
from hlik.maps import LinkMap, ThetaMap
from hlik.model import HierarchicalModel, Parameter, Response

GLM_ITERATIONS = 25
GLM_TOLERANCE = 1e-4  # relative change of the deviance: a start, not an estimate


def check_start(model: HierarchicalModel, start: Mapping[str, np.ndarray]) -> None:
    """Refuse names and shapes that the model does not have."""
    known = {p.name: p.variable for p in model.parameters} | {
        e.name: e.variable for e in model.random_effects
    }
    for name, value in start.items():
        if name not in known:
            raise ModelError(
                f"start= names {name!r}, which is no parameter or random effect: {sorted(known)}."
            )
        if np.shape(value) != known[name].shape:
            raise ModelError(
                f"start[{name!r}] has shape {np.shape(value)}; {name} has shape {known[name].shape}."
            )


def start_beta(model: HierarchicalModel, start: Mapping[str, np.ndarray], v: np.ndarray) -> np.ndarray:
    """beta of the GLM without random effects (v at its mode), with the user's values put in."""
    beta = _glm(model, v) if model.n_beta else np.zeros(0)
    for parameter in model.fixed_effects:
        if parameter.name in start:
            beta[parameter.index] = np.ravel(start[parameter.name])
    return beta


def _glm(model: HierarchicalModel, v: np.ndarray) -> np.ndarray:
    """IRLS from the mean that the data suggest; a step is halved while a mean leaves its range."""
    known = model.offset + (model.Z @ v if v.size and np.any(v) else 0.0)
    eta = np.concatenate([r.link.link(r.family.initial_mean(r.y, r.weight)) for r in model.responses])  # type: ignore[union-attr]
    deviance, beta = np.inf, None
    for _ in range(GLM_ITERATIONS):
        found = _working(model, eta)
        if found is None:
            break
        weight, score, new_deviance = found
        if abs(deviance - new_deviance) < GLM_TOLERANCE * (abs(new_deviance) + 0.1):
            break
        deviance = new_deviance
        working = eta - known + np.divide(score, weight, out=np.zeros_like(score), where=weight > 0)
        root = np.sqrt(weight)
        proposal = np.linalg.lstsq(root[:, None] * model.X, root * working, rcond=None)[0]
        new_beta = _valid(model, known, beta, proposal)
        if new_beta is None:
            break
        beta = new_beta
        eta = known + model.X @ beta
    return np.zeros(model.n_beta) if beta is None else beta


def _valid(
    model: HierarchicalModel, known: np.ndarray, beta: np.ndarray | None, proposal: np.ndarray
) -> np.ndarray | None:
    """`proposal`, or a point between it and `beta`, at which every mean is in its range."""
    if beta is None:
        return (
            proposal
            if _working(model, known + model.X @ proposal) is not None
            else _constant_start(model, known)
        )
    for _ in range(20):
        if _working(model, known + model.X @ proposal) is not None:
            return proposal
        proposal = 0.5 * (proposal + beta)
    return beta


def _constant_start(model: HierarchicalModel, known: np.ndarray) -> np.ndarray | None:
    """beta for which eta is as near as X allows to the link of the mean response: valid where X has an intercept."""
    target = np.concatenate([np.full(r.size, _link_of_mean(r)) for r in model.responses])
    beta = np.linalg.lstsq(model.X, target - known, rcond=None)[0]
    return beta if _working(model, known + model.X @ beta) is not None else None


def _working(model: HierarchicalModel, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Weights and scores at phi = 1, and the deviance; None where a mean is out of range."""
    weight, score, deviance = np.empty_like(eta), np.empty_like(eta), 0.0
    for response in model.responses:
        rows = response.rows
        part = eta[rows]
        assert response.family is not None
        assert response.link is not None
        if not np.all(response.link.valid_eta(part)):
            return None
        mu, weight[rows], score[rows] = response.family.working(
            response.y, part, response.link, 1.0, response.weight
        )
        if not np.all(response.family.valid_mean(mu)):
            return None
        deviance += float(deviance_components(response, mu).sum())
    return (weight, score, deviance) if np.isfinite(deviance) else None


def start_theta(
    model: HierarchicalModel, start: Mapping[str, np.ndarray], beta: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """theta for which phi is 0.6 of the GLM's mean deviance and lam 0.66 of that, shared among the terms (as hglm).

    A term's lam is divided by the mean square of its covariate, so that the start does not depend on its units.
    """
    if not model.n_theta:
        return np.zeros(0)
    phi, lam = _target_dispersions(model, beta, v)
    maps: list[tuple[ThetaMap, float]] = [
        (response.dispersion, value)
        for response, value in zip(model.responses, phi, strict=True)
        if response.dispersion
    ]
    maps += [(effect.dispersion, value) for effect, value in zip(model.random_effects, lam, strict=True)]  # type: ignore[misc]
    theta = _solve_maps(maps, model.n_theta)
    for parameter in model.dispersion_parameters:
        if parameter.name in start:
            theta[parameter.index] = unconstrained(parameter, np.asarray(start[parameter.name], float), theta)
    return theta


def _target_dispersions(
    model: HierarchicalModel, beta: np.ndarray, v: np.ndarray
) -> tuple[list[float], list[float]]:
    eta = model.offset + model.X @ beta + (model.Z @ v if v.size else 0.0)
    phi = []
    for response in model.responses:
        mu = response.link.inverse(eta[response.rows])  # type: ignore[union-attr]
        mean = float(deviance_components(response, mu).sum()) / max(response.size - model.n_beta, 1)
        phi.append(max(0.6 * mean, 1e-8))
    terms = max(len(model.random_effects), 1)
    squares = np.asarray(model.Z.multiply(model.Z).sum(axis=0)).ravel() if model.n_random else np.zeros(0)
    lam = []
    for effect in model.random_effects:
        size = float(squares[effect.index].sum()) / model.n_rows
        lam.append(0.66 * float(np.mean(phi)) / terms / max(size, 1e-12))
    return phi, lam


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


def _link_of_mean(response: Response) -> float:
    """The link of the weighted mean response."""
    assert response.link is not None
    mean = np.average(response.y, weights=np.broadcast_to(response.weight, response.y.shape))
    return float(response.link.link(np.asarray(mean)))


def _as_link_map(dispersion: ThetaMap, n_theta: int) -> tuple[np.ndarray, np.ndarray, Link] | None:
    """Matrix, offset and link of a map that is a `LinkMap`, padded to the length of theta; else None."""
    inner = getattr(dispersion, "inner", dispersion)
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
            raise ModelError(
                f"start[{parameter.name!r}] = {natural} is outside the support of {parameter.name!r}."
            )
        return np.linalg.lstsq(matrix[:, parameter.index], eta - offset, rcond=None)[0]
    solution = optimize.least_squares(residuals, theta[parameter.index], xtol=1e-15, ftol=1e-15, gtol=1e-15)
    if np.max(np.abs(solution.fun)) > 1e-6 * (1 + np.max(np.abs(target))):
        raise ModelError(
            f"start[{parameter.name!r}] = {natural} is outside the support of {parameter.name!r}."
        )
    return solution.x
