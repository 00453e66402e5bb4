r"""EQL of double HGLMs: the model of the means and that of the dispersions feed each other (Lee & Nelder 2006).

Given the dispersions phi_i, the means are an HGLM with known dispersions. Given its deviances d_i and leverages h_i,
``d_i / (1 - h_i)`` is a gamma response with mean phi_i and weight ``(1 - h_i) / 2``, whose linear predictor
``g(phi) = Xd gamma + Zd w`` makes a second HGLM. Both are fitted by EQL, in turns, until phi stands still. The same
holds for the variances of random effects, with the deviances and leverages of the effects.

The gamma HGLM's own dispersion is 1, as the theory says: d_i is phi_i times a chi-square with one degree of freedom,
approximately. The hglm tutorial lets R estimate it (1.30 there), which ``EQL(dispersion={"y_dispersion":
"estimate"})`` does too.

References
----------
Lee, Y. & Nelder, J. A. (2006). Double hierarchical generalized linear models. JRSS C 55, 139-185.
Ronnegard, L., Felleki, M., Fikse, F., Mulder, H. A. & Strandberg, E. (2010). Genetic heterogeneity of residual
    variance: estimation of variance components using double hierarchical generalized linear models. GSE 42:8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hlik.augmented import dispersions, random_deviances, response_deviances
from hlik.double import Half, halves
from hlik.errors import ModelError
from hlik.estimators.base import CONVERGED, RUNNING
from hlik.estimators.eql_iteration import EQLState, Solved
from hlik.estimators.starts import check_start, glm_beta, target_dispersions
from hlik.links import LINKS
from hlik.maps import ConstantMap, LinkMap
from hlik.model import HierarchicalModel

if TYPE_CHECKING:
    from hlik.estimators.eql import EQL

LEAST = 1e-10  # 1 - leverage, and deviance as a part of its mean: rounding
INNER_STEPS = 50


@dataclass(frozen=True, eq=False)
class DoubleState:
    """Both halves with their EQL states; `phi` are the dispersions that have predictors, one after the other."""

    settings: EQL
    model: HierarchicalModel
    means: Half
    spread: Half
    phi: np.ndarray
    rng: np.random.Generator
    start: Mapping[str, np.ndarray]
    mean_state: EQLState | None = None
    spread_state: EQLState | None = None
    decrement: float = np.inf
    failure: str | None = None

    def solved(self) -> tuple[Solved, Solved]:
        """What holds in the means and in the dispersions."""
        assert self.mean_state is not None
        assert self.mean_state.solved is not None
        assert self.spread_state is not None
        assert self.spread_state.solved is not None
        return self.mean_state.solved, self.spread_state.solved


def prepare_double(
    settings: EQL, model: HierarchicalModel, start: Mapping[str, np.ndarray], rng: np.random.Generator
) -> DoubleState:
    """Split the model; start from equal dispersions that the deviance without random effects suggests."""
    check_start(model, start)
    free = _free_scales(settings, model)
    means, spread = halves(model, model.double)
    if free:
        spread = _with_free_scales(spread, free)
    plain = replace(means.model, responses=tuple(_known(r, 1.0, means) for r in means.model.responses))
    v = np.zeros(plain.n_random)
    for effect in plain.random_effects:
        v[effect.index] = effect.family.mode  # type: ignore[union-attr]
    phi, lam = target_dispersions(plain, glm_beta(plain, v), v)
    levels = dict(zip([r.name for r in plain.responses], phi, strict=True))
    levels |= dict(zip([e.name for e in plain.random_effects], lam, strict=True))
    values = [np.full(p.rows.stop - p.rows.start, levels[p.name]) for p in model.double.predictors]
    return DoubleState(settings, model, means, spread, np.concatenate(values), rng, start)


def _free_scales(settings: EQL, model: HierarchicalModel) -> list[str]:
    """The dispersion responses that get a scale of their own."""
    names = [f"{p.name}_dispersion" for p in model.double.predictors]
    if settings.dispersion == "model":
        return []
    if isinstance(settings.dispersion, Mapping) and set(settings.dispersion) <= set(names):
        if all(isinstance(v, str) and v in ("model", "estimate") for v in settings.dispersion.values()):
            return [name for name in names if settings.dispersion.get(name) == "estimate"]
    raise ModelError(
        f"EQL(dispersion={settings.dispersion!r}): for a model with random effects in its dispersions it must be "
        f"'model' or a mapping of {names} to 'model' or 'estimate'."
    )


def _with_free_scales(spread: Half, names: list[str]) -> Half:
    """The dispersions' half with one more element of theta, log of the scale, for each name."""
    inner, total = spread.model.n_theta, spread.model.n_theta + len(names)
    from hlik.estimators.quasi_dispersion import PaddedMap

    responses = []
    for r in spread.model.responses:
        assert r.dispersion is not None
        row = np.zeros((1, total))
        if r.name in names:
            row[0, inner + names.index(r.name)] = 1.0
        responses.append(replace(r, dispersion=LinkMap(row, np.zeros(1), LINKS["log"])))
    effects = tuple(
        replace(e, dispersion=PaddedMap(e.dispersion, inner, total))  # type: ignore[arg-type]
        for e in spread.model.random_effects
    )
    parameters = tuple(
        p if p.natural is None else replace(p, natural=PaddedMap(p.natural, inner, total))
        for p in spread.model.parameters
    )
    model = replace(
        spread.model, responses=tuple(responses), random_effects=effects, parameters=parameters, n_theta=total
    )
    return replace(spread, model=model)


