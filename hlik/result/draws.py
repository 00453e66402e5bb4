"""Draws of every named variable on its natural scale: of the normal approximation, or an estimator's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped
from hlik.maps import ThetaMap
from hlik.model import RandomEffect, Variable
from hlik.result.report import Reporter
from hlik.result.scales import by_name, is_wider, transformed
from hlik.result.wide_effects import in_scores

DRAWN_AT_ONCE = 20_000_000  # numbers: 160 MB


class Drawer:
    """Draws from what a `Reporter` knows of one estimate."""

    def __init__(self, reporter: Reporter):
        self.reporter = reporter
        self.estimate = reporter.estimate
        self.model = model = reporter.estimate.model
        self._theta = {p.name: p.index for p in model.dispersion_parameters}
        self._effects = {e.name: e for e in model.random_effects}

    def draws(self, size: int, rng: np.random.Generator, largest: int) -> tuple[dict[str, np.ndarray], list[str]]:
        """Draws of the normal approximation, natural scale, shape (size, elements), by name.

        Variables with more than `largest` elements are left out; the second result names them. Blocks of draws keep
        the memory of what is drawn only to be left out below `DRAWN_AT_ONCE` numbers.
        """
        drawn = max((e.levels for e in self.model.random_effects if e.levels <= largest), default=0)
        block = max(1, min(size, DRAWN_AT_ONCE // max(self.model.n_random, drawn, 1)))
        parts: dict[str, list[np.ndarray]] = {}
        skipped: list[str] = []
        for start in range(0, size, block):
            found, skipped = self._block_of_draws(min(block, size - start), rng, largest)
            for name, values in found.items():
                parts.setdefault(name, []).append(values)
        return {
            name: values[0] if len(values) == 1 else np.concatenate(values) for name, values in parts.items()
        }, skipped

    def _block_of_draws(
        self, size: int, rng: np.random.Generator, largest: int
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        beta, v = (
            self.estimate.information.sample(rng, size) if self._needs_effects(largest) else self._beta_only(size, rng)
        )
        if self.estimate.covariance is None:
            theta = self.estimate.theta + _normal_draws(self.estimate.theta_covariance, size, rng)
        else:
            joint = _normal_draws(self.estimate.covariance, size, rng)
            theta = self.estimate.theta + joint[:, self.model.n_beta :]
            moved = joint[:, : self.model.n_beta] - beta
            beta, v = beta + moved, v - moved @ self.estimate.information.B.T if len(v) > 1 else v
            if self.estimate.v_by_theta is not None and len(v) > 1:
                v = v + joint[:, self.model.n_beta :] @ self.estimate.v_by_theta.T
        v = self.estimate.v + v
        if self.estimate.v_draws is not None and len(v) > 1:  # they move with beta as the mode does
            chosen = self.estimate.v_draws[rng.integers(len(self.estimate.v_draws), size=size)]
            v = chosen - beta @ self.estimate.information.B.T
        x = by_name(self.model, self.estimate.beta + beta, v, theta)
        for name in self._drawn_as_effects(largest):
            effect = self._effects[name]
            assert effect.wide is not None
            lam = np.array([effect.dispersion.value(draw)[0] for draw in theta])  # type: ignore[union-attr]
            x[name] = effect.wide.effects(x[name]) + effect.wide.sample_unseen(lam, rng)
        found, skipped = {}, []
        for variable, draw in self._drawers(x, theta):
            if variable.size > largest:
                skipped.append(variable.name)
            else:
                found[variable.name] = draw()
        return found, skipped

    def effects_at(self, v: np.ndarray) -> dict[str, np.ndarray]:
        """Random effects on their natural scale at draws of v (draws, q), parameters at the estimate, by name."""
        beta, theta = (np.tile(part, (len(v), 1)) for part in (self.estimate.beta, self.estimate.theta))
        x = by_name(self.model, beta, v, theta)
        return {effect.name: self._effect_draws(effect, x, theta) for effect in self.model.random_effects}

    def _needs_effects(self, largest: int) -> bool:
        return any(e.levels <= largest for e in self.model.random_effects) or any(
            d.size <= largest for d in self.model.deterministics
        )

    def _drawn_as_effects(self, largest: int) -> list[str]:
        """The wide terms whose effects, not only scores, are needed in draws of variables of up to `largest`."""
        named = {name: effects.wide for name, effects in self.reporter.wide.items()}
        small = [v.name for v in self.model.deterministics if v.size <= largest]
        needed = {name for name, effects in self.reporter.wide.items() if effects.wide.size <= largest}
        for variable in small:
            form = self.model.forms[variable]
            if isinstance(form, Affine | Mapped) and in_scores(form, named) is None:
                needed |= form.inputs & named.keys()
        return sorted(needed)

    def _drawn_form(self, form: Affine | Mapped, x: dict[str, np.ndarray]) -> Affine | Mapped:
        """The form in terms of what was drawn: scores of those wide terms whose effects were not."""
        scores = {name: e.wide for name, e in self.reporter.wide.items() if x[name].shape[-1] != e.wide.size}
        return in_scores(form, scores) or form  # type: ignore[return-value]

    def _beta_only(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws of beta where no random effect is drawn."""
        beta = _normal_draws(self.estimate.beta_covariance, size, rng)
        return beta, np.zeros((1, self.model.n_random))

    def _drawers(self, x: dict[str, np.ndarray], theta: np.ndarray) -> list[tuple[Variable, Callable[[], np.ndarray]]]:
        drawers: list[tuple[Variable, Callable[[], np.ndarray]]] = []
        for p in self.model.parameters:
            if p.natural is None:
                drawers.append((p.variable, partial(_natural, self.model.forms.get(p.name), p.name, x)))
            else:
                drawers.append((p.variable, partial(_values, p.natural, theta)))
        for e in self.model.random_effects:
            drawers.append((e.variable, partial(self._effect_draws, e, x, theta)))
        for d in self.model.deterministics:
            form = self.model.forms[d.name]
            if isinstance(form, Affine | Mapped):
                drawers.append((d, partial(evaluate_draws, self._drawn_form(form, x), x)))
            elif set(form.inputs) <= set(self._theta):  # type: ignore[union-attr]
                drawers.append((d, partial(self._theta_draws, d, theta)))
        return drawers

    def _effect_draws(self, effect: RandomEffect, x: dict[str, np.ndarray], theta: np.ndarray) -> np.ndarray:
        if effect.location is not None:
            return evaluate_draws(self.model.forms[effect.name], x)  # type: ignore[arg-type]
        if effect.scale_map is not None:
            return x[effect.name] / np.array([effect.scale_map.value(t) for t in theta])
        if effect.root is not None:
            return np.array([effect.root.whitened(v, t) for v, t in zip(x[effect.name], theta, strict=False)])
        return _natural(self.model.forms[effect.name], effect.name, x)

    def _theta_draws(self, variable: Variable, theta: np.ndarray) -> np.ndarray:
        form = self.model.forms[variable.name]
        names = sorted(form.inputs)  # type: ignore[union-attr]
        graph = self.model.graph_maps[variable.name](names)
        return np.array([graph.value(np.concatenate([t[self._theta[name]] for name in names])) for t in theta])


