"""The model as numbers: what every estimator works on, free of PyTensor.

Symbols (Lee & Nelder 1996; Lee, Nelder & Pawitan 2017):

===== ==========================================================================================
y     response
beta  fixed effects: parameters that enter a linear predictor linearly
v     random effects on the scale on which they enter the linear predictor linearly
u     random effects on the scale of their density in the model
eta   linear predictor, ``eta = X @ beta + Z @ v + offset``
theta dispersion parameters, unconstrained: everything else that the likelihood depends on
phi   dispersion of a response, a function of theta
lam   dispersion of a random effect, a function of theta
h     ``log f(y | v) + log f(v)``, the h-likelihood on the scale of v
===== ==========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from hlik.block_effects import BlockRoot, Degrees
from hlik.families import ResponseFamily
from hlik.graph.forms import Form
from hlik.linalg import BorderedSystem
from hlik.links import Link
from hlik.maps import ThetaMap
from hlik.precision import Precision, PriorPattern
from hlik.random_families import RandomFamily
from hlik.wide import WideTerm


@dataclass(frozen=True, eq=False)
class Variable:
    """Name, shape and labels of one variable of the PyMC model.

    Attributes
    ----------
    name, value_name
        Its own name and that of its PyMC value variable (the unconstrained scale).
    shape
        Its shape; `dims` has one name per axis.
    unconstrained_shape
        The shape of the value variable (differs from `shape` for simplexes and the like).
    """

    name: str
    value_name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    unconstrained_shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements of the value variable."""
        return int(np.prod(self.unconstrained_shape, dtype=int))


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter: fixed effect (columns of X) or dispersion parameter (elements of theta)."""

    variable: Variable
    role: str
    index: slice
    natural: ThetaMap | None = None  # of theta, for dispersion parameters; None: the value variable itself

    @property
    def name(self) -> str:
        """Name of the random variable."""
        return self.variable.name


@dataclass(frozen=True, eq=False)
class RandomEffect:
    """One term of random effects, ``v[index]``, independent given theta, with dispersion ``lam(theta)``.

    Attributes
    ----------
    family
        Its density on the scale of v; None where no known family fits (`obstacle` says why).
    dispersion
        lam as a function of theta, of size 1 or of the term's size.
    scale_map
        For a non-centred effect ``z``, with ``v = scale * z``: the scale as a function of theta.
    location
        For an effect with a mean, ``u = location + v``: the form of the mean.
    precision
        For effects with a joint normal density, its precision; `family` and `dispersion` are None then.
    degrees
        For multivariate t densities, whose inverse scale matrix then is `precision`.
    root
        For a non-centred effect ``z`` with ``v = z L'`` in blocks: L as a function of theta.
    wide
        For more effects than observations: how the effects follow from ``v[index]``, which then are scores.
    """

    variable: Variable
    index: slice
    family: RandomFamily | None
    dispersion: ThetaMap | None
    distribution: str
    scale_map: ThetaMap | None = None
    location: Form | None = None
    obstacle: str | None = None
    precision: Precision | None = None
    degrees: Degrees | None = None
    root: BlockRoot | None = None
    wide: WideTerm | None = None

    @property
    def name(self) -> str:
        """Name of the random variable."""
        return self.variable.name

    @property
    def size(self) -> int:
        """Number of elements of v."""
        return self.index.stop - self.index.start

    @property
    def levels(self) -> int:
        """Number of effects: more than `size` in a wide term."""
        return self.size if self.wide is None else self.wide.size


@dataclass(frozen=True, eq=False)
class Response:
    """One observed variable, rows ``rows`` of the stacked linear predictor.

    Attributes
    ----------
    y
        The response in the order of the graph, flattened; proportions for a Binomial. Shape (n,).
    weight
        Prior weights (trials for a Binomial), shape (n,) or (1,).
    dispersion
        phi as a function of theta, of size 1 or n; None where phi is 1.
    term
        Derivatives of a log density without closed form (`hlik.terms.ResponseTerm`); None for known families.
    trials
        Number of trials of a Binomial, shape (n,); None for others.
    """

    variable: Variable
    rows: slice
    distribution: str
    y: np.ndarray
    weight: np.ndarray
    family: ResponseFamily | None = None
    link: Link | None = None
    dispersion: ThetaMap | None = None
    trials: np.ndarray | None = None
    term: Any = None
    obstacle: str | None = None

    @property
    def name(self) -> str:
        """Name of the observed variable."""
        return self.variable.name

    @property
    def size(self) -> int:
        """Number of observations n."""
        return self.y.size


@dataclass(frozen=True, eq=False)
class Unobserved:
    """The missing values of a masked response: predicted, and no part of the likelihood.

    Attributes
    ----------
    variable
        PyMC's free variable ``y_unobserved``, shape (k,); `HierarchicalModel.forms` has its mean, where it is known.
    response
        The name that the user gave, ``y``; its observed part is the response ``y_observed``.
    missing
        Which elements of ``y`` are missing, bool, in its shape.
    variance, inputs
        Their own variance given the parameters, built as a function (`hlik.graph.graph_map.GraphMap`) of the value
        variables `inputs`; None where it is not known.
    """

    variable: Variable
    response: str
    missing: np.ndarray
    variance: Any = None
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class HierarchicalModel:
    """A hierarchical model read from a PyMC graph; immutable.

    Attributes
    ----------
    X, Z, offset
        Stacked over responses: ``eta = X @ beta + Z @ v + offset``; shapes (N, p), (N, q) CSR, (N,).
    theta_design
        Rows (N, r) of dispersion parameters that stand in a predictor as well; None where there are none.
    extra_terms
        Further terms of h (`hlik.terms.ResponseTerm`): densities of random effects without closed form, potentials.
    obstacles, laplace_obstacles
        Why the closed-form estimators, and those that need only derivatives, cannot serve the model.
    kinks
        Those of `laplace_obstacles` that say that a density has a kink: no obstacle to integrals.
    X_names
        A label per column of X, for messages.
    left_out
        Free variables that are not part of the likelihood: no response depends on them, or they are missing responses.
    unobserved
        The missing values of masked responses.
    forms
        The form of every free variable and Deterministic in terms of value variables, for reporting.
    source
        What PyMC's samplers need of the `pm.Model` (`hlik.samplers.source.Source`); None outside of `hlik.fit`.
    penalty
        The densities of parameters among the extra terms (`hlik.penalty.Penalty`), where they count.
    double
        The second linear predictors (`hlik.double.DoubleStructure`) where dispersions have random effects.
    """

    responses: tuple[Response, ...]
    random_effects: tuple[RandomEffect, ...]
    parameters: tuple[Parameter, ...]
    X: np.ndarray
    Z: sp.csr_array
    offset: np.ndarray
    X_names: tuple[str, ...]
    n_theta: int
    deterministics: tuple[Variable, ...]
    forms: dict[str, Form]
    coords: dict[str, np.ndarray]
    obstacles: tuple[str, ...] = ()
    laplace_obstacles: tuple[str, ...] = ()
    kinks: tuple[str, ...] = ()
    theta_design: np.ndarray | None = None
    extra_terms: tuple[Any, ...] = ()
    left_out: tuple[str, ...] = ()
    unobserved: tuple[Unobserved, ...] = ()
    graph_maps: dict[str, Any] = field(default_factory=dict)
    constant_data: dict[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)
    source: Any = None
    double: Any = None
    penalty: Any = None

    @property
    def n_rows(self) -> int:
        """Rows of the stacked linear predictor."""
        return self.offset.size

    @property
    def n_beta(self) -> int:
        """Number of fixed effects p."""
        return self.X.shape[1]

    @property
    def n_random(self) -> int:
        """Number of random effects q."""
        return self.Z.shape[1]

    @cached_property
    def system(self) -> BorderedSystem:
        """The pattern of H in (beta, v), analysed once for all estimators and results of this model."""
        return BorderedSystem(self.X, self.Z, self.prior.matrix, weights_may_be_negative=True)

    @cached_property
    def prior(self) -> PriorPattern:
        """The pattern of the prior precision of all random effects."""
        effects = self.random_effects
        patterns = [None if effect.precision is None else effect.precision.pattern for effect in effects]
        return PriorPattern.of([effect.size for effect in effects], patterns)

    @property
    def fixed_effects(self) -> tuple[Parameter, ...]:
        """Parameters that enter a linear predictor linearly."""
        return tuple(p for p in self.parameters if p.role == "fixed effect")

    @property
    def dispersion_parameters(self) -> tuple[Parameter, ...]:
        """All other parameters."""
        return tuple(p for p in self.parameters if p.role == "dispersion parameter")
