"""Distributions that PyMC lacks: spatial fields, Gaussian Markov random fields, related individuals.

They are ordinary PyMC distributions: they draw (`pm.draw`, prior and posterior predictive), have a log density with a
gradient (`pm.sample`), and take ``dims`` and ``shape``. hlik fits them with sparse precision matrices.
"""

from hlik.distributions.gaussian_field import GMRF
from hlik.distributions.relationship import Relationship
from hlik.distributions.spatial import CAR, SAR, rho_range

__all__ = ["CAR", "GMRF", "SAR", "Relationship", "rho_range"]