def _natural(form: Form | None, name: str, x: dict[str, np.ndarray]) -> np.ndarray:
    """Draws of a variable from draws of its value variable."""
    return evaluate_draws(form, x) if is_wider(form, x[name]) else transformed(form, x[name])[0]  # type: ignore[arg-type]


def _values(found: ThetaMap, theta: np.ndarray) -> np.ndarray:
    """A map at many draws of theta, shape (draws, m)."""
    return np.array([found.value(draw) for draw in theta])


def evaluate_draws(form: Affine | Mapped, x: dict[str, np.ndarray]) -> np.ndarray:
    """A form at draws of its variables, shape (draws, elements)."""
    affine = form if isinstance(form, Affine) else form.affine
    total = affine.offset.ravel()[None, :]
    for name, rows in affine.rows.items():
        matrix = lin.to_dense(rows) if isinstance(rows, lin.Dense | lin.Wide) else lin.to_csr(rows)
        total = total + (matrix @ x[name].T).T
    return total if isinstance(form, Affine) else form.function(total)


def _normal_draws(covariance: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws from N(0, covariance), shape (size, k); elements without covariance stay at zero."""
    k = covariance.shape[0]
    draws = np.zeros((size, k))
    known = np.isfinite(np.diag(covariance))
    if known.any():
        part = covariance[np.ix_(known, known)]
        values, vectors = np.linalg.eigh(part)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws[:, known] = rng.standard_normal((size, int(known.sum()))) @ root.T
    return draws
