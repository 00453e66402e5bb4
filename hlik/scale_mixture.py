r"""Multivariate t effects as normal effects with a random scale.

.. math:: t_\nu(0, S) = \int N(0, S / w)\, \mathrm{Gamma}(w; \nu/2, \nu/2)\, dw

(Lange, Little & Taylor 1989). Given w the effects are normal with precision ``w Q``, which has the zeros of Q: what
only the common scale links falls apart into blocks. `ScaleMixture` has the model given w, and the density of w.

References
----------
Lange, K. L., Little, R. J. A. & Taylor, J. M. G. (1989). Robust statistical modeling using the t distribution. JASA 84,
881-896.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy import special
from scipy.sparse.csgraph import connected_components

from hlik.block_effects import InverseMap
from hlik.hlikelihood import HLikelihood
from hlik.linalg import lower_pattern
from hlik.maps import ThetaMap
from hlik.model import HierarchicalModel, RandomEffect
from hlik.precision import Precision, matrix_precision

LARGEST_BLOCK = 3  # effects of a density that quadrature takes without the mixture
SERIES = 1e4  # shapes above which Stirling's series replaces a difference of large numbers
TRIALS = 3  # values of theta at which zeros of a scale matrix are looked for


def mixed_effects(model: HierarchicalModel) -> tuple[RandomEffect, ...]:
    """Effects with one multivariate t density over all of them, or densities of more effects than quadrature takes."""
    found = []
    for effect in model.random_effects:
        if effect.degrees is not None and effect.precision is not None:
            count, size = effect.degrees.blocks.shape
            if count == 1 or size > LARGEST_BLOCK:
                found.append(effect)
    return tuple(found)


def mixing_variables(model: HierarchicalModel) -> int:
    """Number of densities that are mixed: the dimension of the integral over w."""
    return sum(len(effect.degrees.blocks) for effect in mixed_effects(model) if effect.degrees is not None)


def log_scale_density(w: np.ndarray, degrees: float) -> np.ndarray:
    """Log density of log w, w of the gamma distribution of shape and rate ``degrees / 2``."""
    a = 0.5 * degrees
    if a > SERIES:
        peak = 0.5 * float(np.log(a / (2 * np.pi))) - 1.0 / (12.0 * a)
    else:
        peak = float(a * np.log(a) - a - special.gammaln(a))
    return a * (np.log(w) - (w - 1.0)) + peak


def log_scale_slope(w: np.ndarray, degrees: float) -> np.ndarray:
    """Derivative of `log_scale_density` by the degrees of freedom."""
    a = 0.5 * degrees
    by_peak = 0.5 / a + 1.0 / (12.0 * a**2) if a > SERIES else np.log(a) - special.digamma(a)
    return 0.5 * (np.log(w) - (w - 1.0) + by_peak)


class ScaleMixture:
    """The model given the scales w of its multivariate t densities, and what is needed to integrate over them.

    Parameters
    ----------
    likelihood
        h of the model with the t densities.

    Attributes
    ----------
    original, conditional
        h of the model, and of the model given w.
    weights
        w, shape (m,): an element a density. `condition` changes it.
    """

    def __init__(self, likelihood: HLikelihood):
        self.original = likelihood
        model = likelihood.model
        self._mixed = mixed_effects(model)
        self.weights = np.ones(mixing_variables(model))
        self._precisions: list[Precision] = []
        self.degrees: list[ThetaMap] = []
        changed: dict[str, RandomEffect] = {}
        for effect in self._mixed:
            assert effect.degrees is not None
            numbers = len(self.degrees) + np.arange(len(effect.degrees.blocks))
            precision = _conditional_precision(effect, self.weights, numbers, model.n_theta)
            self._precisions.append(precision)
            self.degrees += [effect.degrees.map] * numbers.size
            changed[effect.name] = replace(effect, precision=precision, degrees=None)
        effects = tuple(changed.get(effect.name, effect) for effect in model.random_effects)
        self.conditional = HLikelihood(replace(model, random_effects=effects))

    @property
    def size(self) -> int:
        """Number of mixing variables m."""
        return self.weights.size

    def condition(self, weights: np.ndarray) -> None:
        """Give w the values `weights`, shape (m,)."""
        self.weights[:] = weights
        for precision in self._precisions:
            precision.forget()

    def named(self, weights: np.ndarray) -> dict[str, float]:
        """w by names for the result: of the effect, numbered where it has several densities."""
        names = []
        for effect in self._mixed:
            assert effect.degrees is not None
            count = len(effect.degrees.blocks)
            names += [f"mixing_weight_{effect.name}" + (f"_{k}" if count > 1 else "") for k in range(count)]
        return dict(zip(names, map(float, weights), strict=True))


@dataclass(frozen=True, eq=False)
class WeightedInverse:
    """``w_g`` times some entries of the inverse of a covariance matrix, for blocks g.

    Attributes
    ----------
    inverse
        The whole inverse as a function of theta.
    entries
        Which of its values.
    weights, numbers
        w of all blocks of the model, and the numbers of these blocks in it.
    """

    inverse: ThetaMap
    entries: np.ndarray
    weights: np.ndarray
    numbers: np.ndarray
    _last: list[tuple[bytes, np.ndarray, np.ndarray]]

    @property
    def size(self) -> int:
        """Number of values."""
        return self.entries.size * self.numbers.size

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, block by block, shape (m,)."""
        return np.outer(self.weights[self.numbers], self._at(theta)[0]).ravel()

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (m, r)."""
        return np.kron(self.weights[self.numbers][:, None], self._at(theta)[1])

    def _at(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and derivatives for w = 1; those of the last theta are kept."""
        key = np.asarray(theta).tobytes()
        if not self._last or self._last[0][0] != key:
            value, slope = self.inverse.value(theta)[self.entries], self.inverse.jacobian(theta)[self.entries]
            self._last[:] = [(key, value, slope)]
        return self._last[0][1:]


