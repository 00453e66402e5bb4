"""Estimates and standard errors of every named variable, on its natural and its unconstrained scale.

Everything is a smooth function of x = (beta, v, theta), whose uncertainty an `Estimate` holds: the joint one
(`hlik.estimators.joint_errors`), or (beta, v) with precision H and theta with its own covariance, independent of each
other as in the h-likelihood theory. Standard errors follow by the delta method, exact derivatives; a random effect or
Deterministic that is affine in (beta, v) uses the joint covariance of both. Draws: `hlik.report_draws`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hlik.delta_method import delta_variance
from hlik.estimators.base import Estimate
from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped, Opaque
from hlik.links import identify_inverse
from hlik.model import RandomEffect, Unobserved, Variable
from hlik.report_wide import WideEffects, score_block

ROWS_AT_ONCE = 5_000_000  # numbers: 40 MB
MAX_GRAPH_SIZE = 2000  # elements of a Deterministic without closed form whose Jacobian is still formed


@dataclass(frozen=True, eq=False)
class Reported:
    """One variable: estimate and standard error on both scales, flattened."""

    variable: Variable
    estimate: np.ndarray
    standard_error: np.ndarray
    unconstrained: np.ndarray | None = None
    unconstrained_error: np.ndarray | None = None


class Reporter:
    """Estimates and standard errors from one `Estimate`."""

    def __init__(self, estimate: Estimate):
        self.estimate = estimate
        self.model = estimate.model
        self._beta = {p.name: p.index for p in self.model.fixed_effects}
        self._theta = {p.name: p.index for p in self.model.dispersion_parameters}
        self._v = {e.name: e.index for e in self.model.random_effects}
        self._effects = {e.name: e for e in self.model.random_effects}
        self.wide = {e.name: WideEffects(estimate, e) for e in self.model.random_effects if e.wide is not None}
        self.x = self.split(estimate.beta, estimate.v, estimate.theta)
        self.x |= {name: effects.values for name, effects in self.wide.items()}

    def split(self, beta: np.ndarray, v: np.ndarray, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Values by name; arrays may have draws in front: (..., size)."""
        parts = {name: beta[..., index] for name, index in self._beta.items()}
        parts |= {name: theta[..., index] for name, index in self._theta.items()}
        return parts | {name: v[..., index] for name, index in self._v.items()}

    # ------------------------------------------------------------ estimates

    def parameters(self) -> list[Reported]:
        """Every parameter."""
        return [self._parameter(p.name, p.variable) for p in self.model.parameters]

    def all(self) -> list[Reported]:
        """Every parameter, random effect and Deterministic."""
        reported = self.parameters()
        reported += [self._random_effect(effect) for effect in self.model.random_effects]
        reported += [found for v in self.model.deterministics if (found := self._deterministic(v)) is not None]
        reported += [found for missing in self.model.unobserved if (found := self._unobserved(missing)) is not None]
        return reported

    def _unobserved(self, missing: Unobserved) -> Reported | None:
        """Mean of missing values and standard deviation of their prediction; None where the mean is not known."""
        if missing.variable.name not in self.model.forms:
            return None
        mean = self._deterministic(missing.variable)
        if mean is None:
            return None
        return Reported(missing.variable, mean.estimate, np.sqrt(mean.standard_error**2 + self.own_variance(missing)))

    def own_variance(self, missing: Unobserved) -> np.ndarray:
        """The variance of missing values given the parameters and effects; NaN where it is not known."""
        if missing.variance is None:
            return np.full(missing.variable.size, np.nan)
        values = [self._value_variable(name) for name in missing.inputs]
        found = missing.variance(missing.inputs).value(np.concatenate(values) if values else np.zeros(0))
        response = next(r for r in self.model.responses if r.name == f"{missing.response}_observed")
        if response.family is not None and not response.family.has_dispersion and response.dispersion is not None:
            found = found * response.dispersion.value(self.estimate.theta)[0]  # a quasi-dispersion
        return np.broadcast_to(found, (missing.variable.size,))

    def _parameter(self, name: str, variable: Variable) -> Reported:
        if name in self._beta:
            index = self._beta[name]
            own = self.estimate.beta[index]
            own_error = _deviations(self.estimate.beta_covariance)[index]
            form = self.model.forms.get(name)
            if is_wider(form, own):
                return Reported(variable, *self._affine(form), own, own_error)  # type: ignore[arg-type]
            value, slope = transformed(form, own)
            return Reported(variable, value, own_error * np.abs(slope), own, own_error)
        parameter = next(p for p in self.model.dispersion_parameters if p.name == name)
        assert parameter.natural is not None
        theta, covariance = self.estimate.theta, self.estimate.theta_covariance
        jacobian = parameter.natural.jacobian(theta)
        error = _deviations(covariance)[parameter.index]
        return Reported(
            variable,
            parameter.natural.value(theta),
            _spread(jacobian, covariance),
            theta[parameter.index],
            error,
        )

    def _random_effect(self, effect: RandomEffect) -> Reported:
        if effect.location is not None:
            form = self.model.forms[effect.name]
            assert isinstance(form, Affine)
            value, error = self._affine(form)
            return Reported(effect.variable, value, error, value, error)
        v, v_se = self.estimate.v[effect.index], self.estimate.v_se[effect.index]
        if effect.wide is not None:
            v, v_se = self.wide[effect.name].values, self.wide[effect.name].standard_error
        if effect.scale_map is not None:
            if effect.wide is not None:
                z, error = self.wide[effect.name].non_centred()
                return Reported(effect.variable, z, error, z, error)
            scale = np.broadcast_to(effect.scale_map.value(self.estimate.theta), v.shape)
            error = v_se / scale
            if self.estimate.v_by_theta is not None:  # the scale moves with theta too
                error = self._error(*self._value_columns(effect.name))
            return Reported(effect.variable, v / scale, error, v / scale, error)
        if effect.root is not None:
            z = effect.root.whitened(v, self.estimate.theta)
            TX, TZ, T_theta = self._value_columns(effect.name)
            moves = self.estimate.v_by_theta is not None  # then the root moves with theta too
            error = self._error(TX, TZ, T_theta if moves else np.zeros_like(T_theta))
            return Reported(effect.variable, z, error, z, error)
        form = self.model.forms[effect.name]
        if is_wider(form, v):
            return Reported(effect.variable, *self._affine(form), v, v_se)  # type: ignore[arg-type]
        value, slope = transformed(form, v)
        return Reported(effect.variable, value, v_se * np.abs(slope), v, v_se)

    def _deterministic(self, variable: Variable) -> Reported | None:
        form = self.model.forms[variable.name]
        if isinstance(form, Opaque):
            return self._graph(variable, form)
        affine = form if isinstance(form, Affine) else form.affine  # type: ignore[union-attr]
        eta, error = self._affine(affine)
        if isinstance(form, Affine):
            return Reported(variable, eta, error)
        assert isinstance(form, Mapped)
        value, slope = form.function(eta), derivative(form, eta)
        return Reported(variable, value, error * np.abs(slope))

    def _affine(self, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
        """Value and standard error of an affine form, flattened."""
        value = fm.evaluate(affine, self.x).ravel()
        if self.wide.keys() & affine.rows.keys():
            return value, self._wide_error(affine)
        TX, TZ, T_theta = self._columns(affine)
        return value, self._error(TX, TZ, T_theta)

    def _wide_error(self, affine: Affine) -> np.ndarray:
        """Standard error of an affine form with effects of wide terms, some rows at a time."""
        name, rows = next(iter(affine.rows.items()))
        if len(affine.rows) == 1 and isinstance(rows, lin.Gather):
            return self.wide[name].error_of(rows)
        step = max(1, ROWS_AT_ONCE // max(self.wide[n].wide.n_rows for n in self.wide.keys() & affine.rows.keys()))
        error = np.empty(affine.offset.size)
        for start in range(0, error.size, step):
            part = np.arange(start, min(start + step, error.size))
            some = affine if part.size == error.size else fm.gathered(affine, part)
            unseen = sum(self.wide[n].unseen_variance(r) for n, r in some.rows.items() if n in self.wide)
            error[part] = np.sqrt(self._error(*self._columns(some)) ** 2 + unseen)
        return error

    def _error(self, TX: np.ndarray, TZ: sp.csr_array, T_theta: np.ndarray) -> np.ndarray:
        """``sqrt diag(T cov T')`` for rows T = [TX TZ T_theta]."""
        if self.estimate.covariance is not None:
            return self._joint_error(TX, TZ, T_theta, self.estimate.covariance)
        variance = np.zeros(TX.shape[0])
        if np.any(TX) or TZ.nnz:
            variance += self.estimate.information.quadratic(TX, TZ)
        if np.any(T_theta):
            variance += _spread(T_theta, self.estimate.theta_covariance) ** 2
        return np.sqrt(variance)

    def _joint_error(self, TX: np.ndarray, TZ: sp.csr_array, T_theta: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """The same where beta and theta are correlated: ``v = v(beta) + e``, ``dv/dbeta = -B``, var e = C^-1."""
        information = self.estimate.information
        direct = TX - TZ @ information.B if TZ.nnz else TX
        if TZ.nnz and self.estimate.v_by_theta is not None:
            T_theta = T_theta + TZ @ self.estimate.v_by_theta
        variance = _spread(np.hstack([direct, T_theta]), covariance) ** 2
        return np.sqrt(variance + information.factor_z.quadratic(TZ)) if TZ.nnz else np.sqrt(variance)

    def _columns(self, affine: Affine) -> tuple[np.ndarray, sp.csr_array, np.ndarray]:
        """Jacobian of an affine form with respect to beta, v and theta."""
        m = affine.offset.size
        TX, T_theta = np.zeros((m, self.model.n_beta)), np.zeros((m, self.model.n_theta))
        blocks = [sp.csr_array((m, self.model.n_random))]
        for name, rows in affine.rows.items():
            if name in self._beta:
                TX[:, self._beta[name]] = lin.to_dense(rows)
            elif name in self._theta:
                T_theta[:, self._theta[name]] = lin.to_dense(rows)
            elif name in self.wide:
                blocks.append(score_block(self.wide[name].rows_on_scores(rows), self._v[name], self.model.n_random))
            else:
                block = sp.coo_array(lin.to_csr(rows))
                row, column = block.coords
                placed = (block.data, (row, column + self._v[name].start))
                blocks.append(sp.csr_array(sp.coo_array(placed, shape=(m, self.model.n_random))))
        TZ = blocks[0]
        for extra in blocks[1:]:
            TZ = sp.csr_array(TZ + extra)
        return TX, TZ, T_theta

    # ------------------------------------------------------------ graphs without closed form

    def _graph(self, variable: Variable, form: Opaque) -> Reported | None:
        """Value and delta-method error by PyTensor's derivatives; None where a Jacobian would be too large."""
        build = self.model.graph_maps.get(variable.name)
        names = sorted(form.inputs)
        size = sum(self.x[name].size for name in names if name in self.x)
        if build is None or not all(name in self.x for name in names) or variable.size * size > MAX_GRAPH_SIZE**2:
            return None
        values = np.concatenate([self._value_variable(name) for name in names])
        graph = build(names)
        jacobian = graph.jacobian(values)
        TX, TZ, T_theta = self._columns(Affine({}, np.zeros(variable.size)))
        start, unseen = 0, np.zeros(variable.size)
        for name in names:
            stop = start + self.x[name].size
            part = jacobian[:, start:stop]
            if name in self.wide:
                unseen += self.wide[name].unseen_variance(lin.Sparse(sp.csr_array(part * self._slope(name))))
            inner_X, inner_Z, inner_theta = self._value_columns(name)
            TX, T_theta = TX + part @ inner_X, T_theta + part @ inner_theta
            TZ = sp.csr_array(TZ + sp.csr_array(part @ inner_Z))
            start = stop
        return Reported(variable, graph.value(values), np.sqrt(self._error(TX, TZ, T_theta) ** 2 + unseen))

    def _value_variable(self, name: str) -> np.ndarray:
        """The PyMC value variable, flattened, where its form or v differs from it."""
        effect = self._effects.get(name)
        if effect is not None and effect.scale_map is not None:
            return np.ravel(self.x[name]) / effect.scale_map.value(self.estimate.theta)
        if effect is not None and effect.root is not None:
            return effect.root.whitened(np.ravel(self.x[name]), self.estimate.theta)
        if effect is not None and effect.location is not None:
            return fm.evaluate(self.model.forms[name], self.x).ravel()  # type: ignore[arg-type]
        return np.ravel(self.x[name])

    def _slope(self, name: str) -> np.ndarray:
        """How the value variable of an effect moves with v: 1, or 1/scale where it is not centred."""
        effect = self._effects[name]
        return np.ones(1) if effect.scale_map is None else 1.0 / effect.scale_map.value(self.estimate.theta)

    def _value_columns(self, name: str) -> tuple[np.ndarray, sp.csr_array, np.ndarray]:
        """Jacobian of the value variable with respect to (beta, v, theta)."""
        effect = self._effects.get(name)
        if effect is not None and effect.location is not None:
            return self._columns(self.model.forms[name])  # type: ignore[arg-type]
        TX, TZ, T_theta = self._columns(fm.variable(name, (self.x[name].size,)))
        if effect is not None and effect.root is not None:
            place = sp.csr_array(effect.root.inverse(self.estimate.theta))
            T_theta = T_theta + effect.root.slopes(self._value_variable(name), self.estimate.theta)
            return TX, sp.csr_array(place @ TZ), T_theta
        if effect is not None and effect.scale_map is not None:
            scale = np.broadcast_to(effect.scale_map.value(self.estimate.theta), (effect.levels,))
            slope = effect.scale_map.jacobian(self.estimate.theta) / scale[:1, None]
            z = np.ravel(self.x[name]) / scale
            TZ = sp.csr_array(sp.diags_array(1.0 / scale) @ TZ)
            T_theta = T_theta - z[:, None] * slope
        return TX, TZ, T_theta


def transformed(form: Form | None, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Natural values and their slopes for values of a value variable; the identity for a form without function."""
    if not isinstance(form, Mapped):
        return own, np.ones_like(own)
    weights = next(iter(form.affine.rows.values()))
    slope_in = weights.weight if isinstance(weights, lin.Gather) else np.array(1.0)
    eta = slope_in * own + form.affine.offset.ravel()
    return form.function(eta), derivative(form, eta) * slope_in


def is_wider(form: Form | None, own: np.ndarray) -> bool:
    """Whether a variable has more elements than its value variable, as one that sums to zero."""
    return isinstance(form, Affine) and form.offset.size > own.shape[-1]


def derivative(form: Mapped, eta: np.ndarray) -> np.ndarray:
    """f'(eta): closed form for known links, else fourth-order central differences (error about 1e-11)."""
    if form.is_exp:
        return np.exp(eta)
    link = identify_inverse(form.function)
    if link is not None:
        return link.inverse_derivatives(eta, 1)[1]
    step = 1e-3 * np.maximum(1.0, np.abs(eta))
    f = form.function
    return (8 * (f(eta + step) - f(eta - step)) - (f(eta + 2 * step) - f(eta - 2 * step))) / (12 * step)


def _deviations(covariance: np.ndarray) -> np.ndarray:
    """Square roots of its diagonal; NaN where that is negative, as at a boundary."""
    variance = np.diag(covariance)
    return np.sqrt(np.where(variance >= 0, variance, np.nan))


def _spread(jacobian: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """``sqrt diag(J cov J')``."""
    return np.sqrt(delta_variance(jacobian, covariance))
