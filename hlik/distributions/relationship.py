"""Related individuals: effects with a covariance proportional to a relationship matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from pytensor.tensor.variable import TensorVariable
from scipy import linalg

from hlik.distributions.random_variable import PrecisionNormal, PrecisionNormalRV, random_variable
from hlik.distributions.structure import PrecisionStructure, symmetric
from hlik.errors import ModelError
from hlik.pedigree import Pedigree


class RelationshipRV(PrecisionNormalRV):
    """The random-variable Op of `Relationship`."""

    name = "relationship"
    _print_name = ("Relationship", "\\operatorname{Relationship}")


class Relationship(PrecisionNormal):
    r"""Effects of related individuals, ``a ~ N(mu, sigma^2 A)``.

    Parameters
    ----------
    sigma
        Standard deviation of an individual that is not inbred, a positive scalar.
    A
        The relationship matrix, dense, shape (n, n): additive, genomic (K), dominance, or any covariance. It must be
        positive definite.
    precision
        Or its inverse, SciPy sparse or dense.
    pedigree
        Or a `hlik.Pedigree`, or a DataFrame with the columns ``id``, ``sire`` and ``dam`` from which one is made:
        A^-1 then comes from Henderson's and Quaas' rules, with inbreeding. Effects are in the pedigree's order.
    mu
        Mean, a scalar or a vector.

    Raises
    ------
    ModelError
        Where not exactly one of A, precision and pedigree is given, or the matrix is not symmetric and positive
        definite.

    Notes
    -----
    Costs: a multiplication by A^-1 a log density, log|A| being found once; a pedigree's is linear in the
    individuals, a dense A takes n^3 operations once.

    References
    ----------
    Henderson, C. R. (1976). A simple method for computing the inverse of a numerator relationship matrix used in
    prediction of breeding values. Biometrics 32, 69-83.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> from hlik.distributions import Relationship
    >>> family = hlik.Pedigree.of([1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 2, 2])
    >>> with pm.Model(coords={"animal": family.ids}) as model:
    ...     sigma_a = pm.HalfNormal("sigma_a", 1)
    ...     a = Relationship("a", sigma=sigma_a, pedigree=family, dims="animal")
    >>> draws = pm.draw(Relationship.dist(sigma=1.0, pedigree=family), 20_000, random_seed=1)
    >>> float(np.corrcoef(draws.T)[2, 3].round(1))  # full sibs
    0.5
    """

    rv_type = RelationshipRV
    rv_op = staticmethod(random_variable)

    @classmethod
    def dist(
        cls, sigma: Any, *, A: Any = None, precision: Any = None, pedigree: Any = None, mu: Any = 0.0, **kwargs: Any
    ) -> TensorVariable:
        """An unnamed random variable; see the class."""
        structure = relationship_structure(A, precision, pedigree)
        return cls.of(RelationshipRV(structure), mu, [1.0 / sigma**2], **kwargs)


def relationship_structure(A: Any = None, precision: Any = None, pedigree: Any = None) -> PrecisionStructure:
    """A^-1 with log|A^-1| from whichever of the three is given."""
    given = [name for name, it in (("A", A), ("precision", precision), ("pedigree", pedigree)) if it is not None]
    if len(given) != 1:
        raise ModelError(f"Relationship takes one of A, precision and pedigree; got {given or 'none of them'}.")
    domain = "sigma must be positive and A positive definite"
    if pedigree is not None:
        known = Pedigree.from_frame(pedigree) if isinstance(pedigree, pd.DataFrame) else pedigree
        if not isinstance(known, Pedigree):
            raise ModelError(f"pedigree must be a hlik.Pedigree or a DataFrame; got {type(pedigree).__name__}.")
        return PrecisionStructure([known.precision], logdet=-known.logdet, domain=domain)
    if precision is not None:
        return PrecisionStructure([precision], domain=domain)
    matrix = symmetric(A, "A").toarray()
    try:
        lower = linalg.cholesky(matrix, lower=True)
    except linalg.LinAlgError:
        raise ModelError(_singular(matrix)) from None
    if np.min(np.diag(lower)) ** 2 <= 1e-13 * np.max(np.diag(matrix)):
        raise ModelError(_singular(matrix))
    inverse = linalg.cho_solve((lower, True), np.eye(matrix.shape[0]))
    logdet = -2.0 * float(np.sum(np.log(np.diag(lower))))
    return PrecisionStructure([sp.csc_array(0.5 * (inverse + inverse.T))], logdet=logdet, domain=domain)


def _singular(matrix: np.ndarray) -> str:
    smallest = float(linalg.eigvalsh(matrix)[0])
    return (
        f"A must be positive definite; its smallest eigenvalue is {smallest:.3g}. For a genomic matrix made of fewer "
        f"markers than individuals, or of centred ones, add a small number to its diagonal, or put the markers into "
        f"the model as Z @ u."
    )
