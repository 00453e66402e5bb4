"""Pedigrees: who descends from whom, inbreeding, and the inverse of the relationship matrix.

The relationship matrix A of a pedigree is twice the matrix of coefficients of kinship: ``A_ii = 1 + F_i``, and
``A = T diag(d) T'`` with T tracing genes from ancestors to descendants and d the variance of Mendelian sampling.
Its inverse ``(I - P)' diag(1/d) (I - P)``, P holding 1/2 for each known parent, has a few entries an animal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from hlik.errors import ModelError

COLUMNS = ("id", "sire", "dam")


@dataclass(frozen=True, eq=False)
class Pedigree:
    """The parents of every individual.

    Individuals may come in any order; results are in the order given. Make one with `Pedigree.of` from identities;
    the constructor takes numbers.

    Parameters
    ----------
    ids
        Identities of the n individuals, all different, shape (n,).
    sire, dam
        Number (from 0) of the father and of the mother of each, -1 where unknown, shape (n,). A plant may be both.

    Raises
    ------
    ModelError
        Where an individual is its own ancestor, is named twice, or has a parent that is not in the pedigree.

    Notes
    -----
    Cost: A^-1 is linear in n once the inbreeding is known, and that takes the number of pairs of an individual and
    its ancestors, each full-sib family counted once.

    References
    ----------
    Henderson, C. R. (1976). A simple method for computing the inverse of a numerator relationship matrix used in
    prediction of breeding values. Biometrics 32, 69-83.
    Quaas, R. L. (1976). Computing the diagonal elements and inverse of a large numerator relationship matrix.
    Biometrics 32, 949-953.
    Meuwissen, T. H. E. & Luo, Z. (1992). Computing inbreeding coefficients in large populations. Genetics Selection
    Evolution 24, 305-313.

    Examples
    --------
    Two parents, two of their offspring, and a child of these full sibs:

    >>> import hlik
    >>> family = hlik.Pedigree.of(["a", "b", "c", "d", "e"], [None, None, "a", "a", "c"], [None, None, "b", "b", "d"])
    >>> family.inbreeding
    array([0.  , 0.  , 0.  , 0.  , 0.25])
    >>> family.precision.toarray()[4]
    array([ 0.,  0., -1., -1.,  2.])
    """

    ids: np.ndarray
    sire: np.ndarray
    dam: np.ndarray

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids)
        sire, dam = (np.ascontiguousarray(parent, dtype=np.int32) for parent in (self.sire, self.dam))
        n = ids.size
        if not ids.shape == sire.shape == dam.shape == (n,):
            raise ModelError(f"ids, sire and dam must have one length, got {ids.shape}, {sire.shape} and {dam.shape}.")
        for name, parent in (("sire", sire), ("dam", dam)):
            if n and not (-1 <= parent.min() and parent.max() < n):
                raise ModelError(f"{name} must hold numbers from 0 to {n - 1}, or -1 where unknown.")
        for name, value in (("ids", ids), ("sire", sire), ("dam", dam)):
            object.__setattr__(self, name, value)
        assert self._order.size == n  # raises where there is a loop

    @classmethod
    def of(cls, ids: Any, sire: Any, dam: Any, *, add_founders: bool = False) -> Pedigree:
        """A pedigree from identities.

        Parameters
        ----------
        ids, sire, dam
            Identity of each individual and of its parents: arrays or Series of one length, of numbers or strings.
            None, NaN, "" and, unless an individual has that identity, 0 and "0" stand for an unknown parent.
        add_founders
            Give parents without a row of their own one, before the others, with unknown parents. Otherwise they are
            an error.

        Returns
        -------
        Pedigree
        """
        own, (fathers, mothers) = pd.Index(ids), (pd.Series(np.asarray(p, dtype=object)) for p in (sire, dam))
        if own.hasnans:
            raise ModelError("The identities of individuals must not be missing.")
        if not own.is_unique:
            raise ModelError(f"Individual {_named(own[own.duplicated()][0])} has more than one row in the pedigree.")
        if not len(own) == len(fathers) == len(mothers):
            raise ModelError(
                f"ids, sire and dam must have one length, got {len(own)}, {len(fathers)} and {len(mothers)}."
            )
        known = [_known(parent, own) for parent in (fathers, mothers)]
        named = pd.Index(pd.concat([p[k] for p, k in zip((fathers, mothers), known, strict=True)]).unique())
        strangers = named.difference(own, sort=False)
        if len(strangers) and not add_founders:
            raise ModelError(
                f"{len(strangers)} parents have no row of their own, the first is {_named(strangers[0])}: add rows "
                f"with unknown parents for them, or pass add_founders=True."
            )
        every = strangers.append(own) if len(strangers) else own
        numbers = []
        for parent, is_known in zip((fathers, mothers), known, strict=True):
            column = np.full(len(every), -1, dtype=np.int32)
            column[len(strangers) :][is_known] = every.get_indexer(pd.Index(parent[is_known]))
            numbers.append(column)
        return cls(every.to_numpy(), *numbers)

    @classmethod
    def from_frame(cls, data: pd.DataFrame, *, add_founders: bool = False) -> Pedigree:
        """A pedigree from a DataFrame with the columns ``id``, ``sire`` and ``dam``; see `Pedigree.of`."""
        missing = [name for name in COLUMNS if name not in data.columns]
        if missing:
            raise ModelError(f"A pedigree needs the columns {list(COLUMNS)}; {missing} are missing.")
        return cls.of(data["id"], data["sire"], data["dam"], add_founders=add_founders)

    @property
    def size(self) -> int:
        """Number of individuals n."""
        return self.ids.size

    def index(self, ids: Any) -> np.ndarray:
        """Numbers of individuals by their identities, to write ``a[index]`` in a model.

        Raises
        ------
        ModelError
            Where an identity is not in the pedigree.
        """
        wanted = pd.Index(ids)
        found = pd.Index(self.ids).get_indexer(wanted)
        if np.any(found < 0):
            raise ModelError(f"Individual {_named(wanted[int(np.argmin(found))])} is not in the pedigree.")
        return found

    @cached_property
    def inbreeding(self) -> np.ndarray:
        """Coefficient of inbreeding F of every individual, shape (n,)."""
        return self._traced[0]

    @cached_property
    def mendelian_variance(self) -> np.ndarray:
        """Variance d of an individual's Mendelian sampling, in units of sigma^2, shape (n,); 1 for founders."""
        return self._traced[1]

    @cached_property
    def precision(self) -> sp.csc_array:
        """A^-1, shape (n, n), by Henderson's and Quaas' rules."""
        descent = self._descent
        return sp.csc_array(descent.T @ sp.diags_array(1.0 / self.mendelian_variance) @ descent)

    @property
    def logdet(self) -> float:
        """log|A|, the sum of log d."""
        return float(np.sum(np.log(self.mendelian_variance)))

    def relationship(self) -> np.ndarray:
        """A itself by the tabular method, shape (n, n): for small pedigrees, costs n^2 numbers."""
        A = np.zeros((self.size + 1, self.size + 1))  # the last row stands for unknown parents
        done: list[int] = []
        for i in self._order:
            s, d = self.sire[i], self.dam[i]
            A[i, done] = A[done, i] = 0.5 * (A[s, done] + A[d, done])
            A[i, i] = 1.0 + 0.5 * A[s, d]
            done.append(int(i))
        return A[:-1, :-1]

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draws from N(0, A), shape (size, n): gene dropping."""
        from scipy.sparse.linalg import spsolve_triangular

        draws = rng.standard_normal((self.size, size)) * np.sqrt(self.mendelian_variance)[:, None]
        order = self._order
        lower = sp.csr_array(self._descent[order][:, order])
        found = np.empty_like(draws)
        found[order] = spsolve_triangular(lower, draws[order], lower=True, unit_diagonal=True)
        return found.T

    @cached_property
    def _descent(self) -> sp.csr_array:
        """I - P."""
        n = self.size
        parts = [(np.arange(n), np.arange(n), np.ones(n))]
        for parent in (self.sire, self.dam):
            child = np.flatnonzero(parent >= 0)
            parts.append((child, parent[child], np.full(child.size, -0.5)))
        rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        return sp.csr_array((values, (rows, columns)), shape=(n, n))

    @cached_property
    def _ordered(self) -> tuple[np.ndarray, np.ndarray]:
        from hlik import inbreeding

        loop, order, generation = inbreeding.parents_first(self.sire, self.dam)
        if loop >= 0:
            raise ModelError(f"Individual {_named(self.ids[loop])} is its own ancestor: correct its parents.")
        return order, generation

    @property
    def _order(self) -> np.ndarray:
        return self._ordered[0]

    @cached_property
    def _traced(self) -> tuple[np.ndarray, np.ndarray]:
        from hlik import inbreeding

        order, generation = self._ordered
        return inbreeding.inbreeding(order, self.sire, self.dam, generation)


def _named(identity: Any) -> str:
    """An identity in print: NumPy's numbers as Python's."""
    return repr(identity.item() if isinstance(identity, np.generic) else identity)


def _known(parent: pd.Series, own: pd.Index) -> np.ndarray:
    """Which entries of a column of parents name somebody."""
    unknown = parent.isna() | (parent == "")
    for zero in (0, "0"):
        if zero not in own:
            unknown |= parent == zero
    return ~unknown.to_numpy()