def step_double(state: DoubleState) -> tuple[DoubleState, dict[str, float]]:
    """Fit the means for the dispersions at hand, then the dispersions for these means."""
    mean_state, failure = _fitted(state, state.means, _means_model(state), state.mean_state)
    if mean_state is None or mean_state.solved is None:
        return replace(state, failure=failure), {"step": np.inf, "inner_iterations": 0.0}
    state = replace(state, mean_state=mean_state)
    model, weight = _spread_model(state)
    spread_state, second = _fitted(state, state.spread, model, state.spread_state)
    if spread_state is None or spread_state.solved is None:
        return replace(state, failure=second), {"step": np.inf, "inner_iterations": 0.0}
    point = spread_state.solved.mean.point
    before = np.concatenate([p.link.link(state.phi[_local(state, p)]) for p in state.model.double.predictors])
    phi = np.maximum(point.mu, 1e-300)
    decrement = float(np.sqrt(np.sum(weight * (point.eta - before) ** 2)))
    new = replace(state, spread_state=spread_state, phi=phi, decrement=decrement, failure=failure or second)
    return new, {"step": decrement, "objective": mean_state.solved.mean.point.objective}


def _fitted(
    state: DoubleState, half: Half, model: HierarchicalModel, last: EQLState | None
) -> tuple[EQLState | None, str | None]:
    """EQL of one half to its fixed point, from where the last one ended; a sentence where that fails."""
    settings = replace(state.settings, dispersion="model")
    try:
        if last is None:
            names = {p.name for p in model.parameters} | {e.name for e in model.random_effects}
            own = {name: value for name, value in state.start.items() if name in names}
            current = settings.prepare(model, own, state.rng)
        else:
            current = _warm(last, model)
        status = RUNNING
        for _ in range(INNER_STEPS):
            current, _ = settings.step(current)
            status = settings.status(current)
            if status != RUNNING:
                break
    except ModelError as error:
        return last, str(error).rstrip(".")
    stopped = status != CONVERGED and not status.startswith("boundary")
    return current, (status.removeprefix("stopped: ") if stopped and status != RUNNING else None)


def _warm(last: EQLState, model: HierarchicalModel) -> EQLState:
    """The last state with new numbers in the same design."""
    augmented = last.augmented.with_model(model)
    assert last.solved is not None
    point, spread = last.solved.mean.point, dispersions(model, last.theta)
    moved = augmented.at(point.beta, point.v, spread)
    if moved is None:
        raise ModelError("the dispersions have left the range in which the means can be solved")
    return replace(last, augmented=augmented, spread=spread, point=moved, solved=None, decrement=1.0)


def _local(state: DoubleState, predictor: Any) -> slice:
    start = state.model.double.n_means
    return slice(predictor.rows.start - start, predictor.rows.stop - start)


def _known(item: Any, value: Any, half: Half) -> Any:
    """A response without dispersion yet, or a random effect, with a known one."""
    if item.dispersion is None or isinstance(item.dispersion, ConstantMap):
        has = getattr(item.family, "has_dispersion", True)
        return replace(item, dispersion=ConstantMap(np.atleast_1d(value), half.model.n_theta)) if has else item
    return item


def _means_model(state: DoubleState) -> HierarchicalModel:
    values = {p.name: state.phi[_local(state, p)] for p in state.model.double.predictors}

    def given(item: Any) -> Any:
        return replace(item, dispersion=ConstantMap(values[item.name], state.means.model.n_theta))

    half = state.means.model
    return replace(
        half,
        responses=tuple(given(r) if r.name in values else r for r in half.responses),
        random_effects=tuple(given(e) if e.name in values else e for e in half.random_effects),
    )


def _spread_model(state: DoubleState) -> tuple[HierarchicalModel, np.ndarray]:
    """The dispersions' half with the deviances of the means as responses, and its weights."""
    assert state.mean_state is not None
    assert state.mean_state.solved is not None
    solved, half = state.mean_state.solved, state.mean_state.augmented.model
    point, found = solved.mean.point, solved.found
    deviance = {"response": response_deviances(half, point.mu), "term": random_deviances(half, point.v, solved.spread)}
    leverage = {"response": found.leverage, "term": found.random_leverage}
    places = {r.name: ("response", r.rows) for r in half.responses}
    places |= {e.name: ("term", e.index) for e in half.random_effects}
    responses, weights = [], []
    for predictor, response in zip(state.model.double.predictors, state.spread.model.responses, strict=True):
        kind, rows = places[predictor.name]
        d, free = deviance[kind][rows], np.maximum(1.0 - leverage[kind][rows], LEAST)
        y = d / free
        responses.append(replace(response, y=np.maximum(y, LEAST * y.mean()), weight=free / 2))
        weights.append(free / 2)
    return replace(state.spread.model, responses=tuple(responses)), np.concatenate(weights)


def position_double(state: DoubleState) -> tuple[np.ndarray, np.ndarray]:
    """(beta, theta) of the whole model."""
    beta, _, theta = assembled(state)
    return beta, theta


def assembled(state: DoubleState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(beta, v, theta) of the whole model from those of its halves."""
    beta, v, theta = (np.zeros(k) for k in (state.model.n_beta, state.model.n_random, state.model.n_theta))
    for half, solved in zip((state.means, state.spread), state.solved(), strict=True):
        beta[half.beta], v[half.v] = solved.mean.point.beta, solved.mean.point.v
        theta[half.theta] = solved.theta[: half.theta.size]
    return beta, v, theta


def status_double(state: DoubleState) -> str:
    """`RUNNING`, `CONVERGED`, or why it stopped."""
    if state.failure is not None:
        return f"stopped: {state.failure}"
    if state.decrement >= max(state.settings.tol, 1e-7):
        return RUNNING
    assert state.mean_state is not None
    assert state.spread_state is not None
    sentences = [state.settings.status(s) for s in (state.mean_state, state.spread_state)]
    return next((s for s in sentences if s not in (CONVERGED, RUNNING)), CONVERGED)
