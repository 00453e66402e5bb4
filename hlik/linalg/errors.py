"""What `hlik.linalg` raises: a matrix that is not positive definite, with the column where this showed."""

from typing import Literal

import numpy as np

Column = int | tuple[Literal["x"], int]


class NotPositiveDefinite(np.linalg.LinAlgError):
    """A pivot of the Cholesky factorisation was not positive, or zero to working precision.

    Parameters
    ----------
    column : int or ("x", int)
        The column whose pivot failed, in the caller's own numbering. In a `BorderedSystem` an integer counts
        the columns of Z and ``("x", j)`` is column j of X. A column fails because of those eliminated before
        it: it is *one* member of the dependent or indefinite set, not always the guilty one.
    pivot_ratio : float
        The pivot divided by the column's own diagonal entry: about 1e-16 for a singular matrix; not above 0
        for an indefinite one.
    """

    def __init__(self, column: Column, pivot_ratio: float) -> None:
        super().__init__(column, pivot_ratio)
        self.column = column
        self.pivot_ratio = pivot_ratio

    def __str__(self) -> str:
        if isinstance(self.column, tuple):
            where = f"column {self.column[1]} of X"
        else:
            where = f"column {self.column}"
        if self.pivot_ratio > 0:
            ratio = f"{self.pivot_ratio:.2g} of its diagonal entry"
            return f"the matrix is singular to working precision: the pivot of {where} is {ratio}"
        return f"the matrix is not positive definite: the pivot of {where} is not positive"
