"""Estimates and standard errors of every named variable, on its natural and its unconstrained scale.

Everything is a smooth function of x = (beta, v, theta), whose uncertainty an `Estimate` holds. Standard errors follow
by the delta method, exact derivatives (`hlik.result.standard_errors`); a random effect or Deterministic that is affine
in (beta, v) uses the joint covariance of both. Draws: `hlik.result.draws`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hlik.block_effects import BlockRoot
from hlik.delta_method import delta_variance
from hlik.estimators.base import Estimate
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Mapped, Opaque
from hlik.maps import ThetaMap
from hlik.model import RandomEffect, Unobserved, Variable
from hlik.result.scales import derivative, is_wider, transformed
from hlik.result.standard_errors import StandardErrors

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
        self.errors = StandardErrors(estimate)
        self.wide, self.x = self.errors.wide, self.errors.x
        self._beta = {p.name: p.index for p in self.model.fixed_effects}

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
        values = [self.errors.value_variable(name) for name in missing.inputs]
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
                return Reported(variable, *self.errors.of_affine(form), own, own_error)  # type: ignore[arg-type]
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
            np.sqrt(delta_variance(jacobian, covariance)),
            theta[parameter.index],
            error,
        )

    def _random_effect(self, effect: RandomEffect) -> Reported:
        if effect.location is not None:
            form = self.model.forms[effect.name]
            assert isinstance(form, Affine)
            value, error = self.errors.of_affine(form)
            return Reported(effect.variable, value, error, value, error)
        v, v_se = self.estimate.v[effect.index], self.estimate.v_se[effect.index]
        if effect.wide is not None:
            v, v_se = self.wide[effect.name].values, self.wide[effect.name].standard_error
        if effect.scale_map is not None:
            return self._scaled(effect, effect.scale_map, v, v_se)
        if effect.root is not None:
            return self._rotated(effect, effect.root, v)
        form = self.model.forms[effect.name]
        if is_wider(form, v):
            return Reported(effect.variable, *self.errors.of_affine(form), v, v_se)  # type: ignore[arg-type]
        value, slope = transformed(form, v)
        return Reported(effect.variable, value, v_se * np.abs(slope), v, v_se)

    def _scaled(self, effect: RandomEffect, scale_map: ThetaMap, v: np.ndarray, v_se: np.ndarray) -> Reported:
        """A non-centred effect z = v / scale."""
        if effect.wide is not None:
            z, error = self.wide[effect.name].non_centred()
            return Reported(effect.variable, z, error, z, error)
        scale = np.broadcast_to(scale_map.value(self.estimate.theta), v.shape)
        error = v_se / scale
        if self.estimate.v_by_theta is not None:  # the scale moves with theta too
            error = self.errors.of_rows(*self.errors.value_columns(effect.name))
        return Reported(effect.variable, v / scale, error, v / scale, error)

    def _rotated(self, effect: RandomEffect, root: BlockRoot, v: np.ndarray) -> Reported:
        """Non-centred effects z with v = L z in every block."""
        z = root.whitened(v, self.estimate.theta)
        TX, TZ, T_theta = self.errors.value_columns(effect.name)
        moves = self.estimate.v_by_theta is not None  # then the root moves with theta too
        error = self.errors.of_rows(TX, TZ, T_theta if moves else np.zeros_like(T_theta))
        return Reported(effect.variable, z, error, z, error)

    def _deterministic(self, variable: Variable) -> Reported | None:
        form = self.model.forms[variable.name]
        if isinstance(form, Opaque):
            return self._graph(variable, form)
        affine = form if isinstance(form, Affine) else form.affine  # type: ignore[union-attr]
        eta, error = self.errors.of_affine(affine)
        if isinstance(form, Affine):
            return Reported(variable, eta, error)
        assert isinstance(form, Mapped)
        value, slope = form.function(eta), derivative(form, eta)
        return Reported(variable, value, error * np.abs(slope))

    def _graph(self, variable: Variable, form: Opaque) -> Reported | None:
        """Value and delta-method error by PyTensor's derivatives; None where a Jacobian would be too large."""
        build = self.model.graph_maps.get(variable.name)
        names = sorted(form.inputs)
        size = sum(self.x[name].size for name in names if name in self.x)
        if build is None or not all(name in self.x for name in names) or variable.size * size > MAX_GRAPH_SIZE**2:
            return None
        values = np.concatenate([self.errors.value_variable(name) for name in names])
        graph = build(names)
        jacobian = graph.jacobian(values)
        TX, TZ, T_theta = self.errors.columns(Affine({}, np.zeros(variable.size)))
        start, unseen = 0, np.zeros(variable.size)
        for name in names:
            stop = start + self.x[name].size
            part = jacobian[:, start:stop]
            if name in self.wide:
                unseen += self.wide[name].unseen_variance(lin.Sparse(sp.csr_array(part * self.errors.slope(name))))
            inner_X, inner_Z, inner_theta = self.errors.value_columns(name)
            TX, T_theta = TX + part @ inner_X, T_theta + part @ inner_theta
            TZ = sp.csr_array(TZ + sp.csr_array(part @ inner_Z))
            start = stop
        return Reported(variable, graph.value(values), np.sqrt(self.errors.of_rows(TX, TZ, T_theta) ** 2 + unseen))


def _deviations(covariance: np.ndarray) -> np.ndarray:
    """Square roots of its diagonal; NaN where that is negative, as at a boundary."""
    variance = np.diag(covariance)
    return np.sqrt(np.where(variance >= 0, variance, np.nan))