class ComponentDeterminant:
    """Log-determinant of many small blocks, of one size each group.

    Parameters
    ----------
    groups
        For every size m of blocks the places of their lower triangles by rows among the coefficients, shape
        (blocks, m (m + 1) / 2).
    """

    def __init__(self, groups: Sequence[np.ndarray]):
        self.groups = groups

    def _matrices(self, coefficients: np.ndarray, places: np.ndarray) -> np.ndarray:
        size = int((np.sqrt(8 * places.shape[1] + 1) - 1) / 2)
        rows, columns = np.tril_indices(size)
        matrices = np.zeros((len(places), size, size))
        matrices[:, rows, columns] = coefficients[places]
        matrices[:, columns, rows] = coefficients[places]
        return matrices

    def logdet(self, coefficients: np.ndarray) -> float:
        """The sum over blocks, -inf where one is not positive definite."""
        total = 0.0
        for places in self.groups:
            try:
                roots = np.linalg.cholesky(self._matrices(coefficients, places))
            except np.linalg.LinAlgError:
                return -np.inf
            total += 2.0 * float(np.log(np.diagonal(roots, axis1=1, axis2=2)).sum())
        return total

    def logdet_gradient(self, coefficients: np.ndarray) -> np.ndarray:
        """Entries of the inverses, off-diagonal ones twice."""
        result = np.zeros_like(coefficients)
        for places in self.groups:
            inverses = np.linalg.inv(self._matrices(coefficients, places))
            rows, columns = np.tril_indices(inverses.shape[1])
            result[places] = np.where(rows == columns, 1.0, 2.0) * inverses[:, rows, columns]
        return result


def _conditional_precision(effect: RandomEffect, weights: np.ndarray, numbers: np.ndarray, n_theta: int) -> Precision:
    """``w Q`` on the pattern of Q without the entries that are zero for every theta."""
    assert effect.degrees is not None
    assert effect.precision is not None
    inverse, blocks = effect.precision.coefficients, effect.degrees.blocks
    member = _components(inverse, blocks.shape[1], n_theta)
    rows, columns = np.tril_indices(blocks.shape[1])
    entries = np.flatnonzero(member[rows] == member[columns])
    rows, columns = rows[entries], columns[entries]
    first, second = blocks[:, rows].ravel(), blocks[:, columns].ravel()
    lower = (np.maximum(first, second), np.minimum(first, second))
    pattern = lower_pattern(sp.coo_array((np.ones(first.size), lower), shape=(blocks.size,) * 2))
    matrices = sp.csc_array((np.ones(first.size), (np.arange(first.size), np.lexsort(lower))))
    coefficients = WeightedInverse(inverse, entries, weights, numbers, [])
    by_size: dict[int, list[np.ndarray]] = {}
    for component in range(member.max() + 1):
        places = np.flatnonzero(member[rows] == component)
        for start in entries.size * np.arange(numbers.size):
            by_size.setdefault(places.size, []).append(start + places)
    determinant = ComponentDeterminant([np.array(found) for found in by_size.values()])
    return matrix_precision(pattern, matrices, coefficients, determinant, "normal given the scale of a t density")


def _components(inverse: ThetaMap, size: int, n_theta: int) -> np.ndarray:
    """Which effects of a density the scale matrix links, a number of each; zeros at random theta are zeros at all."""
    linked = np.eye(size, dtype=bool)
    rng, tried = np.random.default_rng(0), 0
    for _ in range(10 * TRIALS):
        theta = 0.5 * rng.normal(size=n_theta)
        if isinstance(inverse, InverseMap):
            matrix = inverse.covariance.value(theta).reshape(size, size)
        else:
            matrix = np.zeros((size, size))
            matrix[np.tril_indices(size)] = inverse.value(theta)
        if np.all(np.isfinite(matrix)):
            linked |= (matrix != 0) | (matrix.T != 0)
            tried += 1
        if tried == TRIALS:
            return connected_components(sp.csr_array(linked), directed=False)[1]
    return np.zeros(size, dtype=int)  # no usable value found: all of them may be linked
