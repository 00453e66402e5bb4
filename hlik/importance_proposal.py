r"""Proposals of importance sampling: for every block of random effects a mixture of normal and t densities.

A component of a block of d effects is ``v = mean + root x``, with x standard normal, or standard t: ``x`` normal
divided by ``sqrt(chi2 / df)``. A fixed part of the draws comes from each component, and all are weighed by the density
of the whole mixture (the deterministic mixture of Hesterberg 1995), so that no weight is larger than that of a single
component divided by its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special as sc

from hlik.adjusted_profile import LOG_2PI, Mode
from hlik.blocks import Blocks
from hlik.importance_points import uniform_points
from hlik.importance_shift import Shift

FULL = 300  # effects of a block up to which its whole covariance is adapted; beyond, variances only
PRIOR_DRAWS = 2.0  # effective draws, per effect of the block, that the mode counts as when the mean is adapted


@dataclass(frozen=True, eq=False)
class Affine:
    """Means (b, d) and roots (b, d, d) for b blocks of d effects; with the inverses and log determinants of the roots.

    In one place because components may share it: their quadratic forms are then computed once.
    """

    mean: np.ndarray
    root: np.ndarray
    inverse: np.ndarray
    log_det: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, root: np.ndarray) -> Affine:
        """With the inverse of the root."""
        return cls(mean, root, np.linalg.inv(root), np.linalg.slogdet(root)[1])

    def apply(self, x: np.ndarray) -> np.ndarray:
        """``mean + root x`` for x of shape (b, d, m)."""
        if x.shape[1] == 1:
            return self.mean[:, :, None] + self.root * x
        return self.mean[:, :, None] + self.root @ x

    def quadratic(self, v: np.ndarray) -> np.ndarray:
        """``|inverse (v - mean)|^2`` for v of shape (b, d, m), shape (b, m)."""
        moved = v - self.mean[:, :, None]
        x = self.inverse * moved if v.shape[1] == 1 else self.inverse @ moved
        return np.einsum("bdm,bdm->bm", x, x)


@dataclass(frozen=True, eq=False)
class Component:
    """One density of the mixture, for all blocks: `groups` has an `Affine` for every size of block.

    Attributes
    ----------
    share
        Its part of the draws.
    df
        Degrees of freedom of a multivariate t; infinite for a normal.
    grows
        Whether a block of d effects has at least d / 4: in many dimensions a t of few is nowhere near a normal.
    """

    share: float
    df: float
    groups: tuple[Affine, ...]
    grows: bool = False

    def degrees(self, d: int) -> float:
        """Degrees of freedom in d dimensions."""
        return max(self.df, d / 4) if self.grows else self.df

    def log_density(self, group: int, quadratic: np.ndarray) -> np.ndarray:
        """Log density where the quadratic form has these values, shape (b, m)."""
        affine = self.groups[group]
        d = affine.mean.shape[1]
        if np.isinf(self.df):
            return -0.5 * (quadratic + d * LOG_2PI) - affine.log_det[:, None]
        df = self.degrees(d)
        half = 0.5 * (df + d)
        peak = sc.gammaln(half) - sc.gammaln(0.5 * df) - 0.5 * d * np.log(df * np.pi)
        return peak - affine.log_det[:, None] - half * np.log1p(quadratic / df)


@dataclass(frozen=True, eq=False)
class Proposal:
    """A mixture for every block.

    Attributes
    ----------
    effects
        For every size of block the effects of its blocks, (b, d), as `Blocks.by_size` has them.
    numbers
        And the numbers of those blocks.
    shift
        How the draws follow the fixed effects; None: they do not.
    """

    components: tuple[Component, ...]
    effects: tuple[np.ndarray, ...]
    numbers: tuple[np.ndarray, ...]
    shift: Shift | None = None

    @property
    def n_effects(self) -> int:
        """Number of random effects q."""
        return sum(effects.size for effects in self.effects)

    @property
    def n_blocks(self) -> int:
        """Number of blocks B."""
        return sum(numbers.size for numbers in self.numbers)

    @property
    def mean(self) -> np.ndarray:
        """Means of the last component, shape (q,)."""
        mean = np.empty(self.n_effects)
        for effects, affine in zip(self.effects, self.components[-1].groups, strict=True):
            mean[effects] = affine.mean
        return mean

    def counts(self, m: int) -> list[int]:
        """Draws of each component, m in all."""
        ends = np.round(m * np.cumsum([component.share for component in self.components])).astype(int)
        return np.diff(ends, prepend=0).tolist()

    def draw(self, kind: str, m: int, part: int, parts: int, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Part `part` of `parts` of m draws: v, shape (q, columns), and log densities, shape (B, columns)."""
        counts = self.counts(m)
        slices = [(n * part // parts, n * (part + 1) // parts) for n in counts]
        columns = sum(stop - start for start, stop in slices)
        v, log_density = np.empty((self.n_effects, columns)), np.empty((self.n_blocks, columns))
        shares = np.array(counts) / m
        for group, (effects, numbers) in enumerate(zip(self.effects, self.numbers, strict=True)):
            drawn = []
            for number, (component, (start, stop)) in enumerate(zip(self.components, slices, strict=True)):
                rng = np.random.default_rng([*seed, group, number])
                if stop > start:
                    drawn.append(_draw(component, component.groups[group], kind, start, stop, rng))
            own = np.concatenate(drawn, axis=2)
            v[effects.ravel()] = own.reshape(effects.size, columns)
            log_density[numbers] = self._log_density(group, own, shares)
        return v, log_density

    def log_density(self, v: np.ndarray) -> np.ndarray:
        """Log densities of the mixture at v (q, m), whatever it was drawn from, shape (B, m)."""
        found = np.empty((self.n_blocks, v.shape[1]))
        shares = np.array([component.share for component in self.components])
        for group, (effects, numbers) in enumerate(zip(self.effects, self.numbers, strict=True)):
            found[numbers] = self._log_density(group, v[effects], shares)
        return found

    def _log_density(self, group: int, v: np.ndarray, shares: np.ndarray) -> np.ndarray:
        known: dict[int, np.ndarray] = {}
        total: np.ndarray | None = None
        for share, component in zip(shares, self.components, strict=True):
            if share == 0:
                continue
            affine = component.groups[group]
            if id(affine) not in known:
                known[id(affine)] = affine.quadratic(v)
            one = np.log(share) + component.log_density(group, known[id(affine)])
            total = one if total is None else np.logaddexp(total, one)
        assert total is not None
        return total

    def adapted(self, mean: np.ndarray, second: Sequence[np.ndarray], effective: np.ndarray) -> Proposal:
        """The proposal with the moments that weighted draws have found.

        Parameters
        ----------
        mean
            Of v, shape (q,).
        second
            For every size of block ``E (v - mean_0)(v - mean_0)'`` about the proposal's mean, shape (b, d, d), or
            its diagonal, (b, d), for blocks of more than `FULL` effects.
        effective
            Effective number of draws of every block, (B,): few move the covariance little.
        """
        groups = []
        first = self.components[0].groups
        for affine, effects, numbers, moment in zip(first, self.effects, self.numbers, second, strict=True):
            groups.append(_adapted(affine, mean[effects], moment, effective[numbers]))
        return replace(self, components=tuple(replace(c, groups=tuple(groups)) for c in self.components))


def _draw(
    component: Component, affine: Affine, kind: str, start: int, stop: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws `start` to `stop` of a component, shape (b, d, stop - start)."""
    b, d = affine.mean.shape
    is_normal = np.isinf(component.df)
    u = uniform_points(kind, b, d if is_normal else d + 1, start, stop, rng)
    x = sc.ndtri(u[:, :d])
    if not is_normal:
        df = component.degrees(d)
        x /= np.sqrt(2 * sc.gammaincinv(0.5 * df, u[:, d:]) / df)
    return affine.apply(x)


def _adapted(affine: Affine, mean: np.ndarray, moment: np.ndarray, effective: np.ndarray) -> Affine:
    """On the scale of x: towards the weighted moments, the more the more draws they are made of.

    A covariance of d effects from n draws costs ``d^2 / (4 n)`` of Kullback-Leibler divergence by its noise: it is
    taken with the part ``n / (n + d^2)``.
    """
    d = mean.shape[1]
    trust = effective / (effective + PRIOR_DRAWS * d)
    trust_spread = trust if moment.ndim == 2 else effective / (effective + d**2)
    shift = trust[:, None] * np.einsum("bij,bj->bi", affine.inverse, mean - affine.mean)
    if moment.ndim == 2:
        spread = np.sqrt(np.einsum("bij,bij->bi", affine.root, affine.root))
        variance = moment - (mean - affine.mean) ** 2
        ratio = np.sqrt(np.maximum(variance, 0.01 * spread**2)) / spread
        ratio = trust[:, None] * ratio + 1 - trust[:, None]
        return Affine.of(affine.mean + np.einsum("bij,bj->bi", affine.root, shift), affine.root * ratio[:, :, None])
    centred = moment - np.einsum("bi,bj->bij", mean - affine.mean, mean - affine.mean)
    covariance = affine.inverse @ centred @ np.swapaxes(affine.inverse, 1, 2)
    mixed = trust_spread[:, None, None] * covariance + (1 - trust_spread)[:, None, None] * np.eye(d)
    root = np.linalg.cholesky(0.5 * (mixed + np.swapaxes(mixed, 1, 2)))
    return Affine.of(affine.mean + np.einsum("bij,bj->bi", affine.root, shift), affine.root @ root)


def laplace_proposal(blocks: Blocks, mode: Mode, shares: Sequence[float], df: float) -> Proposal:
    """Normal and t components at the mode of h in v, with the covariance that its curvature gives."""
    groups = [Affine.of(mode.point.v[effects], root) for effects, root in _roots(blocks, mode)]
    degrees = (np.inf, df)
    found = [Component(s, f, tuple(groups), grows=True) for s, f in zip(shares, degrees, strict=True) if s > 0]
    return _proposal(blocks, found)


def glmm_proposal(blocks: Blocks, mode: Mode, shares: Sequence[float], df: float) -> Proposal:
    r"""Knudson's three components: ``t_df(0, D)``, ``N(v*, D)`` and ``N(v*, (Z'WZ + D^-1)^-1)``, D the prior variances.

    D, and the effects v*, are those of penalised quasi-likelihood (glmm 1.4.5; Knudson et al. 2021, section 4).
    """
    scale = 1.0 / np.sqrt(mode.point.random_weight)
    prior, moved, curved = [], [], []
    for effects, root in _roots(blocks, mode):
        own = scale[effects][:, :, None] * np.eye(effects.shape[1])
        prior.append(Affine.of(np.zeros(effects.shape), own))
        moved.append(Affine.of(mode.point.v[effects], own))
        curved.append(Affine.of(mode.point.v[effects], root))
    parts = zip(shares, (df, np.inf, np.inf), (prior, moved, curved), strict=True)
    return _proposal(blocks, [Component(s, f, tuple(groups)) for s, f, groups in parts if s > 0])


def _proposal(blocks: Blocks, components: Sequence[Component]) -> Proposal:
    numbers, effects = zip(*blocks.by_size(), strict=True)
    return Proposal(tuple(components), effects, numbers)


def _roots(blocks: Blocks, mode: Mode) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every size of block its effects (b, d), and roots (b, d, d) of their covariance, by sparse half-solves.

    Column k of the right-hand side has a one at the k-th eliminated effect of every block: half-solves of all blocks
    at once, as the factor is block diagonal.
    """
    factor = mode.bordered.factor_z
    order = np.asarray(factor.symbolic.perm)
    place = np.empty(order.size, dtype=int)  # rank of each eliminated effect among those of its block
    by_block = np.argsort(blocks.member[order], kind="stable")
    place[by_block] = np.arange(order.size) - np.repeat(np.cumsum(blocks.size) - blocks.size, blocks.size)
    units = np.zeros((order.size, blocks.largest))
    units[np.arange(order.size), place] = 1.0
    columns = factor.solve_Lt(units)
    return [(effects, columns[effects][:, :, : effects.shape[1]]) for _, effects in blocks.by_size()]
