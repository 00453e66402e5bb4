"""Responses, means and links on which the tests of families look at every family."""

import numpy as np
import pytest

from hlik.families import FAMILIES, ResponseFamily
from hlik.links import LINKS

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
PAIRS = [(family, link) for family in FAMILIES.values() for link in LINKS.values()]
EVERY_PAIR = pytest.mark.parametrize("family, link", PAIRS, ids=[f"{f.name}-{g.name}" for f, g in PAIRS])

RESPONSES = {
    "normal": [-1.3, 0.0, 0.4, 2.0],
    "bernoulli": [0.0, 1.0],
    "binomial": [0.0, 0.2, 0.6, 1.0],
    "poisson": [0.0, 1.0, 4.0, 30.0],
    "gamma": [0.01, 0.7, 1.0, 9.0],
    "inverse_gaussian": [0.05, 0.7, 1.0, 9.0],
}
MEANS = {name: [0.03, 0.2, 0.5, 0.6, 0.97] if "b" in name else [0.02, 0.7, 1.0, 3.0, 40.0] for name in RESPONSES}
MEANS["normal"] = [-4.0, -0.1, 0.0, 0.4, 3.0]
WEIGHTS = {"binomial": 5.0}


def responses_and_means(family: ResponseFamily) -> tuple[np.ndarray, np.ndarray]:
    grid = np.meshgrid(RESPONSES[family.name], MEANS[family.name])
    return grid[0].ravel(), grid[1].ravel()


def responses_and_eta(family: ResponseFamily, link) -> tuple[np.ndarray, np.ndarray]:
    """Every response at every eta of a grid that has a mean well inside the family's range."""
    eta = np.array([-2.3, -1.4, -0.6, -0.25, 0.15, 0.4, 0.75, 1.3, 2.2])
    eta = eta[link.valid_eta(eta)]
    mu = link.inverse(eta)
    low, high = {"normal": (-np.inf, np.inf), "bernoulli": (0, 1), "binomial": (0, 1)}.get(family.name, (0, np.inf))
    eta = eta[(mu > low) & (mu < high)]
    if eta.size == 0:
        pytest.skip("no common range")
    grid = np.meshgrid(RESPONSES[family.name], eta)
    return grid[0].ravel(), grid[1].ravel()


def dispersion(family: ResponseFamily) -> float:
    return 0.7 if family.has_dispersion else 1.0


def four_point(function, x, h=2e-3):
    """Derivative by Richardson's extrapolation of central differences, three levels: error O(h^6)."""
    d = [(function(x + s) - function(x - s)) / (2 * s) for s in (h, h / 2, h / 4)]
    d = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
    return (16 * d[1] - d[0]) / 15
