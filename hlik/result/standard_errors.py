"""Standard errors of functions of x = (beta, v, theta) by the delta method, from one `Estimate`.

Rows on x are ``T = [TX TZ T_theta]``; their standard errors are the roots of ``diag(T cov T')``. The uncertainty is the
joint one (`hlik.estimators.joint_errors`), or (beta, v) with precision H and theta with its own covariance, independent
of each other as in the h-likelihood theory.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from hlik.delta_method import delta_variance
from hlik.estimators.base import Estimate
from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.forms import Affine
from hlik.result.scales import by_name
from hlik.result.wide_effects import WideEffects, score_block

ROWS_AT_ONCE = 5_000_000  # numbers: 40 MB


class StandardErrors:
    """Values, Jacobians and standard errors of affine forms and of value variables.

    Attributes
    ----------
    estimate
        Where the uncertainty comes from.
    x
        Values of the parameters and v at the estimate, by name.
    wide
        Effects of wide terms, by name.
    """

    def __init__(self, estimate: Estimate):
        self.estimate = estimate
        self.model = estimate.model
        self._beta = {p.name: p.index for p in self.model.fixed_effects}
        self._theta = {p.name: p.index for p in self.model.dispersion_parameters}
        self._v = {e.name: e.index for e in self.model.random_effects}
        self._effects = {e.name: e for e in self.model.random_effects}
        self.wide = {e.name: WideEffects(estimate, e) for e in self.model.random_effects if e.wide is not None}
        self.x = by_name(self.model, estimate.beta, estimate.v, estimate.theta)
        self.x |= {name: effects.values for name, effects in self.wide.items()}

    def of_affine(self, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
        """Value and standard error of an affine form, flattened."""
        value = fm.evaluate(affine, self.x).ravel()
        if self.wide.keys() & affine.rows.keys():
            return value, self._wide_error(affine)
        TX, TZ, T_theta = self.columns(affine)
        return value, self.of_rows(TX, TZ, T_theta)

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
            error[part] = np.sqrt(self.of_rows(*self.columns(some)) ** 2 + unseen)
        return error

    def of_rows(self, TX: np.ndarray, TZ: sp.csr_array, T_theta: np.ndarray) -> np.ndarray:
        """``sqrt diag(T cov T')`` for rows T = [TX TZ T_theta]."""
        if self.estimate.covariance is not None:
            return self._joint_error(TX, TZ, T_theta, self.estimate.covariance)
        variance = np.zeros(TX.shape[0])
        if np.any(TX) or TZ.nnz:
            variance += self.estimate.information.quadratic(TX, TZ)
        if np.any(T_theta):
            variance += delta_variance(T_theta, self.estimate.theta_covariance)
        return np.sqrt(variance)

    def _joint_error(self, TX: np.ndarray, TZ: sp.csr_array, T_theta: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """The same where beta and theta are correlated: ``v = v(beta) + e``, ``dv/dbeta = -B``, var e = C^-1."""
        information = self.estimate.information
        direct = TX - TZ @ information.B if TZ.nnz else TX
        if TZ.nnz and self.estimate.v_by_theta is not None:
            T_theta = T_theta + TZ @ self.estimate.v_by_theta
        variance = delta_variance(np.hstack([direct, T_theta]), covariance)
        return np.sqrt(variance + information.factor_z.quadratic(TZ)) if TZ.nnz else np.sqrt(variance)

    def columns(self, affine: Affine) -> tuple[np.ndarray, sp.csr_array, np.ndarray]:
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

    def value_variable(self, name: str) -> np.ndarray:
        """The PyMC value variable, flattened, where its form or v differs from it."""
        effect = self._effects.get(name)
        if effect is not None and effect.scale_map is not None:
            return np.ravel(self.x[name]) / effect.scale_map.value(self.estimate.theta)
        if effect is not None and effect.root is not None:
            return effect.root.whitened(np.ravel(self.x[name]), self.estimate.theta)
        if effect is not None and effect.location is not None:
            return fm.evaluate(self.model.forms[name], self.x).ravel()  # type: ignore[arg-type]
        return np.ravel(self.x[name])

    def slope(self, name: str) -> np.ndarray:
        """How the value variable of an effect moves with v: 1, or 1/scale where it is not centred."""
        effect = self._effects[name]
        return np.ones(1) if effect.scale_map is None else 1.0 / effect.scale_map.value(self.estimate.theta)

    def value_columns(self, name: str) -> tuple[np.ndarray, sp.csr_array, np.ndarray]:
        """Jacobian of the value variable with respect to (beta, v, theta)."""
        effect = self._effects.get(name)
        if effect is not None and effect.location is not None:
            return self.columns(self.model.forms[name])  # type: ignore[arg-type]
        TX, TZ, T_theta = self.columns(fm.variable(name, (self.x[name].size,)))
        if effect is not None and effect.root is not None:
            place = sp.csr_array(effect.root.inverse(self.estimate.theta))
            T_theta = T_theta + effect.root.slopes(self.value_variable(name), self.estimate.theta)
            return TX, sp.csr_array(place @ TZ), T_theta
        if effect is not None and effect.scale_map is not None:
            scale = np.broadcast_to(effect.scale_map.value(self.estimate.theta), (effect.levels,))
            slope = effect.scale_map.jacobian(self.estimate.theta) / scale[:1, None]
            z = np.ravel(self.x[name]) / scale
            TZ = sp.csr_array(sp.diags_array(1.0 / scale) @ TZ)
            T_theta = T_theta - z[:, None] * slope
        return TX, TZ, T_theta
